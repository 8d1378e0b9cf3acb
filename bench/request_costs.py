"""What one request costs, by the CPU time that it takes: creates, lists, changes, syncs.

    python -m bench.request_costs [--hosts 1000] [--workloads 20000] [--sqlite] [--profile NAME]

One process, the applications of the web process called without any network, on PostgreSQL (a
private server on a Unix socket) or SQLite: what TLS and HTTP cost is not in it, nor what other
processes take of the machine. CPU of PostgreSQL's process stands beside. What agents ask goes
through their application, from the bytes of the request to those of the answer.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, cycle
from pathlib import Path
from ssl import SSLSocket
from typing import TYPE_CHECKING, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet_fill import fill
from bench.fleet_site import AS_IN_PRODUCTION, cpu_of, tree
from tests.fixtures.control_plane import PREFIX, Server, add_hosts, new_control_plane
from tests.fixtures.postgresql import running_server
from tests.fixtures.statements import statements
from virtmgr.api.agent import PREFIX as AGENTS
from virtmgr.api.agent import create_agent_app
from virtmgr.api.app import create_app
from virtmgr.bootstrap.processes import collect_rarely
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import ObservedPool, ObservedWorkload, SyncRequest
from virtmgr.domain.usage_history import MINUTE, UsagePoint, UsageSlice
from virtmgr.domain.workload import GIB, State, Usage, WorkloadStatus
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.drivers.fake.world import FakeWorld
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.services.container import Services
from virtmgr.services.wake import HostWake
from virtmgr.sim.behaviour import fingerprint
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

if TYPE_CHECKING:
    from virtmgr.ports.certificates import Authority

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


class _Peer(SSLSocket):
    """The connection of a host, as far as the agents' application looks at it."""

    host_id: str

    @classmethod
    def of(cls, host_id: str) -> _Peer:
        found = cls.__new__(cls)  # it is connected to nobody
        found.host_id = host_id
        return found

    def getpeercert(self, binary_form: bool = False) -> Any:
        del binary_form
        name = ((("commonName", self.host_id),),)
        return {"subject": name, "serialNumber": _serial(self.host_id)}

    def getsockopt(self, *option: int) -> bytes:  # type: ignore[override]
        del option
        return b"\x01"  # TCP_ESTABLISHED


def _serial(host_id: str) -> str:
    """Of the host's certificate, hexadecimal."""
    return "c" + host_id.replace("-", "")


class Costs:
    """Requests to a filled inventory, each by its name."""

    def __init__(self, server: Server, services: Services) -> None:
        self._services = services
        self._client = create_app(services).test_client()
        agents = create_agent_app(services, cast("Authority", None), HostWake())  # nobody joins
        self._agents = agents.test_client()
        self._token = server.token
        self._numbers = count(1)
        self._run = new_id()
        self._made: list[str] = []
        with services.units(read_only=True) as uow:
            self._hosts = [host.id for host in uow.hosts.all()]
            self._there = {id: list(uow.workloads.on_host(id)) for id in self._hosts[:3]}
            image = uow.images.find("busybox")
            assert image is not None
            self._images = (image.id,)
        driver = FakeDriver(FakeWorld(keep_calls=False)).facts()
        self._fingerprint = fingerprint(3, "sim00003", 1, driver)
        self._power()  # the latest that the second host has to hear of
        self._states = cycle((State.RUNNING, State.STOPPED))
        self._requests: dict[str, Callable[[], Callable[[], None]]] = {
            "create": lambda: self._create,
            "create, 100 at once": lambda: partial(self._create, 100),
            "change of a label": lambda: self._change,
            "restart": lambda: self._power,
            "list of 50 after a change": lambda: partial(
                self._list, "/workloads?limit=50&sort=-created_at"
            ),
            "list of 50 hosts": lambda: partial(self._list, "/hosts?limit=50"),
            "list of 50 operations": lambda: partial(self._list, "/operations?limit=50"),
            "list of 50 events": lambda: partial(self._list, "/events?limit=50"),
            "sync that hears of one change": self._sync_news,
            "sync of one changed state": self._sync_state,
            "sync of usage and pools": self._sync_usage,
            "sync of usage, pools and a minute": self._sync_minute,
            "sync of an agent that starts": self._sync_all,
            "sync that renews": self._sync_renew,
            "poll that renews": lambda: self._poll,
            "100 heartbeats at once": lambda: self._beats,
        }

    @property
    def names(self) -> list[str]:
        """Of all requests."""
        return list(self._requests)

    def next(self, name: str) -> Callable[[], None]:
        """A request of this name, to be called once. What its client does is done by now, and
        something was changed, so that no answer is given again that was kept."""
        self._commit()
        return self._requests[name]()

    def _commit(self) -> None:
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
        one = self._there[self._hosts[1]][0]
        self._call("POST", f"/projects/{one.project_id}/workloads/{one.id}/restart", {})

    def _list(self, path: str) -> None:
        self._call("GET", path)

    def _ask_as(self, host_id: str, method: str, path: str, body: bytes = b"") -> None:
        answer = self._agents.open(
            AGENTS + path, method=method, data=body,
            environ_overrides={"gunicorn.socket": _Peer.of(host_id)},
        )  # fmt: skip
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.get_data(as_text=True)}")

    def _sync(self, request: SyncRequest, *, host: int = 0, behind: int = 0) -> Callable[[], None]:
        id = self._hosts[host]
        with self._services.units(read_only=True) as uow:
            revision = uow.hosts.those([id])[0].revision
        known = request.model_copy(update={"known_revision": revision - behind})
        known = known.numbered(self._run, next(self._numbers))
        body = known.model_dump_json(exclude_unset=True).encode()
        return lambda: self._ask_as(id, "POST", "/sync", body)

    def _sync_news(self) -> Callable[[], None]:
        return self._sync(SyncRequest(brief=True), host=1, behind=1)

    def _sync_state(self) -> Callable[[], None]:
        one = self._there[self._hosts[0]][0]
        status = WorkloadStatus(state=next(self._states), started_at=datetime.now(UTC))
        observed = ObservedWorkload(
            id=one.id, observed_generation=one.generation, status=status, restart_nonce=0
        )
        return self._sync(SyncRequest(brief=True, workloads=(observed,)))

    def _used(self, host: int) -> dict[str, Any]:
        """What is no news of a host: usage and pools."""
        number = next(self._numbers)
        usage = Usage(
            at=datetime.now(UTC), cpu_seconds=number, memory=GIB, disk=GIB, disk_read=number,
            disk_written=number, network_received=number, network_sent=number, pids=4,
        )  # fmt: skip
        pool = ObservedPool(name="default", path="/x", capacity=GIB, used=number)
        there = [one.id for one in self._there[self._hosts[host]]]
        return {"usage": dict.fromkeys(there, usage), "pools": (pool,)}

    def _sync_usage(self) -> Callable[[], None]:
        return self._sync(SyncRequest(**self._used(0)))

    def _sync_minute(self) -> Callable[[], None]:
        """As one in a minute of a host's is."""
        point = UsagePoint(
            cpus=0.5, memory=GIB, disk=GIB, disk_read=1.5, disk_written=1.5, network_received=1.5,
            network_sent=1.5,
        )  # fmt: skip
        there = [one.id for one in self._there[self._hosts[0]]]
        end = datetime.now(UTC) - timedelta(seconds=next(self._numbers) % 3600)
        told = UsageSlice(
            end=end, seconds=MINUTE, host=point, workloads=dict.fromkeys(there, point)
        )
        return self._sync(SyncRequest(**self._used(0), usage_history=(told,)))

    def _sync_all(self) -> Callable[[], None]:
        """All is as it was, but for what is used."""
        observed = tuple(
            ObservedWorkload(
                id=one.id, observed_generation=one.generation, restart_nonce=0,
                status=WorkloadStatus(state=State.RUNNING, started_at=one.status.started_at),
            )
            for one in self._there[self._hosts[2]]
        )  # fmt: skip
        told = SyncRequest(
            full=True, fingerprint=self._fingerprint, workloads=observed, images=self._images,
            trusted_authorities=("0" * 64,), **self._used(2),
        )  # fmt: skip
        self._run = new_id()
        return self._sync(told, host=2)

    def _sync_renew(self) -> Callable[[], None]:
        return self._sync(SyncRequest(brief=True))

    def _poll(self) -> None:
        self._ask_as(self._hosts[0], "GET", "/wake?revision=1000&timeout=0&renew=1")

    def _beats(self) -> None:
        with self._services.units() as uow:
            beats = [Heartbeat(id, _serial(id)) for id in self._hosts[:100]]
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
                host.certificate_serial = _serial(host.id)
        fill(server, workloads)
        units = SqlUnitOfWorkFactory(make_engine(server.settings.database))
        stack.callback(units.close)
        costs = Costs(server, Services(units=units, blobs=BlobStore(directory / "images")))
        collect_rarely()
        yield costs, database


def measure(costs: Costs, name: str, database: int | None, seconds: float) -> Cost:
    """Repeat a request for a while; what is changed in between does not count."""
    for _ in range(_WARM):
        costs.next(name)()
    own: list[float] = []
    theirs = 0.0
    end = time.monotonic() + seconds
    while len(own) < 10 or time.monotonic() < end:
        request = costs.next(name)
        mine, others = time.process_time(), _database_cpu(database)
        request()
        own.append(1000 * (time.process_time() - mine))
        theirs += _database_cpu(database) - others
    statements, calls = _counted(costs, name)
    return Cost(sum(own) / len(own), 1000 * theirs / len(own), min(own), statements, calls)


def _counted(costs: Costs, name: str) -> tuple[int, int]:
    """Statements and calls of functions of one request, the least of some."""
    counts = []
    for _ in range(_WARM):
        request = costs.next(name)
        seen = cProfile.Profile()
        with statements() as told, seen:
            request()
        counts.append((len(told), pstats.Stats(seen).total_calls))  # type: ignore[attr-defined]
    return min(counts)


def _database_cpu(first: int | None) -> float:
    return sum(map(cpu_of, tree(first))) if first is not None else 0.0


def profile(costs: Costs, name: str, seconds: float) -> None:
    """Where the time of a request goes."""
    for _ in range(_WARM):
        costs.next(name)()
    seen = cProfile.Profile(time.process_time)
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        request = costs.next(name)
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
            costs.next(options.statements)()
            request = costs.next(options.statements)
            with statements() as told:
                request()
            print(*told, sep="\n\n")
            return
        print("| one request | statements | calls | CPU, ms | the least | of the database, ms |")
        print("|---|---|---|---|---|---|")
        for name in costs.names:
            cost = measure(costs, name, database, options.seconds)
            print(f"| {name} | {cost.statements} | {cost.calls:,.0f} | {cost.own:.1f} | "
                  f"{cost.least:.1f} | {cost.database:.1f} |", flush=True)  # fmt: skip
    print(f"\n{options.hosts} hosts, {options.workloads} workloads, {os.cpu_count()} CPUs, "
          f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
