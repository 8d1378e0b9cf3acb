"""Units of work lock rows in one order, so that none waits for another in a circle.

Only PostgreSQL locks rows. Agents, workers and people change the same few hosts and workloads at
the same time here, and the database never has to end one of their units.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event

from tests.api.conftest import initialise
from tests.api.contract import Api, Contract
from tests.api.host import PretendHost, fall_silent
from tests.api.test_moving import Wires
from tests.fixtures.postgresql import PostgresqlServer
from virtmgr.api.app import create_app
from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.sync import SyncRequest
from virtmgr.domain.workload import Usage
from virtmgr.images.blobs import BlobStore
from virtmgr.services import rebalancing_worker
from virtmgr.services.container import Services
from virtmgr.services.migration_worker import MigrationWorker
from virtmgr.store import errors, migrate
from virtmgr.store.engine import make_engine
from virtmgr.store.errors import _from_postgresql
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

pytestmark = pytest.mark.postgresql

CLIENTS = 3
STEPS = 15  # of each client
_ALL = "/projects/default/workloads"
_EXPECTED = {200, 201, 202, 404, 409}


class Deadlocks:
    """Counts those that the database ended."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def hear(self, error: psycopg.Error) -> VirtmgrError | None:
        if isinstance(error, psycopg.errors.DeadlockDetected):
            self.found.append(f"{error}\n{error.diag.message_detail}")
        return _from_postgresql(error)


@pytest.fixture
def deadlocks(monkeypatch: pytest.MonkeyPatch) -> Deadlocks:
    made = Deadlocks()
    monkeypatch.setattr(errors, "_from_postgresql", made.hear)
    return made


def _dawdle(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
    """Who has locked a row leaves others the time to lock theirs."""
    if statement.startswith("UPDATE") or "FOR NO KEY UPDATE" in statement:
        time.sleep(random.uniform(0, 0.01))


@pytest.fixture
def services(postgresql: PostgresqlServer, tmp_path: Path) -> Iterator[Services]:
    name = postgresql.create_database()
    migrate.upgrade(postgresql.url(name))
    engine = make_engine(f"{postgresql.url(name)}&options=-c%20deadlock_timeout%3D50ms")
    event.listen(engine, "after_cursor_execute", _dawdle)
    units = SqlUnitOfWorkFactory(engine)
    yield Services(units=units, blobs=BlobStore(tmp_path / "images"), dial=Wires())
    units.close()
    postgresql.drop_database(name)


class Client:
    """Asks for this and that, as it comes."""

    def __init__(self, api: Api, number: int, seed: int) -> None:
        self._api, self._number, self._dice = api, number, random.Random(seed)
        self.refused: list[object] = []

    def run(self) -> None:
        for step in range(STEPS):
            self._dice.choice((self._make, self._change, self._change, self._host))(step)

    def _make(self, step: int) -> None:
        name = f"w{self._number}-{step}"
        volume = {"name": name, "size": "1MiB"}
        nics = [{"network": "default"}, {"network": "other"}]
        self._dice.shuffle(nics)
        spec = {"kind": "container", "image": "busybox", "name": name, "nics": nics}
        self._call("POST", "/projects/default/volumes", volume)
        self._call("POST", _ALL, {**spec, "volumes": [{"volume": name, "path": "/data"}]})

    def _change(self, _step: int) -> None:
        found = self._api.get(_ALL).body["items"]
        if not found:
            return
        one = f"{_ALL}/{self._dice.choice(found)['id']}"
        match self._dice.choice(["power", "power", "move", "move", "resize", "delete"]):
            case "power":
                self._call("POST", f"{one}/{self._dice.choice(['stop', 'start', 'restart'])}")
            case "move":
                self._call("POST", f"{one}/move")
            case "resize":
                memory = self._dice.choice(["64MiB", "128MiB"])
                self._call("PATCH", one, {"resources": {"vcpus": 0.1, "memory": memory}})
            case "delete":
                self._call("DELETE", one)

    def _host(self, _step: int) -> None:
        host = self._dice.choice(self._api.get("/hosts").body["items"])["id"]
        if self._dice.randrange(3) == 0:
            self._rebalance()
            return
        verbs = self._dice.choice([["drain"], ["drain/cancel", "uncordon"], ["uncordon"]])
        for verb in verbs:
            self._call("POST", f"/hosts/{host}/{verb}")

    def _rebalance(self) -> None:
        if self._dice.randrange(3):
            body = {"cold": True, "at_once": 5}
            self._call("POST", "/clusters/default/rebalance", body)
        else:
            self._call("POST", "/clusters/default/rebalance/cancel")

    def _call(self, method: str, path: str, body: object = None) -> None:
        reply = self._api.call(method, path, body)
        if reply.status not in _EXPECTED:
            self.refused.append((method, path, reply))


@contextmanager
def _again_and_again(work: Callable[[], object]) -> Iterator[None]:
    """``work`` in a thread of its own, as an agent or a worker does it, while the block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                work()
            except Unavailable:
                continue
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sync(host: PretendHost) -> None:
    """Something has changed of each workload at each time."""
    host.converge()
    usage = {id: Usage(at=datetime.now(UTC)) for id in host.wishes}
    host.sync(SyncRequest(known_revision=host.known_revision, usage=usage))


def _some_fall_silent(services: Services) -> None:
    """Each does, and comes back at its next sync; now and then, so that something gets done."""
    time.sleep(random.uniform(0.5, 2.0))
    fall_silent(services)


def test_nobody_waits_in_a_circle(
    deadlocks: Deadlocks, services: Services, contract: Contract
) -> None:
    api = initialise(create_app(services), services, contract)
    api.post("/networks", {"name": "other", "ipv4": "10.77.0.0/16"})
    api.patch("/clusters/default", {"rebalancing_threshold": 0.02})  # so that moves are found
    hosts = [PretendHost(services) for _ in range(3)]
    worker = MigrationWorker(services)
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    clients = [Client(api, number, seed + number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(_again_and_again(partial(_sync, host)))
        stack.enter_context(_again_and_again(worker.run_once))
        stack.enter_context(_again_and_again(partial(rebalancing_worker.advance, services)))
        stack.enter_context(_again_and_again(partial(rebalancing_worker.look, services)))
        stack.enter_context(_again_and_again(partial(_some_fall_silent, services)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not [one for client in clients for one in client.refused]
    assert not deadlocks.found, deadlocks.found[0]
    moved = api.get("/events", type="workload.moved").body["items"]
    assert moved, "nothing was moved, so little was tried"
