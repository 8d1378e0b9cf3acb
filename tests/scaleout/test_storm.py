"""Three control planes on one PostgreSQL: kill -9 and a crash of the database in mid-flight.

200 mixed requests by several clients; what was acknowledged is there, and nothing was done twice.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.scaleout.client import Follower, PatientClient, Told, pretty, wait_until
from tests.scaleout.plane import Installation, installation

pytestmark = [pytest.mark.long, pytest.mark.postgresql, pytest.mark.timeout(2400)]

CLIENTS = 4
REQUESTS = 200
KILLS = 6
_ALL = "/projects/default/workloads"
_FINISHED = ("succeeded", "failed", "cancelled")
_AFTER = {"create": "running", "start": "running", "restart": "running", "stop": "stopped",
          "pause": "paused", "resume": "running", "delete": "gone"}  # fmt: skip
_POSSIBLE = {
    "running": ("stop", "restart", "pause", "delete"),
    "stopped": ("start", "start", "delete"),
    "paused": ("resume", "resume", "stop"),
}


@dataclass
class Wanted:
    """A workload as its client knows it."""

    id: str
    name: str
    state: str = "running"
    asked: Counter[str] = field(default_factory=lambda: Counter(create=1))


@dataclass
class Clients:
    """Several clients' requests, and what was acknowledged to them."""

    place: Installation
    seed: int
    told: Told = field(default_factory=Told)
    operations: dict[str, str] = field(default_factory=dict)  # id → verb
    workloads: list[Wanted] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, number: int) -> None:
        try:
            self._work(number, random.Random(self.seed + number))
        except BaseException as error:
            self.failures.append(error)
            raise

    def _work(self, number: int, dice: random.Random) -> None:
        client = PatientClient(self.place.api, self.told)
        own: list[Wanted] = []
        for step in range(REQUESTS // CLIENTS):
            alive = [one for one in own if one.state != "gone"]
            if len(alive) < 2 or (len(alive) < 5 and dice.random() < 0.2):
                one = self._create(client, f"w{number}-{step}", dice.choice(["container", "vm"]))
                own.append(one)
            else:
                one = dice.choice(alive)
                self._change(client, one, dice.choice(_POSSIBLE[one.state]))
        client.close()

    def _create(self, client: PatientClient, name: str, kind: str) -> Wanted:
        image = {"container": "busybox", "vm": "debian"}[kind]
        resources = {"vcpus": 1, "memory": "64MiB"}
        body = {"name": name, "kind": kind, "image": image, "resources": resources}
        reply = client.call("POST", f"{_ALL}?wait=20", body)
        assert reply.status in (200, 202), pretty(reply)
        one = Wanted(reply.body["target"]["id"], name)
        with self._lock:
            self.workloads.append(one)
        self._finish(client, "create", reply.body)
        return one

    def _change(self, client: PatientClient, one: Wanted, verb: str) -> None:
        path = f"{_ALL}/{one.id}"
        method = "DELETE" if verb == "delete" else "POST"
        reply = client.call(method, f"{path}{'' if verb == 'delete' else '/' + verb}?wait=20")
        one.asked[verb] += 1
        one.state = _AFTER[verb]
        if verb == "delete" and reply.status == 404:  # the answer before was lost on its way
            self.done += 1
            return
        assert reply.status in (200, 202), (verb, one, pretty(reply))
        self._finish(client, verb, reply.body)

    def _finish(self, client: PatientClient, verb: str, operation: dict[str, Any]) -> None:
        """Its own next request may need that this one is carried out."""
        with self._lock:
            self.operations[operation["id"]] = verb
            self.done += 1
        while operation["state"] not in _FINISHED:
            time.sleep(0.3)
            reply = client.call("GET", f"/operations/{operation['id']}")
            assert reply.status == 200, f"operation {operation['id']} ({verb}) is lost"
            operation = reply.body
        assert operation["state"] == "succeeded", operation


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("storm")) as made:
        yield made


def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(place: Installation) -> None:
    seed = random.randrange(2**31)
    print(f"seed {seed}")
    clients = Clients(place, seed)
    follower = Follower(place.api)
    following = threading.Thread(target=follower.run, daemon=True)  # also when a check fails
    following.start()
    threads = [threading.Thread(target=clients.run, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    _disturb(place, clients, random.Random(seed), threads)
    for thread in threads:
        thread.join()
    assert not clients.failures, clients.failures
    assert clients.done == REQUESTS
    _check_operations(place, clients)
    _check_workloads(place, clients)
    _check_events(place, follower)
    following.join()
    assert clients.told.without_retry_after == 0
    print(clients.told)


def _disturb(
    place: Installation, clients: Clients, dice: random.Random, threads: list[threading.Thread]
) -> None:
    """At evenly spread moments: a control plane dies; in the middle the database does as well."""
    for number in range(1, KILLS + 1):
        due = REQUESTS * number // (KILLS + 1)
        wait_until(
            lambda due=due: clients.done >= due or not any(t.is_alive() for t in threads),  # type: ignore[misc]
            1200,
        )
        victim = dice.choice(place.planes)
        victim.kill()
        if number == KILLS // 2:
            place.database.crash_and_start(3.0)
        time.sleep(dice.uniform(0, 2))
        victim.start()


def _check_operations(place: Installation, clients: Clients) -> None:
    """Each acknowledged request is one operation that succeeded, and there is no other one."""
    with place.api.inventory() as uow:
        for id, verb in clients.operations.items():
            operation = uow.operations.get(id)
            assert operation is not None, f"{verb} was acknowledged and is lost"
            assert (operation.verb, operation.state.value) == (verb, "succeeded")
        for one in clients.workloads:
            found = Counter(
                operation.verb for operation in _operations(uow, one.id) if operation.verb in _AFTER
            )
            assert found == one.asked, f"{one.name}: some request was carried out twice, or not"


def _operations(uow: Any, target: str) -> list[Any]:
    from virtmgr.ports.unit_of_work import ListQuery

    query = ListQuery(filters={"target": target}, sort="created_at", limit=500)
    return list(uow.operations.list(query).items)


def _check_workloads(place: Installation, clients: Clients) -> None:
    client = PatientClient(place.api, clients.told)
    shown = {
        item["id"]: item["status"]["state"]
        for item in client.call("GET", f"{_ALL}?limit=500").body["items"]
    }
    client.close()
    assert shown == {one.id: one.state for one in clients.workloads if one.state != "gone"}
    worlds = [host.world for host in place.hosts]
    for one in clients.workloads:
        where = [world for world in worlds if world.guest(one.id) is not None]
        assert len(where) == (one.state != "gone"), f"{one.name} is on {len(where)} hosts"
        starts = sum(world.count("start", one.id) for world in worlds)
        asked = one.asked
        assert starts == asked["create"] + asked["start"] + asked["restart"], one
    assert not [overlap for world in worlds for overlap in world.overlaps]


def _check_events(place: Installation, follower: Follower) -> None:
    """Whoever followed has seen each event once, in order, whichever process told it."""
    with place.api.inventory() as uow:
        every = [event.sequence for event in uow.events.after(0, limit=100_000)]
    follower.stop_at(every[-1])
    assert follower.sequences[: len(every)] == every
