"""The end of operations: the one place that says what is true of an operation that is finished."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from virtmgr.domain.operation import Operation, OperationState


def end(
    operation: Operation,
    state: OperationState,
    now: datetime,
    message: str = "",
    *,
    problem: Mapping[str, Any] | None = None,
) -> None:
    """Finish an operation: nobody holds it any more, and only success is whole.

    :param problem: why it did not succeed: code, detail, hint, and whatever else tells more.
    """
    operation.state, operation.message = state, message
    if state is OperationState.SUCCEEDED:
        operation.progress = 1.0
    if problem is not None:
        operation.error = dict(problem)
    operation.finished_at = operation.updated_at = now
    operation.lease_expires_at = None
