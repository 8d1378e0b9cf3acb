"""Opaque cursors: where a page ended, as the sort key and the values of its last row."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.ids import is_id


def encode(sort: str, value: Any, tie: str | int) -> str:
    """The cursor after a row that has ``value`` in its sort column and ``tie`` as its id."""
    plain = value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
    text = json.dumps([sort, plain, tie], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, sort: str, value_type: type, tie_type: type) -> tuple[Any, Any]:
    """The sort value and the id that ``encode`` was given.

    :raises InvalidRequest: the cursor is not ours, or belongs to another sort order.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        found_sort, value, tie = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if value_type is datetime:
            value = datetime.fromisoformat(value)
    except (binascii.Error, UnicodeError, ValueError, TypeError) as error:
        raise _refuse("it is not one that a page gave") from error
    if found_sort != sort:
        raise _refuse(f"it belongs to the order {found_sort!r}, not {sort!r}")
    genuine = _fits(value, value_type) and _fits(tie, tie_type)
    if not genuine or (tie_type is str and not is_id(tie)) or encode(sort, value, tie) != cursor:
        raise _refuse("it is not one that a page gave")
    return value, tie


def _fits(value: Any, kind: type) -> bool:
    """Whether ``value`` is one that a column of this Python type can have."""
    if isinstance(value, bool) or not isinstance(value, kind):
        return kind is bool and isinstance(value, bool)
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or "\0" not in value


def _refuse(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"list from a cursor: {why}",
        code="invalid_cursor",
        field="cursor",
        hint="start again without cursor, and use next_cursor unchanged",
    )
