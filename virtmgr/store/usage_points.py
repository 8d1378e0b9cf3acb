"""A slice of usage history as bytes: one record for the host, one for each workload.

A record is an id (16 bytes; the host's is zero) and the fields of ``UsagePoint`` in their order, as
floats of 4 bytes, least significant byte first: seven digits are enough for a chart. NaN: unknown.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from virtmgr.domain.ids import is_id
from virtmgr.domain.usage_history import UsagePoint, UsageSlice

_FIELDS: Final = tuple(UsagePoint.model_fields)
_WHOLE: Final = frozenset(
    name for name, field in UsagePoint.model_fields.items() if field.annotation is int
)
_RECORD: Final = struct.Struct(f"<16s{len(_FIELDS)}f")
HOST: Final = bytes(16)


def packed(one: UsageSlice) -> bytes:
    """All points of a slice. Workloads whose id is none are left out."""
    points = {UUID(id).bytes: point for id, point in one.workloads.items() if is_id(id)}
    if one.host is not None:
        points[HOST] = one.host
    return b"".join(_RECORD.pack(id, *_numbers(point)) for id, point in points.items())


def find(content: bytes, id: str | None) -> UsagePoint | None:
    """The point of a workload, or of the host (None)."""
    wanted = HOST if id is None else UUID(id).bytes
    at = content.find(wanted)
    while at >= 0 and at % _RECORD.size:  # chance: the same bytes among the numbers
        at = content.find(wanted, at + 1)
    return _point(_RECORD.unpack_from(content, at)[1:]) if at >= 0 else None


def _numbers(point: UsagePoint) -> list[float]:
    values: Mapping[str, Any] = dict(point)
    return [math.nan if values[name] is None else float(values[name]) for name in _FIELDS]


def _point(numbers: tuple[float, ...]) -> UsagePoint:
    known: dict[str, Any] = {
        name: round(number) if name in _WHOLE else number
        for name, number in zip(_FIELDS, numbers, strict=True)
        if not math.isnan(number)
    }
    return UsagePoint.model_construct(**known)
