"""Refusing to delete what others still use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from virtmgr.domain.errors import Conflict

_SHOWN: Final = 5


def refuse_in_use(what: str, **users: Sequence[str]) -> None:
    """Refuse if anything uses ``what``; ``users`` maps a noun to the names of those who do.

    :raises Conflict: (in_use) naming the users.
    """
    used = {noun: list(names) for noun, names in users.items() if names}
    if not used:
        return
    parts = []
    for noun, names in used.items():
        more = ", …" if len(names) > _SHOWN else ""
        parts.append(f"{noun} {', '.join(names[:_SHOWN])}{more}")
    raise Conflict(
        f"{what} is not deleted: it is used by {'; '.join(parts)}",
        code="in_use",
        hint="delete these first, or let them use something else",
        detail={"used_by": used},
    )
