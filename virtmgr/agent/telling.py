"""What is told of a workload: from what is kept of it and what was seen. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from virtmgr.agent.files import Entry
from virtmgr.domain.errors import HostError
from virtmgr.domain.plan import Observation, Seen, Step
from virtmgr.domain.remembering import observed_move
from virtmgr.domain.sync import (
    CloneSource,
    DesiredVolume,
    DesiredWorkload,
    ObservedMove,
    ObservedWorkload,
)
from virtmgr.domain.workload import Reason, State, WorkloadStatus
from virtmgr.ports.driver import Departure, Inspection, RuntimeState

_OUR_COMMAND: Final = re.compile(r"'virtmgr [^']+'")


def observed(
    entry: Entry,
    state: State,
    seen: Inspection | None,
    *,
    last: Departure,
    reason: Reason | None = None,
    progress: str | None = None,
    final: bool = False,
    move: ObservedMove | None = None,
) -> ObservedWorkload:
    """The report of a workload.

    :param last: how its last departure ended.
    :param progress: what is being done, for people.
    :param final: it failed for good, so what is desired now is as far as it gets.
    :param move: how far a live migration is, where that is not what is kept of it.
    """
    memory = entry.memory
    move = move or observed_move(entry.desired, memory, last.reason, last.copied)
    # Only a control plane that moves workloads knows these fields.
    arrived = {"arrived": memory.arrived} if memory.arrived else {}
    moved = {"move": move} if move is not None else {}
    hardware = {"hardware": seen.hardware} if seen is not None and seen.hardware else {}
    return ObservedWorkload(
        **arrived,
        **moved,
        id=entry.desired.id,
        observed_generation=entry.desired.generation if final else memory.applied_generation,
        restart_nonce=memory.restart_nonce,
        cloned=memory.cloned,
        status=WorkloadStatus(
            state=state,
            reason=reason,
            exit_code=seen.exit_code if seen else None,
            signal=seen.signal if seen else None,
            oom_killed=seen.oom_killed if seen else False,
            restarts=memory.restarts,
            started_at=seen.started_at if seen else None,
            finished_at=seen.finished_at if seen else None,
            needs_restart=memory.needs_restart,
            progress=progress,
            **hardware,
        ),
    )


def gone(entry: Entry) -> ObservedWorkload:
    """The report of a workload of which nothing is left."""
    return ObservedWorkload(
        id=entry.desired.id,
        observed_generation=entry.desired.generation,
        status=WorkloadStatus(state=State.DELETING),
        gone=True,
    )


def observation(seen: Inspection) -> Observation:
    """What planning needs of what was seen."""
    return Observation(
        state=Seen(seen.state.value),
        exit_code=seen.exit_code,
        oom_killed=seen.oom_killed,
        started_at=seen.started_at,
        finished_at=seen.finished_at,
    )


def as_it_ran(seen: Inspection) -> Inspection:
    """Of one that has left: how it ended here says nothing about the workload."""
    return Inspection(RuntimeState.RUNNING, started_at=seen.started_at)


def in_names(reason: Reason, workload: DesiredWorkload) -> Reason:
    """The reason of a failure, with the names that people know for the ids that drivers know.

    Ids in paths stay, since files are called so; of a hint those are changed that commands of ours
    take, since what else a person is to type on a host goes by ids.
    """
    known: list[DesiredWorkload | CloneSource | DesiredVolume] = [workload, *workload.volumes]
    if workload.clone_of is not None:
        known.append(workload.clone_of)
    names = {one.id: one.name for one in known}
    message = _named(reason.message, names)
    hint = reason.hint and _OUR_COMMAND.sub(lambda found: _named(found[0], names), reason.hint)
    return reason.model_copy(update={"message": message, "hint": hint})


def _named(text: str, names: Mapping[str, str]) -> str:
    for id, name in names.items():
        text = re.sub(rf"(?<![\w/.-]){re.escape(id)}(?![\w/-])", name, text)
    return text


def unexpected(step: Step, workload: DesiredWorkload, error: Exception) -> HostError:
    """The failure that a bug of ours is told as."""
    return HostError(
        f"the {step.value} of workload {workload.name!r} failed unexpectedly: {error!r}",
        code="agent_error",
        hint="it is tried again; the agent's log on the host has the details",
    )
