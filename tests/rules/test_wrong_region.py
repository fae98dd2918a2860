"""Each prefix against each host, and where a redirect leads."""

import base64

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import Exchange, Settings
from cio_proxy.rules import RULES

from .alone import findings, told

RULE = "wrong-region"
TRACK = {"userId": "42", "event": "a"}


def key(secret: str, user: str = "") -> dict[str, str]:
    return {
        "Authorization": "Basic " + base64.b64encode(f"{user or secret}:{secret if user else ''}".encode()).decode()
    }


@pytest.mark.parametrize("prefix", ["pk_us_", "sk_us_", "pk_eu_", "sk_eu_"])
@pytest.mark.parametrize(("host", "region"), [("cdp.customer.io", "us"), ("cdp-eu.customer.io", "eu")])
def test_a_key_names_its_region(prefix: str, host: str, region: str) -> None:
    for headers in (key(f"{prefix}1234567890"), key(f"{prefix}1234567890", "x")):
        told_of = findings(RULE, "POST", f"{host}/v1/track", TRACK, headers=headers)
        assert [(f.pointer, f.confidence, f.whole) for f in told_of] == (
            [] if region in prefix else [("header:Authorization", "certain", True)]
        )


@pytest.mark.parametrize("secret", ["pk_xx_123456", "ck_eu_123456", "PK_EU_123456", "a13c95a0bc44d9f01e27"])
def test_other_keys_name_none(secret: str) -> None:
    assert told(RULE, "POST", "cdp.customer.io/v1/track", TRACK, headers=key(secret)) == []


def test_a_key_is_judged_on_pipelines_and_on_hosts_of_customer_io_alone() -> None:
    headers = key("sk_eu_1234567890")
    assert told(RULE, "POST", "track.customer.io/api/v1/customers/42/events", {"name": "a"}, headers=headers) == []
    assert told(RULE, "POST", "localhost/v1/track", TRACK, headers=headers) == []
    body = {"batch": [{"type": "track", **TRACK}, {"type": "track", **TRACK}]}
    assert len(told(RULE, "POST", "cdp.customer.io/v1/batch", body, headers=headers)) == 1


HOSTS = {
    "track.customer.io": "us",
    "cdp.customer.io": "us",
    "api.customer.io": "us",
    "track-eu.customer.io": "eu",
    "cdp-eu.customer.io": "eu",
    "api-eu.customer.io": "eu",
}


async def redirected(host: str, location: str) -> list[tuple[str, str]]:
    path = {"t": b"/api/v1/accounts/region", "c": b"/v1/track", "a": b"/v1/campaigns", "l": b"/api/v1/accounts/region"}
    exchange = Exchange(
        id="1", at=1.75e9, method="GET", target=path[host[0]], host=host, headers=(), body=b"", connection="a"
    )
    engine = Engine(Settings(), tuple(r for r in RULES if r.info.id == RULE), sealed_with(b"k" * 32))
    found = await audit_recorded([(exchange, Recorded(1.75e9, 301, b"", location))], engine)
    return [(finding.pointer, finding.confidence) for finding in found]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("other", HOSTS)
async def test_a_redirect_to_a_host_of_the_other_region(host: str, other: str) -> None:
    wanted = [] if HOSTS[host] == HOSTS[other] else [("header:Host", "certain")]
    assert await redirected(host, f"https://{other}/api/v1/customers/42") == wanted


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("https://track-eu.customer.io/", [("header:Host", "likely")]),
        ("https://TRACK-EU.customer.io:443/", [("header:Host", "likely")]),
        ("https://track.customer.io/", []),
        ("https://example.com/", []),
        ("/login", []),
        ("https://[track-eu.customer.io/", []),
    ],
)
async def test_a_redirect_from_a_host_of_ones_own(location: str, wanted: list[tuple[str, str]]) -> None:
    assert await redirected("localhost", location) == wanted
