"""Batches: the items of a body, each with its own pointer, index and size."""

from __future__ import annotations

from collections.abc import Iterator

from cio_proxy.apis.body import item_extents
from cio_proxy.apis.parts import Envelope
from cio_proxy.model import Json

ITEM_LIMIT = 32 * 1024


def items(envelope: Envelope, batch: list[Json]) -> Iterator[tuple[int, Json, int]]:
    """Index, value and size of each item. No item can be over the limit in a body that is not: its size is then 0."""
    raw = envelope.document.raw
    extents = item_extents(raw) if len(raw) > ITEM_LIMIT else []
    for index, item in enumerate(batch):
        yield index, item, extents[index][1] - extents[index][0] if index < len(extents) else 0
