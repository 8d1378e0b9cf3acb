"""Operations (one asynchronous request and its progress) and events (the log)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED: Final = (OperationState.PENDING, OperationState.RUNNING)


@dataclass(kw_only=True)
class Operation:
    """One asynchronous request.

    ``generation`` is the target's generation that completes it; ``error`` is a problem+json
    object once it has failed. Work of the control plane itself (image imports) is claimed by a
    process through ``owner`` and ``lease_expires_at``.
    """

    id: str
    verb: str  # create, start, stop, restart, …, import, build
    target_type: str  # workload, image, volume, …
    target_id: str
    target_name: str
    project_id: str | None
    user_id: str | None
    state: OperationState = OperationState.PENDING
    generation: int = 0
    progress: float = 0.0  # 0 … 1
    message: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    owner: str | None = None
    lease_expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class LogLine(NamedTuple):
    """One line of what an operation wrote while it ran. Sequences only grow."""

    sequence: int
    at: datetime
    text: str


@dataclass(kw_only=True)
class Event:
    """One line of the append-only log. ``sequence`` is given by the database and only grows."""

    sequence: int | None = None
    at: datetime
    type: str  # workload.created, host.unreachable, …
    target_type: str
    target_id: str
    target_name: str
    project_id: str | None
    user_id: str | None  # who asked; None: virtmgr itself
    operation_id: str | None = None
    host_id: str | None = None
    message: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class StreamTicket:
    """The right to open one interactive stream once, soon (exec, console, vnc, logs, files)."""

    id: str
    secret_hash: str
    workload_id: str
    host_id: str
    user_id: str | None
    action: str  # exec | console | vnc | logs | pull | push
    parameters: dict[str, Any] = field(default_factory=dict)
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(kw_only=True)
class IdempotencyKey:
    """The answer that was given to a request, kept to be given again (24 hours)."""

    user_id: str
    key: str
    request_hash: str  # of method, path and body: another request under the key is refused
    status: int
    body: str
    created_at: datetime
