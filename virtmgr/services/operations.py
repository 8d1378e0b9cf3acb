"""Operations: list, show, and wait for them without holding a transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from virtmgr.domain.errors import NotFound
from virtmgr.domain.operation import LogLine, Operation, OperationState
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.container import Services
from virtmgr.services.context import Context

FINISHED: Final = frozenset(
    {OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED}
)
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 0.5


def find(context: Context, reference: str) -> Operation:
    """An operation that the principal may see.

    :raises NotFound: there is none.
    """
    operation = context.uow.operations.get(reference)
    if operation is None or not context.shows(operation.project_id):
        raise NotFound(f"operation {reference!r} does not exist")
    return operation


def log_after(
    context: Context, reference: str, sequence: int, limit: int
) -> tuple[Sequence[LogLine], bool]:
    """At most ``limit`` lines that an operation wrote after ``sequence``, and whether these are
    the last ever.

    :raises NotFound: there is no such operation.
    """
    operation = find(context, reference)
    lines = context.uow.operation_log.after(operation.id, sequence, limit=limit)
    return lines, operation.state in FINISHED and len(lines) < limit


def list_(context: Context, query: ListQuery) -> Page[Operation]:
    """Operations of the projects that may be seen, newest first by default."""
    return context.uow.operations.list(query)


def wait(services: Services, ids: Sequence[str], seconds: float) -> bool:
    """Wait until all of these operations are finished; whether they are.

    Another process may finish them, so the database is looked at with growing pauses, and at
    once when this process has seen them finish.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while True:
        with services.units(read_only=True) as uow:
            found = [uow.operations.get(id) for id in ids]
            done = all(operation is None or operation.state in FINISHED for operation in found)
        left = deadline - time.monotonic()
        if done or left <= 0 or services.committed.closed:
            return done
        services.done.wait(ids, min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
