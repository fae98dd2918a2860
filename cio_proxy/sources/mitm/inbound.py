"""In front of the app: everything passes as it comes, but webhooks are read first."""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import http

from cio_proxy.model import Listener
from cio_proxy.sources.mitm.listeners import PASSES, listener_of
from cio_proxy.sources.mitm.probing import Probing
from cio_proxy.sources.mitm.upstreams import Target, declared_length


class Inbound:
    """An addon that sends what comes in to the app, with the client's own `Host`.

    What `reads` picks is an exchange to audit, unless its body is over `max_body` bytes; `passed` hears of all else
    once it is over, and `probing` of its beginning and end. Add it before what looks at exchanges.
    """

    def __init__(
        self,
        app: Target,
        max_body: int,
        *,
        reads: Callable[[http.HTTPFlow], bool],
        passed: Callable[[Listener], None],
        probing: Probing,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._reads = reads
        self._passed = passed
        self._probing = probing

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Aim the request at the app."""
        if listener_of(flow.client_conn) != "inbound":
            return
        request = flow.request
        request.data.scheme = self._app.scheme.encode()
        request.data.host, request.data.port = self._app.host, self._app.port
        if not self._reads(flow):
            flow.metadata[PASSES] = True
            request.stream = True
            self._probing.arrived(flow)
        elif (length := declared_length(request)) is not None and length > self._max_body:
            request.stream = True

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The app's answers pass as they come: what a webhook is answered nobody here reads."""
        if listener_of(flow.client_conn) == "inbound" and flow.response is not None:
            flow.response.stream = True
            self._probing.left(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """Count what passed."""
        self._over(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """The same where the app or the client broke off."""
        self._probing.gone(flow)
        self._over(flow)

    def _over(self, flow: http.HTTPFlow) -> None:
        if PASSES in flow.metadata and listener_of(flow.client_conn) == "inbound":
            self._passed("inbound")
