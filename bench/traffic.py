"""The traffic of every bench: mixed Track v1 calls, one in twenty with a fault that a rule must find."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

AUTHORIZATION = b"Basic " + base64.b64encode(b"f82ad78f695bd32f9d99:a13c95a0bc44d9f01e27")
FAULTY_EVERY = 20
"""Every twentieth call has its time in milliseconds."""
PEOPLE = 2_000
SIGNED_UP = 1_790_000_000


def calls(count: int, start: int = 0, people: int = PEOPLE) -> Iterator[tuple[str, str, bytes]]:
    """Method, path and body: three events, one identify, and now and then a device."""
    for number in range(start, start + count):
        id = number // 4 % people
        person, email = f"/api/v1/customers/{id}", f"p{id}@example.com"
        body: dict[str, object]
        if number % FAULTY_EVERY == FAULTY_EVERY - 1:
            body = {"email": email, "plan": "pro", "created_at": SIGNED_UP * 1000 + number}
            yield "PUT", person, json.dumps(body).encode()
        elif number % 4 == 0:
            body = {
                "email": email,
                "first_name": "Ada",
                "plan": "pro",
                "logins": number,
                "created_at": SIGNED_UP,
            }
            yield "PUT", person, json.dumps(body).encode()
        elif number % 50 == 1:
            device = {"id": f"token-{number}", "platform": "ios", "last_used": SIGNED_UP + number}
            yield "PUT", f"{person}/devices", json.dumps({"device": device}).encode()
        else:
            items = [{"sku": "A-1", "quantity": 1}]
            data = {"order": number, "total": 12.5, "currency": "EUR", "items": items, "coupon": "SPRING"}
            yield "POST", f"{person}/events", json.dumps({"name": "order_completed", "data": data}).encode()


def head(method: str, path: str, length: int) -> bytes:
    """A request head as customerio-node sends it."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: track.customer.io\r\nAuthorization: {AUTHORIZATION.decode()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nUser-Agent: Customer.io Node Client/5.2.0\r\n"
        "Accept: */*\r\nConnection: keep-alive\r\n\r\n"
    ).encode()
