"""Moving a workload from one host to another: the phases, and what each side should have. Pure.

A migration is a row that is advanced by whoever gets hold of it; it may be left at any point and
continued by another. One host is allowed to run the workload at any time: the source until the
phase ``starting``, the target from then on. What the other has is at rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from virtmgr.domain.workload import PowerState, Reason, State, Usage, Workload


class MigrationMode(StrEnum):
    COLD = "cold"  # stopped, copied, started
    LIVE = "live"  # it runs on, and its memory follows its disks


class Phase(StrEnum):
    """Where a migration is."""

    PLANNED = "planned"  # the target's capacity is claimed; waits for its turn
    STOPPING = "stopping"  # cold: the source brings it to rest
    COPYING = "copying"  # cold: its disks go to the target
    PREPARING = "preparing"  # live: the target makes all that it comes to
    MIGRATING = "migrating"  # live: disks and memory go from host to host while it runs
    STARTING = "starting"  # it belongs to the target, which takes it up
    CLEANING = "cleaning"  # it is as desired there; the source removes what it has
    RETREATING = "retreating"  # live: it stays on the source; the target removes what it made
    DONE = "done"
    FAILED = "failed"  # it is on the source, as before


STEPS: Final[Mapping[Phase, tuple[Phase, ...]]] = {
    Phase.PLANNED: (Phase.STOPPING, Phase.PREPARING, Phase.FAILED),
    Phase.STOPPING: (Phase.COPYING, Phase.FAILED),
    Phase.COPYING: (Phase.STARTING, Phase.FAILED),
    Phase.PREPARING: (Phase.MIGRATING, Phase.RETREATING),
    Phase.MIGRATING: (Phase.STARTING, Phase.RETREATING),  # as the source says, or the target
    # Never back by itself, as the target may have written to its disks.
    Phase.STARTING: (Phase.CLEANING, Phase.FAILED),
    Phase.CLEANING: (Phase.DONE,),
    Phase.RETREATING: (Phase.FAILED,),
    Phase.DONE: (),
    Phase.FAILED: (),
}
"""What may follow each phase."""

_BY: Final[Mapping[Phase, str]] = {
    Phase.STOPPING: "a worker takes it, cold",
    Phase.COPYING: "the source reports it at rest",
    Phase.PREPARING: "a worker takes it, live",
    Phase.MIGRATING: "the target is ready",
    Phase.STARTING: "handed over",
    Phase.CLEANING: "the target has it as desired",
    Phase.RETREATING: "it runs on at the source",
    Phase.DONE: "the source has removed what it had",
    Phase.FAILED: "the source has it as before",
}
_BY_PAIR: Final[Mapping[tuple[Phase, Phase], str]] = {
    (Phase.MIGRATING, Phase.STARTING): "it has left the source",
    (Phase.RETREATING, Phase.FAILED): "the target has removed what it made",
}


def mermaid() -> str:
    """The diagram in docs/, in Mermaid's language (https://mermaid.js.org/syntax/stateDiagram)."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.PLANNED}: the target is claimed"]
    for phase, following in STEPS.items():
        lines += [
            f"    {phase} --> {after}: {_BY_PAIR.get((phase, after), _BY[after])}"
            for after in following
        ]
    return "\n".join(lines) + "\n"


AT_SOURCE: Final = frozenset(
    {Phase.PLANNED, Phase.STOPPING, Phase.COPYING, Phase.PREPARING, Phase.MIGRATING}
)
"""The workload is the source's, and the migration can be given up."""
MOVING: Final = AT_SOURCE | {Phase.STARTING}
"""The workload is neither changed, started, stopped nor deleted meanwhile."""
AT_TARGET_TOO: Final = frozenset({Phase.PREPARING, Phase.MIGRATING, Phase.RETREATING})
"""It is the source's, and the target has something of it."""
WORK: Final = (Phase.PLANNED, Phase.STOPPING, Phase.COPYING, Phase.PREPARING)
"""A worker of the control plane has something to do; else it is the hosts' turn."""
LIVE_AT_ONCE: Final = 2
"""Live migrations from one host at a time; the others wait. Each takes all that the network has."""


@dataclass(kw_only=True)
class Migration:
    """One move of one workload.

    ``claim_*`` is what is claimed on the host that the workload does not belong to: the target
    until the phase ``starting``, then the source. ``revision`` is the source's desired revision at
    which this row last changed what the source should have, ``target_revision`` the target's.
    ``ticket`` is the secret that the source shows the target of a live one. ``generation`` is the
    workload's that its present host has to have acted on for the next phase. ``leftovers`` are the
    ids of what the source still has to remove: the workload, then its volumes.
    """

    id: str
    workload_id: str
    project_id: str
    source_host_id: str | None
    target_host_id: str | None
    mode: MigrationMode = MigrationMode.COLD
    phase: Phase = Phase.PLANNED
    operation_id: str
    drain_id: str | None = None  # the operation of the drain that it is part of
    rebalance_id: str | None = None  # the operation of the rebalancing that it is part of
    generation: int = 0
    revision: int = 0
    target_revision: int = 0
    ticket: str | None = None
    claim_vcpus: float = 0.0
    claim_memory: int = 0
    claim_disk: int = 0
    placement: dict[str, Any] | None = None  # why this target
    leftovers: list[str] = field(default_factory=list)
    cancelling: bool = False
    copied: int = 0  # bytes
    error: dict[str, Any] | None = None
    owner: str | None = None  # of the worker that has it in hand
    lease_expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


def obstacle(workload: Workload, mode: MigrationMode = MigrationMode.COLD) -> Reason | None:
    """Why a workload cannot be moved now, whatever the hosts are like; None: it can."""
    name, state = workload.name, workload.status.state
    if workload.deleting or state is State.DELETING:
        return Reason(code="deleting", message="it is being deleted", hint="wait until it is gone")
    if workload.clone_of is not None:
        return Reason(
            code="being_cloned",
            message="the copy that it starts from is not made yet",
            hint="wait until the clone is made",
        )
    protected = workload.spec.protected and mode is MigrationMode.COLD
    if protected and workload.spec.state is not PowerState.STOPPED:
        return Reason(
            code="protected",
            message="it is protected from being stopped",
            hint="set protected to false first",
        )
    if state in (State.RUNNING, State.PAUSED) and workload.spec.state is not PowerState.STOPPED:
        return None
    if state is State.STOPPED and workload.spec.state is PowerState.STOPPED:
        return None
    if state is State.STOPPED:
        return Reason(
            code="ended",
            message="it ended by itself, and would be started again by a move",
            hint=f"stop it with 'virtmgr stop {name}', or delete it",
        )
    return Reason(
        code=f"is_{state}",
        message=f"it is {state}",
        hint="its host does not report; bring the host back first"
        if state is State.UNKNOWN
        else "wait until it runs or is stopped, or stop it",
    )


_COPY_RATE: Final = 60 * 1024**2  # bytes a second, through the control plane; a cautious guess
_STOP_AND_START: Final = 3.0  # seconds, of a guest that ends when asked to


@dataclass(frozen=True)
class Downtime:
    """What a move is expected to cost. ``data`` in bytes; ``seconds`` without a slow stop, which
    adds up to the workload's ``stop_timeout``."""

    data: int
    seconds: float


def expected_downtime(workload: Workload, usage: Usage | None, volumes: int) -> Downtime:
    """A guess for people: by what is used of the root disk, and the size of its volumes.

    :param volumes: bytes, of all that are attached.
    """
    data = (usage.disk if usage is not None else 0) + volumes
    if workload.spec.state is PowerState.STOPPED:
        return Downtime(data, 0.0)
    return Downtime(data, round(_STOP_AND_START + data / _COPY_RATE, 1))


_SWITCH: Final = 0.3  # seconds that a guest stands still at the end, by default


def live_downtime(workload: Workload, cold: Downtime) -> Downtime:
    """What a live move is expected to cost: the memory goes over too."""
    return Downtime(cold.data + workload.spec.resources.memory, _SWITCH)


def is_at_rest(workload: Workload, migration: Migration) -> bool:
    """Whether the source has brought it to rest, knowing that it is to stay so.

    The host writes what is desired to its disk before it acts on it, so a workload of which it
    reports the generation cannot be started by it any more, whatever crashes.
    """
    return (
        workload.status.state is State.STOPPED
        and workload.observed_generation >= migration.generation
    )


_SETTLED: Final = {
    PowerState.RUNNING: State.RUNNING,
    PowerState.PAUSED: State.PAUSED,
    PowerState.STOPPED: State.STOPPED,
}


def is_taken_up(workload: Workload, migration: Migration) -> bool:
    """Whether the workload is as desired on its new host, or has been and ended by itself, so that
    the old one may clear up."""
    if workload.observed_generation < migration.generation:
        return False
    ran = workload.status.started_at is not None
    return ran or workload.status.state is _SETTLED[workload.spec.state]
