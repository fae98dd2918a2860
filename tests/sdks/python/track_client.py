"""`customerio.CustomerIO` against a proxy at a plain `http://` or a TLS address."""

from urllib.parse import urlsplit

import session
from customerio import APIClient, CustomerIO


def over_tls(proxy: str, site_id: str, api_key: str) -> CustomerIO:
    """As documented, on the port that speaks both; `REQUESTS_CA_BUNDLE` names the proxy's certificate."""
    address = urlsplit(proxy)
    return CustomerIO(site_id, api_key, host=address.hostname, port=address.port)


def plain(proxy: str, site_id: str, api_key: str) -> CustomerIO:
    """Over plain http, which no option of the constructor offers. `batch` ignores it and speaks TLS."""
    client = over_tls(proxy, site_id, api_key)
    client.base_url = f"{proxy}/api/v1"
    return client


def connect(proxy: str) -> CustomerIO:
    """A client of a new workspace."""
    return plain(proxy, session.key(20), session.key(20))


def app(proxy: str) -> APIClient:
    return APIClient(session.key(32), url=proxy)
