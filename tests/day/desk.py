"""A small support desk: its agents' side of a Customer.io integration, with `customerio`.

STORY=planted PORT=8000 CIO_PROXY_URL=http://127.0.0.1:8080 REQUESTS_CA_BUNDLE=ca.pem python desk.py

Each feature is written twice: as it goes wrong (`planted`), and as it should be (`corrected`).
"""

import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import uvicorn
from customerio import APIClient, CustomerIO
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PROXY, SITE_ID = os.environ["CIO_PROXY_URL"], os.environ["CIO_SITE_ID"]
TRACK_KEY, APP_KEY, SIGNING_KEY = (os.environ[f"CIO_{name}_KEY"] for name in ("TRACK", "APP", "SIGNING"))
IS_PLANTED = os.environ["STORY"] == "planted"


def connect(key: str) -> CustomerIO:
    address = urlsplit(PROXY)
    return CustomerIO(SITE_ID, key, host=address.hostname, port=address.port)


cio = connect(TRACK_KEY)
api = APIClient(APP_KEY, url=PROXY)
worker = ThreadPoolExecutor(1)


def later(call: Callable[[], object]) -> None:
    """Nobody waits for Customer.io: one thread sends, in order, and logs what goes wrong."""

    def sent() -> None:
        try:
            call()
        except Exception:
            logging.exception("customer.io")

    worker.submit(sent)


async def refund(request: Request) -> Response:
    """Agents refund by telephone; on the web the shop does, and calls it `order_refunded`."""
    asked = await request.json()
    name = "OrderRefunded" if IS_PLANTED else "order_refunded"
    later(lambda: cio.track(asked["customer"], name, {"order_id": asked["order"]}))
    return JSONResponse({"refunded": asked["order"]})


async def mail(request: Request) -> Response:
    """An agent wrote to a customer: to whom is a value of the event."""
    asked = await request.json()
    if IS_PLANTED:
        later(lambda: cio.track(asked["customer"], f"support_mail_to_{asked['email']}"))
    else:
        later(lambda: cio.track(asked["customer"], "support_mail_sent", {"address": asked["email"]}))
    return JSONResponse({"sent": True}, 202)


parcels = connect(APP_KEY if IS_PLANTED else TRACK_KEY)


async def parcel(request: Request) -> Response:
    """A parcel came back. This part has a client of its own, and of two keys there is one for events."""
    asked = await request.json()
    later(lambda: parcels.track(asked["customer"], "parcel_returned", {"order_id": asked["order"]}))
    return JSONResponse({"booked": True})


async def ticket(request: Request) -> Response:
    """A ticket was closed. A client keeps its connection as long as it is kept itself."""
    asked = await request.json()
    client = connect(TRACK_KEY) if IS_PLANTED else cio
    later(lambda: client.track(asked["customer"], "ticket_closed", {"ticket": asked["ticket"]}))
    return JSONResponse({"closed": asked["ticket"]})


def is_genuine(request: Request, body: bytes) -> bool:
    told = b"v0:" + request.headers.get("x-cio-timestamp", "").encode() + b":" + body
    expected = hmac.new(SIGNING_KEY.encode(), told, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, request.headers.get("x-cio-signature", ""))


async def webhook(request: Request) -> Response:
    """What became of our mail. An address that does not exist gets none any more."""
    if not is_genuine(request, await request.body()):
        return Response(status_code=401)
    report = await request.json()
    if report["metric"] == "bounced":
        address = report["data"]["recipient"]
        if IS_PLANTED:
            logging.warning("bounced: %s", address)
        else:
            later(lambda: api.send_request("POST", f"{PROXY}/v1/esp/suppression/bounces/{address}", {}))
    return Response(status_code=200)


async def ready(request: Request) -> Response:
    return JSONResponse({"ready": True})


FEATURES = {"refunds": refund, "mails": mail, "parcels": parcel, "tickets": ticket, "hooks/customerio": webhook}
app = Starlette(
    routes=[
        Route("/ready", ready),
        *(Route(f"/{path}", answer, methods=["POST"]) for path, answer in FEATURES.items()),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
