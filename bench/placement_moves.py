"""virtmgr's own rebalancing in ``bench.placement_quality``: what may move when, and the plans.

A round does what the product does by itself for a cluster with ``rebalancing: automatic``
(``virtmgr.services.rebalancing``): look at the hosts' sums, make a plan from the 500 workloads of
the most promising hosts, and carry it out. Everything can go to every host while it runs, and a
move takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.placement_policies import Policy, Virtmgr, request_for
from bench.traces.model import Arrival, Machine
from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing import Aim, Movable, plan_rebalance, worth_looking
from virtmgr.domain.rebalancing.model import MOST_MOVES
from virtmgr.domain.rebalancing.rounds import PATIENCE, ROUND, is_out
from virtmgr.domain.scheduling import Fleet, PlacedWorkload

_LOOKED_AT = 500  # as the service does
Home = tuple[str, int]  # a workload's name, and its new host


@dataclass(frozen=True)
class Rounds:
    """How often a plan is made, in seconds, and how many moves one may have."""

    every: float = PATIENCE * ROUND
    most_moves: int = MOST_MOVES


class Moving(Virtmgr):
    """The product's ``pack``, and its plans of rebalancing."""

    def __init__(self, machines: Sequence[Machine], rounds: Rounds) -> None:
        super().__init__(machines, SchedulingPolicy.PACK)
        self.every = rounds.every
        self._most_moves = rounds.most_moves

    def moves(self, there: Sequence[Mapping[str, Arrival]]) -> list[Home]:
        """What a round would move where, in the plan's order."""
        fleet = self.fleet
        aim = Aim(cluster_id="c", most_moves=self._most_moves)
        if not is_out(fleet, aim.cluster_id, aim.threshold):
            return []
        fleet = fleet.beside(self._placed(there))
        plan = plan_rebalance(fleet, self._movables(fleet, there, aim), aim)
        return [(move.workload_id, self.numbers[move.target_id]) for move in plan.moves]

    def _placed(self, there: Sequence[Mapping[str, Arrival]]) -> list[PlacedWorkload]:
        found = []
        for host_id, workloads in zip(self.ids, there, strict=True):
            for one in workloads.values():
                request = request_for(one)
                found.append(
                    PlacedWorkload(
                        id=one.name,
                        project_id=request.project_id,
                        host_id=host_id,
                        labels=request.labels,
                        affinity=request.affinity,
                    )
                )
        return found

    def _movables(
        self, fleet: Fleet, there: Sequence[Mapping[str, Arrival]], aim: Aim
    ) -> list[Movable]:
        everywhere = frozenset(fleet.index)
        found: list[Movable] = []
        for host_id in worth_looking(fleet, aim):
            some = there[self.numbers[host_id]].values()
            if len(found) + len(some) > _LOOKED_AT:
                break
            found += [
                Movable(request=request_for(one, everywhere), host_id=host_id) for one in some
            ]
        return found


HOURLY = "virtmgr pack, 20 moves an hour"
MOVING: dict[str, Callable[[Sequence[Machine]], Policy]] = {
    "virtmgr pack, 20 in 5 minutes": lambda machines: Moving(machines, Rounds()),
    HOURLY: lambda machines: Moving(machines, Rounds(every=3600.0)),
}
"""The first has the product's own bounds and patience, as if its moves took no time."""
