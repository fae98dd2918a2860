"""Leads what httpx sends to Customer.io to the proxy, whatever transport, TLS context or HTTP proxy it has been given.

Python imports this module at its start, since its folder stands first on the path. One of the same name that would have
been imported without it is imported after it. It runs in any Python 3 there is, and needs nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
BESIDE = "_beside_for_customerio"
"""The attribute of a transport that holds the one which leads to the proxy."""


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

    They take a transport of their own beside each other one, which may lead through some HTTP proxy, such as ours. An
    httpx before 0.21, whose transports are others, is left as it is.
    """
    try:
        proxy, blocking, waiting = httpx.URL(os.environ["CIO_PROXY_URL"]), httpx.HTTPTransport, httpx.AsyncHTTPTransport
        send, leave, close = blocking.handle_request, blocking.__exit__, blocking.close
        send_async, leave_async, close_async = waiting.handle_async_request, waiting.__aexit__, waiting.aclose
    except AttributeError:
        return
    hosts = frozenset(os.environ["CIO_PROXY_HOSTS"].split())

    def led(transport: Any, kind: Any, request: Any) -> Any:
        if request.url.scheme != "https" or request.url.host not in hosts:
            return transport, request
        if BESIDE not in vars(transport):
            setattr(transport, BESIDE, kind(verify=False))  # it speaks no TLS
        url = request.url.copy_with(scheme=proxy.scheme, host=proxy.host, port=proxy.port)
        sent = {"headers": request.headers, "stream": request.stream, "extensions": request.extensions}
        return getattr(transport, BESIDE), httpx.Request(request.method, url, **sent)  # the program's keeps its URL

    def both(transport: Any) -> Iterator[Any]:
        yield transport
        if BESIDE in vars(transport):
            yield vars(transport).pop(BESIDE)

    def handle_request(self: Any, request: Any) -> Any:
        return send(*led(self, blocking, request))

    async def handle_async_request(self: Any, request: Any) -> Any:
        return await send_async(*led(self, waiting, request))

    def closed(self: Any) -> None:
        for each in both(self):
            close(each)

    async def closed_async(self: Any) -> None:
        for each in both(self):
            await close_async(each)

    def left(self: Any, *error: Any) -> None:
        for each in both(self):
            leave(each, *error)

    async def left_async(self: Any, *error: Any) -> None:
        for each in both(self):
            await leave_async(each, *error)

    blocking.handle_request, blocking.__exit__, blocking.close = handle_request, left, closed
    waiting.handle_async_request, waiting.__aexit__, waiting.aclose = handle_async_request, left_async, closed_async


if "CIO_PROXY_URL" in os.environ and "CIO_PROXY_HOSTS" in os.environ:
    sys.meta_path.insert(0, Finder())

others = [entry for entry in sys.path if os.path.abspath(entry) != HERE]
other = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
if other is not None and other.loader is not None:
    module = importlib.util.module_from_spec(other)
    sys.modules["sitecustomize"] = module
    other.loader.exec_module(module)
