"""What a command finds in its environment, so that its Customer.io traffic comes to the proxy.

Two ways lead there. Whatever respects `HTTPS_PROXY` (requests, urllib, curl, Go, Ruby, axios) goes to the explicit
listener, and trusts its certificates by the proxy's bundle and what it trusted already. What does not always (fetch,
undici, Node's own https, httpx) is led to the outbound listener by a preload, which leaves all other hosts alone.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import certifi

from cio_proxy import state
from cio_proxy.apis import HOSTS
from cio_proxy.config import Mistake, proxy
from cio_proxy.model import Settings

log = logging.getLogger("cio_proxy")

PRELOADS: Final = Path(__file__).with_name("preloads")
CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")
"""Each names a file that takes the place of the system's authorities: for OpenSSL, requests, curl, boto and git."""
NODE_CA: Final = "NODE_EXTRA_CA_CERTS"
"""Names a file of authorities that Node trusts beside its own."""
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
"""Where an app under test talks to itself; no proxy is on that way."""
PROXY_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""What names a proxy for https, the first one that is set."""


def surroundings(environ: Mapping[str, str], ready: Mapping[str, Any], home: Path, folder: Path) -> dict[str, str]:
    """The environment of a command; `ready` is the ready line, `home` the state folder, `folder` takes files."""
    bundle = folder / "authorities.pem"
    bundle.write_bytes(b"\n".join([state.bundle(home).read_bytes(), *trusted(environ)]))
    node = folder / "authority.pem"
    node.write_bytes(b"\n".join([*contents(environ.get(NODE_CA)), state.authority(home).read_bytes()]))
    explicit = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), ready["explicit"])
    direct = dict.fromkeys(("NO_PROXY", "no_proxy"), without_proxy(environ))
    return {
        **environ,
        **explicit,
        **direct,
        **dict.fromkeys(CA_VARIABLES, str(bundle)),
        NODE_CA: str(node),
        "NODE_OPTIONS": f'{environ.get("NODE_OPTIONS", "")} --require "{PRELOADS / "customerio.cjs"}"'.strip(),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(PRELOADS), environ.get("PYTHONPATH")))),
        "CIO_PROXY_URL": ready["outbound"],
        "CIO_PROXY_HOSTS": " ".join(HOSTS),
    }


def behind(settings: Settings, environ: Mapping[str, str], folder: Path) -> Settings:
    """The settings where the user's environment names a proxy or authorities: we go through it, and trust them.

    What is configured is left. So is an upstream of the user's own: it may be this machine. `folder` takes a file.
    """
    roots = folder / "named.pem"
    named = dict.fromkeys(map(environ.get, (*CA_VARIABLES, NODE_CA)))
    roots.write_bytes(b"\n".join(content for path in named for content in contents(path)))
    if settings.extra_ca is None:
        with suppress(ValueError):  # where there are none, or one is broken, for the command too
            state.authorities(roots)
            settings = replace(settings, extra_ca=str(roots))
    name = next((name for name in PROXY_VARIABLES if environ.get(name)), None)
    if name is None or settings.upstream_proxy is not None or "://" in settings.upstream:
        return settings
    url = environ[name] if "://" in environ[name] else f"http://{environ[name]}"
    try:
        return replace(settings, upstream_proxy=proxy(url))
    except Mistake:
        log.warning("%s is no HTTP proxy with a port (http://HOST:3128): other sites are reached without it", name)
        return settings


def trusted(environ: Mapping[str, str]) -> list[bytes]:
    """The authorities that are trusted beside the machine's: OpenSSL's, Python's, and those that the user named."""
    system = ssl.get_default_verify_paths().cafile
    named = [environ.get(name) for name in CA_VARIABLES]
    return [content for path in dict.fromkeys([system, certifi.where(), *named]) for content in contents(path)]


def contents(path: str | None) -> list[bytes]:
    """What a file holds, or each file of a folder; nothing where there is no such file."""
    if not path:
        return []
    named, found = Path(path), list[bytes]()
    with suppress(OSError):  # a folder that may not be listed
        for file in sorted(named.iterdir()) if named.is_dir() else [named]:
            with suppress(OSError):
                found.append(file.read_bytes())
    return found


def without_proxy(environ: Mapping[str, str]) -> str:
    """What goes past proxies: what its user said, but for Customer.io, and this machine."""
    said = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    hosts = [host for host in map(str.strip, said.split(",")) if host and not covers_customerio(host)]
    return ",".join(dict.fromkeys([*hosts, *LOCAL]))


def covers_customerio(pattern: str) -> bool:
    """Whether an entry of `NO_PROXY` is for a host of Customer.io's."""
    suffix = pattern.lstrip("*").lstrip(".").partition(":")[0].lower()
    return any(host == suffix or host.endswith(f".{suffix}") for host in HOSTS) if suffix else True
