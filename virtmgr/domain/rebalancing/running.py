"""A plan that is carried out: some moves at a time, in the plan's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from virtmgr.domain.draining import SHARE, on_their_way
from virtmgr.domain.migration import Phase
from virtmgr.domain.rebalancing.model import MOST_MOVES, Move
from virtmgr.domain.values import Value

_STAYED: Final = (Phase.RETREATING, Phase.FAILED)


class PlannedMove(Value):
    """One move of the plan, and what became of it. Kept with the operation."""

    workload_id: str
    workload_name: str
    source_id: str
    target_id: str
    migration_id: str | None = None  # once it is begun
    left_out: str = ""  # why it was not begun, for people


class Course(Value):
    """What an operation of rebalancing is to do."""

    moves: tuple[PlannedMove, ...] = ()
    at_once: int = 2
    cold: bool = False
    most_moves: int = MOST_MOVES  # as it was asked, for trying it again

    @classmethod
    def of(cls, moves: tuple[Move, ...], *, at_once: int, cold: bool, most_moves: int) -> Course:
        """The course of a plan."""
        planned = tuple(
            PlannedMove(
                workload_id=move.workload_id,
                workload_name=move.workload_name,
                source_id=move.source_id,
                target_id=move.target_id,
            )
            for move in moves
        )
        return cls(moves=planned, at_once=at_once, cold=cold, most_moves=most_moves)


@dataclass(frozen=True)
class Standing:
    """How far it is. ``waiting`` are indices of moves to begin, in their order."""

    waiting: tuple[int, ...]
    room: int  # how many of them may begin now
    on_their_way: int
    moved: int
    stayed: tuple[str, ...]  # names of workloads
    total: int
    progress: float

    @property
    def ended(self) -> bool:
        return not self.waiting and self.moved + len(self.stayed) == self.total

    @property
    def message(self) -> str:
        """For people."""
        text = f"{self.moved} of {self.total} workload{'' if self.total == 1 else 's'} moved"
        if self.on_their_way:
            text += f", {on_their_way(self.on_their_way)}"
        if not self.stayed:
            return text
        shown = ", ".join(self.stayed[:5]) + (", …" if len(self.stayed) > 5 else "")
        return f"{text}; {len(self.stayed)} stayed: {shown}"


def standing(course: Course, phases: Mapping[str, Phase]) -> Standing:
    """How far a course is.

    :param phases: of its migrations, by their ids; one that is not there any more has ended.
    """
    waiting, moved, stayed, under_way, done = [], 0, [], 0, 0
    for index, move in enumerate(course.moves):
        if move.migration_id is None and not move.left_out:
            waiting.append(index)
            continue
        phase = Phase.FAILED
        if move.migration_id is not None:
            phase = phases.get(move.migration_id, Phase.FAILED)
        done += SHARE.get(phase, 100)
        if phase is Phase.DONE:  # not before: until then it takes room on both hosts
            moved += 1
        elif phase in _STAYED:
            stayed.append(move.workload_name)
        else:
            under_way += 1
    room = max(0, course.at_once - under_way)
    total = len(course.moves)
    progress = done / (100 * total) if total else 1.0
    return Standing(tuple(waiting), room, under_way, moved, tuple(stayed), total, progress)
