"""How fast placements are committed: workloads made by the product's own service, on PostgreSQL.

    python -m bench.placement_commits [--hosts 5000] [--processes 1] [--batch 500] [--seconds 10]

A private PostgreSQL server (commits durable, on a Unix socket), an inventory of ``--hosts`` hosts,
and processes that call ``services.workloads.create``: quota, placement, claims, workload,
operation, event and the explanation that is kept, in one transaction. ``single`` makes one workload
a transaction in one process, ``batches`` makes ``--batch`` of them, in ``--processes`` at the same
time; each try that was overtaken is made again, as by the API. Beside each rate stands the one that
the process's CPU time alone would allow: what other processes take of the machine is not in it. The
collector of garbage runs as seldom as in the web process.
``claims`` are batches of which only the hosts are decided and claimed, and no workloads are made.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet_site import AS_IN_PRODUCTION
from tests.fixtures.control_plane import add_hosts, add_images
from tests.fixtures.postgresql import running_server
from virtmgr.bootstrap.processes import collect_rarely
from virtmgr.domain.access import Action, Principal
from virtmgr.domain.ids import new_id
from virtmgr.domain.project import Role
from virtmgr.domain.scheduling import PlacementRequest
from virtmgr.domain.workload import GIB, MIB, Init, Kind, Resources, WorkloadSpec
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.clock import SystemClock
from virtmgr.services import auth, placement, workloads
from virtmgr.services.container import Services
from virtmgr.services.context import open_context
from virtmgr.services.placement import Overtaken
from virtmgr.store import migrate
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_DURABLE = {**AS_IN_PRODUCTION, "max_wal_size": "4GB"}


@dataclass(frozen=True)
class Committed:
    """What was measured. Seconds."""

    placements: int
    seconds: float
    overtaken: int
    each: tuple[float, ...]  # of every transaction
    cpu: float  # of the processes, together

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the transactions stayed within."""
        return float(np.percentile(self.each, 100 * share)) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=500, help="workloads a transaction")
    parser.add_argument("--seconds", type=float, default=10.0, help="to spend on each figure")
    parser.add_argument("--profile", action="store_true", help="one process, and where time goes")
    arguments = parser.parse_args()
    with inventory(arguments.hosts) as url:
        if arguments.profile:
            _profile(url, arguments.batch, arguments.seconds)
            return
        measure(url, arguments.hosts, arguments.processes, arguments.batch, arguments.seconds)


def measure(url: str, hosts: int, processes: int, batch: int, seconds: float) -> None:
    """Print both figures."""
    single = run(url, processes=1, batch=1, seconds=seconds)
    batches = run(url, processes, batch, seconds)
    claims = run(url, processes, batch, seconds, make=False)
    load = os.getloadavg()[0]
    print(f"{hosts:,} hosts, PostgreSQL, {os.cpu_count()} CPUs, load {load:.1f}; committed")
    print(
        f"  single     {single.placements / single.seconds:8,.0f}/s   (CPU: "
        f"{single.placements / single.cpu:,.0f}/s)   p50 {single.percentile(0.5):.1f} ms   "
        f"p99 {single.percentile(0.99):.1f} ms"
    )
    for name, found in {"batches": batches, "claims": claims}.items():
        print(
            f"  {name:10} {found.placements / found.seconds:8,.0f}/s   (CPU: "
            f"{found.placements / found.cpu:,.0f}/s)   {found.overtaken} times overtaken in "
            f"{len(found.each)} transactions of {batch}"
        )


@contextmanager
def inventory(hosts: int) -> Iterator[str]:
    """A database with so many hosts that are empty; its URL."""
    with running_server(_DURABLE) as server:
        url = server.url(server.create_database())
        migrate.upgrade(url)
        units = SqlUnitOfWorkFactory(make_engine(url))
        with units() as uow:
            auth.initialise(uow, SystemClock())
            add_hosts(uow, hosts, vcpus=64, memory=512 * GIB)
            add_images(uow)
            uow.commit()
        units.close()
        yield url


def run(url: str, processes: int, batch: int, seconds: float, *, make: bool = True) -> Committed:
    """Let processes create workloads for a while; or only claim, without ``make``."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        begin = time.time() + 3 + processes
        jobs = [
            (url, f"p{number}-{batch}", batch, begin, seconds, make) for number in range(processes)
        ]
        found = pool.starmap(_create, jobs)
    each = [took for one in found for took in one.each]
    return Committed(
        sum(one.placements for one in found),
        max(one.seconds for one in found),
        sum(one.overtaken for one in found),
        tuple(each),
        sum(one.cpu for one in found),
    )


def _create(
    url: str,
    name: str,
    batch: int,
    begin: float,
    seconds: float,
    make: bool = True,
    profile: cProfile.Profile | None = None,
) -> Committed:
    with tempfile.TemporaryDirectory() as directory:
        units = SqlUnitOfWorkFactory(make_engine(url))
        services = Services(units=units, blobs=BlobStore(Path(directory)))
        overtaken = 0
        once = _once if make else _claim
        once(services, f"{name}-first", batch)
        collect_rarely()
        time.sleep(max(0.0, begin - time.time()))
        each = []
        if profile is not None:
            profile.enable()
        started, cpu = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) < started + seconds:
            overtaken += once(services, f"{name}-{len(each)}", batch)
            each.append(time.perf_counter() - now)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        if profile is not None:
            profile.disable()
        units.close()
    return Committed(len(each) * batch, took, overtaken, tuple(each), cpu)


def _once(services: Services, name: str, batch: int) -> int:
    """Create a batch; how often it was overtaken."""
    spec = WorkloadSpec(
        name=name,
        kind=Kind.CONTAINER,
        init=Init.APP,
        image="busybox",
        nics=(),
        resources=Resources(vcpus=0.1, memory=64 * MIB),
    )
    who = Principal(user_id=_first_user(services), name="admin", bindings=((Role.ADMIN, None),))
    tries = 0
    while True:
        try:
            with services.units() as uow:
                context = open_context(
                    services,
                    uow,
                    who,
                    Action.WORKLOADS_CREATE,
                    project="default",
                    overtaken=tries > 0,
                )
                workloads.create(context, spec, batch)
                uow.commit()
                return tries
        except Overtaken:
            tries += 1


def _claim(services: Services, name: str, batch: int) -> int:
    """Decide and claim a batch; how often it was overtaken."""
    tries = 0
    while True:
        with services.units() as uow:
            cluster = uow.clusters.find("default")
            project = uow.projects.find("default")
            assert cluster is not None
            assert project is not None
            requests = [
                PlacementRequest(
                    id=new_id(),
                    name=f"{name}-{number}",
                    project_id=project.id,
                    cluster_id=cluster.id,
                    kind=Kind.CONTAINER,
                    init=Init.APP,
                    vcpus=0.1,
                    memory=64 * MIB,
                    disk=0,
                )
                for number in range(batch)
            ]
            known = services.known_hosts
            decisions = placement.decide(uow, requests, known=known, alone=tries > 0)
            try:
                placement.commit(uow, requests, decisions, known=known, moving=False)
            except Overtaken:
                tries += 1
            else:
                uow.commit()
                return tries


_USERS: dict[int, str] = {}


def _first_user(services: Services) -> str:
    if id(services) not in _USERS:
        with services.units(read_only=True) as uow:
            user = uow.users.find("admin")
            assert user is not None
            _USERS[id(services)] = user.id
    return _USERS[id(services)]


def _profile(url: str, batch: int, seconds: float) -> None:
    profile = cProfile.Profile(time.process_time)  # whatever else the machine does
    _create(url, "warm", batch, 0, 0)
    done = _create(url, "profiled", batch, 0, seconds, profile=profile)
    print(done.placements, "placements")
    pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    pstats.Stats(profile).sort_stats("cumtime").print_stats(70)


class _Raw(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    main()
