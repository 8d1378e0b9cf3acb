"""The event log: pages of it, and following it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from virtmgr.domain.operation import Event
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.container import Services
from virtmgr.services.context import Context

_POLL: Final = 1.0
_BATCH: Final = 200


def list_(context: Context, query: ListQuery) -> Page[Event]:
    """Events that the principal may see, newest first by default."""
    return context.uow.events.list(query)


def after(
    context: Context, sequence: int, limit: int, filters: Mapping[str, Any]
) -> Sequence[Event]:
    """The events after ``sequence`` that the principal may see, oldest first."""
    return context.uow.events.after(
        sequence, limit=limit, project_ids=context.visible, filters=filters
    )


def last_sequence(services: Services) -> int:
    """The number of the newest event."""
    with services.units(read_only=True) as uow:
        return uow.events.last_sequence()


def follow(
    services: Services,
    sequence: int,
    *,
    project_ids: frozenset[str] | None,
    filters: Mapping[str, Any],
    heartbeat: float,
) -> Iterator[Event | None]:
    """Events after ``sequence`` as they come, until the process ends; None each ``heartbeat`` idle
    seconds.

    Sees what this process commits at once, and what others do within a second. No transaction is
    open while it waits or while its reader is slow.
    """
    quiet_since = time.monotonic()
    while not services.committed.closed:
        seen = services.committed.count
        with services.units(read_only=True) as uow:
            found = uow.events.after(
                sequence, limit=_BATCH, project_ids=project_ids, filters=filters
            )
        for event in found:
            assert event.sequence is not None  # it comes from the database
            sequence = event.sequence
            yield event
        if found:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= heartbeat:
            quiet_since = time.monotonic()
            yield None
        if len(found) < _BATCH:
            services.committed.wait(seen, _POLL)
