"""What a plan of rebalancing takes and brings: move by move, and by CP-SAT where it is installed.

    python -m bench.rebalancing [--hosts 50 100 200 500] [--moves 20] [--seed 1] [--effort 2]

Clusters are made up: hosts of 64 CPUs and 256 GiB with 12 to 17 workloads each on average, of which
one in eight is to be apart from others and one in eight bound to a zone. For ``balanced``, a tenth
of the hosts are nearly full and a tenth nearly empty; for ``pack``, hosts are filled at random, to
a third on average. "moves" and "after" are the plan's: imbalance, or empty hosts. "s" are seconds
of the plan alone, without reading the inventory. What the solver does not make better is the plan
that was made move by move.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial

from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.rebalancing import Aim, Movable, RebalancePlan, plan_rebalance, worth_looking
from virtmgr.domain.rebalancing.exact import Solver
from virtmgr.domain.scheduling import (
    ClusterView,
    Fleet,
    HostView,
    PlacedWorkload,
    PlacementRequest,
)
from virtmgr.domain.workload import GIB, Affinity, Kind
from virtmgr.drivers.solver import cp_sat

_CPUS, _MEMORY, _DISK = 64, 256, 8192
_LOOKED_AT = 500  # as the service does
_APART = (Affinity(mode="apart", labels={"app": "db"}, scope="host", required=True),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--hosts", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--effort", type=float, default=2.0, help="of CP-SAT, about seconds")
    given = parser.parse_args()
    ways: list[tuple[str, Solver | None]] = [("greedy", None)]
    if cp_sat.installed() is not None:
        ways.append(("cp-sat", partial(cp_sat.solve, effort=given.effort)))
    print("policy    hosts  workloads  way     moves  before   after    s")
    for policy in (SchedulingPolicy.BALANCED, SchedulingPolicy.PACK):
        for count in given.hosts:
            fleet, movables = make_cluster(count, policy, random.Random(given.seed * count))
            aim = Aim(cluster_id="c", most_moves=given.moves)
            chosen = looked_at(fleet, movables, aim)
            for name, way in ways:
                took, plan = timed(lambda: plan_rebalance(fleet, chosen, aim, way))  # noqa: B023
                print(row(policy, count, len(movables), name, plan, took))


def row(
    policy: SchedulingPolicy, hosts: int, workloads: int, way: str, plan: RebalancePlan, took: float
) -> str:
    """One line of the table."""
    if policy is SchedulingPolicy.PACK:
        before, after = str(plan.before.empty), str(plan.after.empty)
    else:
        before, after = f"{plan.before.imbalance:.3f}", f"{plan.after.imbalance:.3f}"
    return (
        f"{policy:<9} {hosts:<6} {workloads:<10,} {way:<7} {len(plan.moves):<6} {before:<8} "
        f"{after:<8} {took:.2f}"
    )


def make_cluster(
    count: int, policy: SchedulingPolicy, dice: random.Random
) -> tuple[Fleet, list[Movable]]:
    """Hosts, and what is on them."""
    ids = frozenset(f"host-{number:04}" for number in range(count))
    movables: list[Movable] = []
    hosts: list[HostView] = []
    for number, id in enumerate(sorted(ids)):
        wanted = _fill(policy, number, dice)
        there = []
        while sum(one.memory for one in there) < wanted * _MEMORY * GIB:
            there.append(_request(len(movables) + len(there), ids, dice))
            if sum(one.memory for one in there) > _MEMORY * GIB:
                there.pop()
                break
        movables += [Movable(request=one, host_id=id) for one in there]
        hosts.append(_host(id, number, there))
    placed = [
        PlacedWorkload(
            id=one.request.id,
            project_id=one.request.project_id,
            host_id=one.host_id,
            labels=one.request.labels,
            affinity=one.request.affinity,
        )
        for one in movables
    ]
    cluster = ClusterView(id="c", name="default", policy=policy)
    return Fleet([cluster], hosts, placed), movables


def _fill(policy: SchedulingPolicy, number: int, dice: random.Random) -> float:
    if policy is SchedulingPolicy.PACK:
        return dice.uniform(0.05, 0.6)
    return {0: 0.9, 1: 0.05}.get(number % 10, dice.uniform(0.4, 0.5))


def _request(number: int, ids: frozenset[str], dice: random.Random) -> PlacementRequest:
    choosy = dice.randrange(8) == 0
    return PlacementRequest(
        id=f"workload-{number:06}",
        name=f"w{number}",
        project_id=f"p{number % 20}",
        cluster_id="c",
        kind=Kind.VM,
        vcpus=dice.choice((1, 2, 4, 8)),
        memory=dice.choice((2, 4, 8, 16)) * GIB,
        disk=20 * GIB,
        labels={"app": "db"} if choosy else {},
        affinity=_APART if choosy else (),
        require={"zone": f"z{number % 3}"} if dice.randrange(8) == 0 else {},
        live_host_ids=ids,
    )


def _host(id: str, number: int, there: list[PlacementRequest]) -> HostView:
    return HostView(
        id=id,
        name=f"h{number}",
        cluster_id="c",
        state=HostState.READY,
        labels={"zone": f"z{number % 3}"},
        capacity_vcpus=_CPUS,
        capacity_memory=_MEMORY * GIB,
        capacity_disk=_DISK * GIB,
        claimed_vcpus=sum(one.vcpus for one in there),
        claimed_memory=sum(one.memory for one in there),
        claimed_disk=sum(one.disk for one in there),
        kinds=frozenset({"vm"}),
    )


def looked_at(fleet: Fleet, movables: list[Movable], aim: Aim) -> list[Movable]:
    """What is on the most promising hosts, as many as the service looks at."""
    on: dict[str, list[Movable]] = {}
    for one in movables:
        on.setdefault(one.host_id, []).append(one)
    found: list[Movable] = []
    for host_id in worth_looking(fleet, aim):
        there = on.get(host_id, [])
        if len(found) + len(there) > _LOOKED_AT:
            break
        found += there
    return found


def timed(work: Callable[[], RebalancePlan]) -> tuple[float, RebalancePlan]:
    """Seconds, and what came of it."""
    begun = time.perf_counter()
    plan = work()
    return time.perf_counter() - begun, plan


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
