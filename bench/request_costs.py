"""What one request costs, by the CPU time that it takes: creates, lists, changes, syncs.

    python -m bench.request_costs [--hosts 1000] [--workloads 20000] [--sqlite] [--profile NAME]

One process, the applications of the web process called without any network, on PostgreSQL (a
private server on a Unix socket) or SQLite: what TLS and HTTP cost is not in it, nor what other
processes take of the machine. CPU of PostgreSQL's process stands beside.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlalchemy import Engine, event

from bench.fleet_fill import fill
from bench.fleet_site import AS_IN_PRODUCTION, cpu_of, tree
from tests.fixtures.control_plane import PREFIX, Server, add_hosts, new_control_plane
from tests.fixtures.postgresql import running_server
from virtmgr.api.app import create_app
from virtmgr.domain.sync import ObservedPool, ObservedWorkload, SyncRequest
from virtmgr.domain.workload import GIB, State, Usage, WorkloadStatus
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.services.container import Services
from virtmgr.services.sync import sync
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_WARM = 5


@dataclass(frozen=True)
class Cost:
    """One request. CPU in milliseconds, the mean: of this process, and of the database's; the
    least of this process. Statements, and calls of functions, do not depend on the machine."""

    own: float
    database: float
    least: float
    statements: int
    calls: int


class Costs:
    """Requests to a filled inventory, each by its name."""

    def __init__(self, server: Server, services: Services) -> None:
        self._services = services
        self._client = create_app(services).test_client()
        self._token = server.token
        self._numbers = count()
        self._made: list[str] = []
        with services.units(read_only=True) as uow:
            self._hosts = [host.id for host in uow.hosts.all()]
            first = self._hosts[0]
            there = uow.workloads.on_host(first)
            self._workloads = {first: [(one.id, one.generation) for one in there]}
            other = uow.workloads.on_host(self._hosts[1])[0]
            self._running = other.project_id, other.id
        self._power()  # the latest that the second host has to hear of
        self._states = cycle((State.RUNNING, State.STOPPED))
        self.requests: dict[str, Callable[[], None]] = {
            "create": self._create,
            "create, 100 at once": lambda: self._create(100),
            "change of a label": self._change,
            "restart": self._power,
            "list of 50 after a change": lambda: self._list("/workloads?limit=50&sort=-created_at"),
            "list of 50 hosts": lambda: self._list("/hosts?limit=50"),
            "list of 50 operations": lambda: self._list("/operations?limit=50"),
            "list of 50 events": lambda: self._list("/events?limit=50"),
            "sync that hears of one change": self._sync_news,
            "sync of one changed state": self._sync_state,
            "sync of usage and pools": self._sync_usage,
            "sync of an agent that starts": self._sync_all,
            "sync that renews": self._sync_renew,
            "100 heartbeats at once": self._beats,
        }

    def commit(self) -> None:
        """Change something, so that no answer is given again that was kept."""
        with self._services.units() as uow:
            project = uow.projects.find("default")
            assert project is not None
            project.description = str(next(self._numbers))
            uow.commit()

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._client.open(
            PREFIX + path, method=method, json=body,
            headers={"Authorization": f"Bearer {self._token}"},
        )  # fmt: skip
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.get_data(as_text=True)}")
        return answer.get_data()

    def _create(self, count: int = 1) -> None:
        name = f"made-{os.getpid()}-{next(self._numbers)}"
        spec = {"name": name, "kind": "container", "image": "busybox",
                "resources": {"vcpus": 0.1, "memory": "64MiB"},
                "nics": [{"network": "default"}]}  # fmt: skip
        many = f"?count={count}" if count > 1 else ""
        self._call("POST", f"/projects/default/workloads{many}", spec)
        if count == 1:
            self._made.append(name)

    def _change(self) -> None:
        body = {"labels": {"n": str(next(self._numbers))}}
        self._call("PATCH", f"/projects/default/workloads/{self._made[-1]}", body)

    def _power(self) -> None:
        project, workload = self._running
        self._call("POST", f"/projects/{project}/workloads/{workload}/restart", {})

    def _list(self, path: str) -> None:
        self._call("GET", path)

    def _observed(self, number: int, state: State) -> ObservedWorkload:
        id, generation = self._workloads[self._hosts[0]][number]
        status = WorkloadStatus(state=state, started_at=datetime.now(UTC))
        return ObservedWorkload(id=id, observed_generation=generation, status=status)

    def _sync(self, request: SyncRequest, *, host: int = 0, behind: int = 0) -> None:
        with self._services.units(read_only=True) as uow:
            revision = uow.hosts.those([self._hosts[host]])[0].revision
        known = request.model_copy(update={"known_revision": revision - behind})
        sync(self._services, self._hosts[host], known).model_dump_json(exclude_unset=True)

    def _sync_news(self) -> None:
        self._sync(SyncRequest(brief=True), host=1, behind=1)

    def _sync_state(self) -> None:
        observed = self._observed(0, next(self._states))
        self._sync(SyncRequest(brief=True, workloads=(observed,)))

    def _sync_usage(self) -> None:
        now = datetime.now(UTC)
        usage = Usage(at=now, cpu_seconds=next(self._numbers), memory=GIB, disk=GIB)
        ids = [id for id, _ in self._workloads[self._hosts[0]]]
        pool = ObservedPool(name="default", path="/x", capacity=GIB, used=next(self._numbers))
        self._sync(SyncRequest(usage=dict.fromkeys(ids, usage), pools=(pool,)))

    def _sync_all(self) -> None:
        mine = self._workloads[self._hosts[0]]
        some = tuple(self._observed(number, State.RUNNING) for number in range(len(mine)))
        self._sync(SyncRequest(full=True, workloads=some, images=()))

    def _sync_renew(self) -> None:
        self._sync(SyncRequest(brief=True))

    def _beats(self) -> None:
        with self._services.units() as uow:
            beats = [Heartbeat(id, id) for id in self._hosts[:100]]
            renewed = uow.hosts.renew_all(beats, self._services.clock.now())
            uow.commit()
        if len(renewed) != len(beats):
            raise RuntimeError(f"{len(renewed)} of {len(beats)} leases were renewed")


@contextmanager
def filled(hosts: int, workloads: int, *, sqlite: bool) -> Iterator[tuple[Costs, int | None]]:
    """An inventory with hosts and workloads; and the process of its database, if it has one."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtmgr-costs-")))
        url, database = "", None
        if not sqlite:
            cluster = stack.enter_context(running_server(AS_IN_PRODUCTION))
            url = cluster.url(cluster.create_database())
            first = (cluster.socket_directory / "data/postmaster.pid").read_text()
            database = int(first.splitlines()[0])
        server = new_control_plane(directory, url)
        with server.inventory() as uow:
            add_hosts(uow, hosts, vcpus=128, memory=1024 * GIB)
            for host in uow.hosts.all():
                host.certificate_serial = host.id
        fill(server, workloads)
        units = SqlUnitOfWorkFactory(make_engine(server.settings.database))
        stack.callback(units.close)
        costs = Costs(server, Services(units=units, blobs=BlobStore(directory / "images")))
        collect_garbage_as_in_production()
        yield costs, database


def collect_garbage_as_in_production() -> None:
    """As the web process does (``virtmgr/bootstrap/serving.py``)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def measure(costs: Costs, name: str, database: int | None, seconds: float) -> Cost:
    """Repeat a request for a while; what is changed in between does not count."""
    request = costs.requests[name]
    for _ in range(_WARM):
        request()
    own: list[float] = []
    theirs = 0.0
    end = time.monotonic() + seconds
    while len(own) < 10 or time.monotonic() < end:
        costs.commit()
        mine, others = time.process_time(), _database_cpu(database)
        request()
        own.append(1000 * (time.process_time() - mine))
        theirs += _database_cpu(database) - others
    statements, calls = _counted(costs, request)
    return Cost(sum(own) / len(own), 1000 * theirs / len(own), min(own), statements, calls)


def _counted(costs: Costs, request: Callable[[], None]) -> tuple[int, int]:
    """Statements and calls of functions of one request, the least of some."""
    counts = []
    for _ in range(_WARM):
        costs.commit()
        seen = cProfile.Profile()
        with told_statements() as told, seen:
            request()
        counts.append((len(told), pstats.Stats(seen).total_calls))  # type: ignore[attr-defined]
    return min(counts)


@contextmanager
def told_statements() -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    told: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        told.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield told
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _database_cpu(first: int | None) -> float:
    return sum(map(cpu_of, tree(first))) if first is not None else 0.0


def profile(costs: Costs, name: str, seconds: float) -> None:
    """Where the time of a request goes."""
    request = costs.requests[name]
    for _ in range(_WARM):
        request()
    seen = cProfile.Profile(time.process_time)
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        costs.commit()
        with seen:
            request()
        number += 1
    print(number, "requests")
    pstats.Stats(seen).sort_stats("tottime").print_stats(40)
    pstats.Stats(seen).sort_stats("cumtime").print_stats(90)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # all that was started ends too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--workloads", type=int, default=20_000)
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each kind")
    parser.add_argument("--profile", metavar="NAME", help="only where the time of this one goes")
    parser.add_argument("--statements", metavar="NAME", help="only the statements of this one")
    options = parser.parse_args()
    with filled(options.hosts, options.workloads, sqlite=options.sqlite) as (costs, database):
        if options.profile:
            profile(costs, options.profile, options.seconds)
            return
        if options.statements:
            costs.requests[options.statements]()
            with told_statements() as told:
                costs.requests[options.statements]()
            print(*told, sep="\n\n")
            return
        print("| one request | statements | calls | CPU, ms | the least | of the database, ms |")
        print("|---|---|---|---|---|---|")
        for name in costs.requests:
            cost = measure(costs, name, database, options.seconds)
            print(f"| {name} | {cost.statements} | {cost.calls:,.0f} | {cost.own:.1f} | "
                  f"{cost.least:.1f} | {cost.database:.1f} |", flush=True)  # fmt: skip
    print(f"\n{options.hosts} hosts, {options.workloads} workloads, {os.cpu_count()} CPUs, "
          f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
