"""What a command finds in its environment, so that its Customer.io traffic comes to the proxy.

Two ways lead there. Whatever respects `HTTPS_PROXY` (requests, urllib, curl, Go, Ruby, axios) goes to the explicit
listener, and trusts its certificates by a bundle of the system's authorities and ours. What does not always (fetch,
undici, Node's own https, httpx) is led to the outbound listener by a preload, which leaves all other hosts alone.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import certifi

from cio_proxy.apis import HOSTS

PRELOADS: Final = Path(__file__).with_name("preloads")
CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Each names a file that takes the place of the system's authorities: for OpenSSL, requests, curl, boto and git."""
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
"""Where an app under test talks to itself; no proxy is on that way."""


def surroundings(environ: Mapping[str, str], ready: Mapping[str, Any], authority: Path, folder: Path) -> dict[str, str]:
    """The environment of a command; `ready` is the ready line, `authority` our certificate, `folder` takes files."""
    bundle = folder / "authorities.pem"
    bundle.write_bytes(b"\n".join([*trusted(environ), authority.read_bytes()]))
    node = folder / "authority.pem"
    extra = environ.get("NODE_EXTRA_CA_CERTS")
    node.write_bytes(b"\n".join([*contents(extra), authority.read_bytes()]))
    explicit = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), ready["explicit"])
    direct = dict.fromkeys(("NO_PROXY", "no_proxy"), without_proxy(environ))
    return {
        **environ,
        **explicit,
        **direct,
        **dict.fromkeys(CA_VARIABLES, str(bundle)),
        "NODE_EXTRA_CA_CERTS": str(node),
        "NODE_OPTIONS": f'{environ.get("NODE_OPTIONS", "")} --require "{PRELOADS / "customerio.cjs"}"'.strip(),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PRELOADS), environ.get("PYTHONPATH")))),
        "CIO_PROXY_URL": ready["outbound"],
        "CIO_PROXY_HOSTS": " ".join(HOSTS),
    }


def trusted(environ: Mapping[str, str]) -> list[bytes]:
    """The authorities that a program trusts already: the system's, the usual ones, and those that its user named."""
    system = ssl.get_default_verify_paths().cafile
    named = [environ.get(name) for name in CA_VARIABLES]
    return [content for path in dict.fromkeys([system, certifi.where(), *named]) for content in contents(path)]


def contents(path: str | None) -> list[bytes]:
    """What a file holds, in a list that is empty where there is no such file."""
    try:
        return [Path(path).read_bytes()] if path else []
    except OSError:
        return []


def without_proxy(environ: Mapping[str, str]) -> str:
    """What goes past proxies: what its user said, but for Customer.io, and this machine."""
    said = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    hosts = [host for host in map(str.strip, said.split(",")) if host and not covers_customerio(host)]
    return ",".join(dict.fromkeys([*hosts, *LOCAL]))


def covers_customerio(pattern: str) -> bool:
    """Whether an entry of `NO_PROXY` is for a host of Customer.io's."""
    suffix = pattern.lstrip("*").lstrip(".").partition(":")[0].lower()
    return any(host == suffix or host.endswith(f".{suffix}") for host in HOSTS) if suffix else True
