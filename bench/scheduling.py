"""How many placements a second the scheduler decides, against a bare numpy floor.

    python bench/scheduling.py [--seconds 1.0]

The floor does what no scheduler can do without: compare three columns, score, take the best; no
rules, no reasons, no running claims. "single" places one request on a fleet that is there, "batch"
places 100 together. "build" is the time to make the fleet from the inventory's rows.
Explanations are made in all cases, their JSON is not ("json" is the time for one).
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections.abc import Callable

import numpy as np

from virtmgr.domain.host import HostState
from virtmgr.domain.scheduling import ClusterView, Fleet, HostView, PlacementRequest, place
from virtmgr.domain.workload import GIB, Kind

SIZES = (100, 1_000, 10_000)
BATCH = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seconds", type=float, default=1.0, help="to spend on each figure")
    seconds = parser.parse_args().seconds
    cluster = ClusterView(id="c", name="default")
    print("hosts     build ms  floor/s   single/s  x floor  batch/s   x floor  json ms")
    for size in SIZES:
        print(row(cluster, make_hosts(size), seconds))


def row(cluster: ClusterView, hosts: list[HostView], seconds: float) -> str:
    """One line of the table."""
    fleet = Fleet([cluster], hosts)
    requests = [make_request(number) for number in range(BATCH)]
    decision = place(fleet, requests[:1])[0]
    build = measure(lambda: Fleet([cluster], hosts), seconds)
    floor = measure(floor_of(fleet), seconds)
    single = measure(lambda: place(fleet, requests[:1]), seconds)
    batch = measure(lambda: place(fleet, requests), seconds) / BATCH
    json = measure(lambda: dataclasses.replace(decision.explanation).to_json(), seconds)
    return (
        f"{len(hosts):<9,} {build * 1e3:<9.2f} {1 / floor:<9,.0f} "
        f"{1 / single:<9,.0f} {single / floor:<8.1f} "
        f"{1 / batch:<9,.0f} {batch / floor:<8.1f} {json * 1e3:.2f}"
    )


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
    """A usual VM: an architecture, a required and a preferred label, an image."""
    return PlacementRequest(
        id=f"request-{number}",
        name=f"w{number}",
        project_id="p",
        cluster_id="c",
        kind=Kind.VM,
        vcpus=2,
        memory=4 * GIB,
        disk=20 * GIB,
        architecture="x86_64",
        require={"arch": "x86_64"},
        prefer={"zone": "z1"},
        image_id="image",
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
    """Seconds a call, the median of as many as fit in the time."""
    work()
    end = time.perf_counter() + seconds
    took: list[float] = []
    while time.perf_counter() < end or not took:
        before = time.perf_counter()
        work()
        took.append(time.perf_counter() - before)
    return float(np.median(took))


_Raw = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
