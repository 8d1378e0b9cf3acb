"""How many placements a second the scheduler decides, and how many are committed.

    python -m bench.placement [--seconds 1.0] [--hosts 1000,5000,10000] [--commits]

Decisions alone: "single" places one request on a fleet that is there, as one that asks for nothing
but room; the others place batches of 1,000 of which each asks for the same, or (``flavours``) for
one of 24 sizes. ``labels`` requires one and prefers one; ``zone spread`` spreads by zone, ``apart``
requires hosts apart from its like, ``together`` a zone with its like; ``pack``, ``pack flavours``
are ``plain`` and ``flavours`` in a cluster that packs, ``with a reserve`` is ``plain`` in one that
keeps room for two failures. The floor is what no scheduler can do without: compare three columns,
score, take the best; no rules, no reasons, no running claims.

Explanations are made when they are read, or on the way where all of them will be: "explain" is the
time for a decision and its explanation as JSON. "build" is the time to make the fleet of the
inventory's rows, which is done once; "renew" to bring 100 hosts of it up to date.

``--commits`` adds what ``bench.placement_commits`` measures, which takes a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from bench import placement_commits
from virtmgr.domain.host import HostState, SchedulingPolicy
from virtmgr.domain.scheduling import ClusterView, Fleet, HostView, PlacementRequest, place
from virtmgr.domain.workload import GIB, Affinity, Kind

BATCH = 1000
AIM = 20_000  # decisions a second, in batches on 5,000 hosts
_WEB = {"tier": "web"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seconds", type=float, default=1.0, help="to spend on each figure")
    parser.add_argument("--hosts", default="1000,5000,10000", help="how many, with commas")
    parser.add_argument("--commits", action="store_true", help="commit placements, too")
    arguments = parser.parse_args()
    decisions([int(number) for number in arguments.hosts.split(",")], arguments.seconds)
    if arguments.commits:
        with placement_commits.inventory(5000) as url:
            placement_commits.measure(url, 5000, processes=1, batch=1000, seconds=15)


def quick() -> None:
    """A small table for ``make bench-quick``."""
    decisions([1000, 5000], 0.2)
    with placement_commits.inventory(1000) as url:
        placement_commits.measure(url, 1000, processes=1, batch=250, seconds=4)


def decisions(sizes: Sequence[int], seconds: float) -> None:
    """Print the table of decisions."""
    gc.freeze()  # the garbage collector is not to look at the whole product again and again
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; decisions a second of CPU")
    cluster = ClusterView(id="c", name="default")
    for size in sizes:
        hosts = make_hosts(size)
        fleet = Fleet([cluster], hosts)
        floor = measure(floor_of(fleet), seconds)
        print(f"{size:,} hosts: floor {1 / floor:,.0f}/s")
        one = make_request(0)
        single = measure(lambda: place(fleet, [one]), seconds)  # noqa: B023
        print(f"  {'single':14} {1 / single:>9,.0f}   {single / floor:5.1f} x floor")
        reserved = Fleet([dataclasses.replace(cluster, reserve=2)], hosts)
        packed = Fleet([dataclasses.replace(cluster, policy=SchedulingPolicy.PACK)], hosts)
        rows = [(name, fleet, batch) for name, batch in batches().items()]
        rows += [
            ("pack", packed, batches()["plain"]),
            ("pack flavours", packed, batches()["flavours"]),
        ]
        for name, there, batch in [*rows, ("with a reserve", reserved, rows[0][2])]:
            each = measure(lambda: place(there, batch), seconds) / BATCH  # noqa: B023
            print(f"  {name:14} {1 / each:>9,.0f}   {each / floor:5.1f} x floor")
        _show_the_rest(fleet, cluster, hosts, seconds)


def _show_the_rest(
    fleet: Fleet, cluster: ClusterView, hosts: list[HostView], seconds: float
) -> None:
    explain = measure(
        lambda: [
            one.explanation.to_json() for one in place(fleet, batches()["plain"], explained=True)
        ],
        seconds,
    )
    build = measure(lambda: Fleet([cluster], hosts), seconds)
    some = [dataclasses.replace(host, version=2, claimed_vcpus=1) for host in hosts[:100]]
    renew = measure(lambda: fleet.with_hosts(some), seconds)
    print(
        f"  build {build * 1e3:.1f} ms, renew {renew * 1e3:.2f} ms, "
        f"explain {explain / BATCH * 1e3:.2f} ms"
    )


def batches() -> dict[str, list[PlacementRequest]]:
    """What is asked for, by the name of the row."""
    plain = [make_request(number) for number in range(BATCH)]

    def each(**fields: object) -> list[PlacementRequest]:
        return [dataclasses.replace(one, **fields) for one in plain]  # type: ignore[arg-type]

    apart = Affinity(mode="apart", labels=_WEB, scope="host")
    together = Affinity(mode="together", labels=_WEB, scope="zone")
    return {
        "plain": plain,
        "labels": each(require={"arch": "x86_64"}, prefer={"zone": "z1"}, image_id="image"),
        "flavours": [
            dataclasses.replace(one, vcpus=1 << number % 6, memory=(1 << number % 4) * GIB)
            for number, one in enumerate(plain)
        ],
        "zone spread": each(labels=_WEB, spread_by="zone"),
        "apart": each(labels=_WEB, affinity=(apart,)),
        "together": each(labels=_WEB, affinity=(together,)),
    }


def make_hosts(count: int) -> list[HostView]:
    """Hosts of 64 vCPUs and 256 GiB, half claimed; every twentieth is cordoned."""
    dice = random.Random(count)
    return [
        HostView(
            id=f"host-{number:06}",
            name=f"h{number}",
            cluster_id="c",
            state=HostState.READY if number % 20 else HostState.CORDONED,
            labels={"zone": f"z{number % 3}", "rack": f"r{number % 40}"},
            architecture="x86_64",
            capacity_vcpus=64,
            capacity_memory=256 * GIB,
            capacity_disk=4096 * GIB,
            claimed_vcpus=dice.randrange(256),
            claimed_memory=dice.randrange(256) * GIB,
            claimed_disk=dice.randrange(4096) * GIB,
            kinds=frozenset({"vm"}),
            image_ids=frozenset({"image"} if number % 3 else ()),
        )
        for number in range(count)
    ]


def make_request(number: int) -> PlacementRequest:
    """A small VM that may be anywhere."""
    return PlacementRequest(
        id=f"request-{number}",
        name=f"w{number}",
        project_id="p",
        cluster_id="c",
        kind=Kind.VM,
        vcpus=2,
        memory=4 * GIB,
        disk=20 * GIB,
    )


def floor_of(fleet: Fleet) -> Callable[[], object]:
    """The least that can be done in numpy."""
    asked = make_request(0)
    limits, claimed = fleet.limits, fleet.claimed
    ready = np.array([host.state is HostState.READY for host in fleet.hosts])
    share_vcpus, share_memory = 1 / limits.vcpus, 1 / limits.memory

    def floor() -> int:
        vcpus, memory = claimed.vcpus + asked.vcpus, claimed.memory + asked.memory
        fits = ready & (vcpus <= limits.vcpus) & (memory <= limits.memory)
        fits &= claimed.disk + asked.disk <= limits.disk
        scores = 1 - np.maximum(vcpus * share_vcpus, memory * share_memory)
        return int(np.where(fits, scores, -1).argmax())

    return floor


def measure(work: Callable[[], object], seconds: float) -> float:
    """Seconds of CPU a call, the median of as many as fit in the time."""
    work()
    end = time.perf_counter() + seconds
    took: list[float] = []
    while time.perf_counter() < end or not took:
        before = time.process_time()
        work()
        took.append(time.process_time() - before)
    return float(np.median(took))


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
