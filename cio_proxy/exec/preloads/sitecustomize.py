"""Leads what httpx sends to Customer.io to the proxy: with a transport of its own it does not look at HTTPS_PROXY.

Python imports this module at its start, since its folder stands first on the path. One of the same name that would have
been imported without it is imported after it. It runs in any Python 3 there is, and needs nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))


class Finder:
    """Lets httpx be found as ever, and changes it once it is loaded."""

    _finding = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Find httpx without us; anything else is for others to find. Some only ask whether it is there."""
        if name != "httpx" or self._finding:
            return None
        self._finding = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._finding = False
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                load(module)
                lead(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def lead(httpx: Any) -> None:
    """Send the requests for Customer.io's hosts to the proxy; they keep their `Host`.

    What goes through an HTTP proxy stays there: that of a client that looks at HTTPS_PROXY is ours. An httpx before
    0.21, whose transports are others, is left as it is.
    """
    try:
        import httpcore  # type: ignore[import-not-found, unused-ignore]

        direct = httpcore.ConnectionPool, httpcore.AsyncConnectionPool  # those of proxies are subclasses
        proxy = httpx.URL(os.environ["CIO_PROXY_URL"])
        send, send_async = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request
    except (ImportError, AttributeError):
        return
    hosts = frozenset(os.environ["CIO_PROXY_HOSTS"].split())

    def led(transport: Any, request: Any) -> Any:
        is_ours = request.url.scheme == "https" and request.url.host in hosts
        if not is_ours or type(getattr(transport, "_pool", None)) not in direct:
            return request
        url = request.url.copy_with(scheme=proxy.scheme, host=proxy.host, port=proxy.port)
        sent = {"headers": request.headers, "stream": request.stream, "extensions": request.extensions}
        return httpx.Request(request.method, url, **sent)  # the program's own keeps its URL

    def handle_request(self: Any, request: Any) -> Any:
        return send(self, led(self, request))

    async def handle_async_request(self: Any, request: Any) -> Any:
        return await send_async(self, led(self, request))

    httpx.HTTPTransport.handle_request = handle_request
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request


if "CIO_PROXY_URL" in os.environ and "CIO_PROXY_HOSTS" in os.environ:
    sys.meta_path.insert(0, Finder())

others = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
other = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
if other is not None and other.loader is not None:
    module = importlib.util.module_from_spec(other)
    sys.modules["sitecustomize"] = module
    other.loader.exec_module(module)
