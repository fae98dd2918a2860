"""Track API v1 (reference §2): one call an exchange.

Routes are matched on the raw path, so an encoded slash stays part of its identifier; an identifier
with raw slashes, as async-customerio sends it (reference 8.2), is still read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cio_proxy.apis.parts import (
    Envelope,
    decoded_segment,
    lower,
    mapping,
    person_in_path,
    person_of,
    text,
    timestamps,
)
from cio_proxy.model import NOBODY, Call, Kind, Person, made

type Groups = tuple[bytes, ...]


class Route(NamedTuple):
    """One line of the route table of reference §2."""

    method: str
    pattern: re.Pattern[bytes]
    endpoint: str
    read: Callable[[Envelope, str, Groups], Call]


def read(envelope: Envelope, path: bytes) -> tuple[Call, ...]:
    """The one call of a Track v1 exchange; an unknown route gives a call of kind `other`."""
    for route in _BY_METHOD.get(envelope.exchange.method, ()):
        if match := route.pattern.match(path):
            return (route.read(envelope, route.endpoint, match.groups()),)
    return (envelope.call("other", "other"),)


def _identify(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    person = person_in_path(groups[0])
    if not isinstance(envelope.document.value, dict):
        return envelope.unreadable(endpoint, person=person)
    body = envelope.document.value
    id = person.id or text(body.get("id"))
    email = person.email or lower(text(body.get("email")))
    person = made(Person, (id, email, None, person.cio_id, text(body.get("anonymous_id"))))
    return envelope.call(
        "identify",
        endpoint,
        person=person,
        body=body,
        attributes=body,
        timestamps=timestamps(body, "", ("created_at", "_timestamp")),
    )


def _event(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    person = person_in_path(groups[0]) if groups else NOBODY
    if not isinstance(envelope.document.value, dict):
        return envelope.unreadable(endpoint, person=person)
    body = envelope.document.value
    if not groups:
        person = Person(anonymous=text(body.get("anonymous_id")))
    kind: Kind = "event"
    match body.get("type"):
        case "page":
            kind = "page"
        case "screen":
            kind = "screen"
    name = body.get("name")
    return envelope.call(
        kind,
        endpoint,
        person=person,
        person_at="path:" if groups else "/anonymous_id",
        body=body,
        name=name if isinstance(name, str) else None,
        name_at="/name",
        data=mapping(body.get("data")),
        data_at="/data",
        timestamps=timestamps(body, "", ("timestamp",)),
    )


def _device_add(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    person = person_in_path(groups[0])
    if not isinstance(envelope.document.value, dict):
        return envelope.unreadable(endpoint, person=person)
    body = envelope.document.value
    device = mapping(body.get("device"))
    return envelope.call(
        "device_add",
        endpoint,
        person=person,
        body=body,
        attributes=mapping(device.get("attributes")),
        attributes_at="/device/attributes",
        timestamps=timestamps(device, "/device", ("last_used",)),
    )


def _person(kind: Kind) -> Callable[[Envelope, str, Groups], Call]:
    def read_person(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
        return envelope.call(kind, endpoint, person=person_in_path(groups[0]), body=mapping(envelope.document.value))

    return read_person


def _plain(kind: Kind) -> Callable[[Envelope, str, Groups], Call]:
    def read_plain(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
        if not isinstance(envelope.document.value, dict):
            return envelope.unreadable(endpoint)
        body = envelope.document.value
        return envelope.call(kind, endpoint, body=body, timestamps=timestamps(body, "", ("timestamp",)))

    return read_plain


def _merge(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    if not isinstance(envelope.document.value, dict):
        return envelope.unreadable(endpoint)
    body = envelope.document.value
    person, merged = (person_of(mapping(body.get(which))) for which in ("primary", "secondary"))
    return envelope.call("merge", endpoint, body=body, person=person, person_at="/primary", merged=merged)


def _form(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    if not isinstance(envelope.document.value, dict):
        return envelope.unreadable(endpoint)
    body = envelope.document.value
    fields = mapping(body.get("data"))
    person = Person(text(fields.get("id")), lower(text(fields.get("email"))))
    return envelope.call(
        "form_submit",
        endpoint,
        body=body,
        person=person,
        person_at="/data",
        name=decoded_segment(groups[0]),
        name_at="path:",
        data=fields,
        data_at="/data",
    )


def _unsubscribe(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
    return envelope.call("unsubscribe", endpoint, data={"delivery_id": decoded_segment(groups[0])}, data_at="path:")


def _no_body(kind: Kind) -> Callable[[Envelope, str, Groups], Call]:
    def read_no_body(envelope: Envelope, endpoint: str, groups: Groups) -> Call:
        return envelope.call(kind, endpoint)

    return read_no_body


def _route(method: str, pattern: bytes, endpoint: str, read: Callable[[Envelope, str, Groups], Call]) -> Route:
    return Route(method, re.compile(pattern + rb"/?\Z", re.DOTALL), endpoint, read)


ROUTES: tuple[Route, ...] = (
    _route("PUT", rb"/api/v1/customers/(.+)/devices", "/api/v1/customers/{identifier}/devices", _device_add),
    _route("PUT", rb"/api/v1/customers/(.+?)", "/api/v1/customers/{identifier}", _identify),
    _route("POST", rb"/api/v1/customers/(.+)/events", "/api/v1/customers/{identifier}/events", _event),
    _route("POST", rb"/api/v1/events", "/api/v1/events", _event),
    _route("POST", rb"/api/v1/customers/(.+)/suppress", "/api/v1/customers/{identifier}/suppress", _person("suppress")),
    _route(
        "POST",
        rb"/api/v1/customers/(.+)/unsuppress",
        "/api/v1/customers/{identifier}/unsuppress",
        _person("unsuppress"),
    ),
    _route(
        "DELETE",
        rb"/api/v1/customers/(.+)/devices/[^/]+",
        "/api/v1/customers/{identifier}/devices/{device_id}",
        _person("device_delete"),
    ),
    _route("DELETE", rb"/api/v1/customers/(.+?)", "/api/v1/customers/{identifier}", _person("delete")),
    _route("POST", rb"/api/v1/merge_customers", "/api/v1/merge_customers", _merge),
    _route(
        "POST", rb"/api/v1/segments/[^/]+/add_customers", "/api/v1/segments/{id}/add_customers", _plain("segment_add")
    ),
    _route(
        "POST",
        rb"/api/v1/segments/[^/]+/remove_customers",
        "/api/v1/segments/{id}/remove_customers",
        _plain("segment_remove"),
    ),
    _route("POST", rb"/api/v1/forms/([^/]+)/submit", "/api/v1/forms/{form_id}/submit", _form),
    _route("POST", rb"/api/v1/metrics", "/api/v1/metrics", _plain("report_metric")),
    _route("POST", rb"(?:/api/v1)?/push/events", "/api/v1/push/events", _plain("report_metric")),
    _route("POST", rb"/unsubscribe/([^/]+)", "/unsubscribe/{delivery_id}", _unsubscribe),
    _route("GET", rb"/api/v1/accounts/region", "/api/v1/accounts/region", _no_body("other")),
)
_BY_METHOD = {method: tuple(r for r in ROUTES if r.method == method) for method in {r.method for r in ROUTES}}
