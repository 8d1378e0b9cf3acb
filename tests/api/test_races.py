"""What happens at the same time, on both databases."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.conftest import StillClock, initialise
from tests.api.contract import Api, Contract, Reply
from tests.api.host import PretendHost
from tests.fixtures.postgresql import PostgresqlServer
from virtmgr.api.app import create_app
from virtmgr.images.blobs import BlobStore
from virtmgr.services.container import Services
from virtmgr.store import migrate
from virtmgr.store.engine import make_engine
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

AT_ONCE = 12


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, empty_database: Path, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{shutil.copy(empty_database, tmp_path / 'virtmgr.db')}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    name = server.create_database()
    migrate.upgrade(server.url(name))
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def services(url: str, tmp_path: Path) -> Iterator[Services]:
    units = SqlUnitOfWorkFactory(make_engine(url))
    yield Services(units=units, blobs=BlobStore(tmp_path / "images"), clock=StillClock())
    units.close()


@pytest.fixture
def api(services: Services, contract: Contract) -> Api:
    return initialise(create_app(services), services, contract)


def _at_once(call: Callable[[int], Reply]) -> list[Reply]:
    """``call`` by many threads that begin together."""
    replies: list[Reply] = []
    barrier = threading.Barrier(AT_ONCE)

    def run(number: int) -> None:
        barrier.wait()
        replies.append(call(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == AT_ONCE
    return replies


def test_repeats_have_one_effect_and_one_answer(api: Api) -> None:
    key = {"Idempotency-Key": "one"}
    replies = _at_once(lambda _: api.post("/projects", {"name": "shop"}, headers=key))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body["id"] for reply in replies}) == 1
    assert sum("Idempotency-Replayed" not in reply.headers for reply in replies) == 1
    assert len(api.get("/events", type="project.created").body["items"]) == 1


def test_a_quota_is_never_exceeded(api: Api) -> None:
    api.patch("/projects/default/quota", {"limit_volumes": 5, "limit_disk": "5GiB"})
    path = "/projects/default/volumes"
    replies = _at_once(lambda n: api.post(path, {"name": f"v{n}", "size": "1GiB"}))
    assert sorted(reply.status for reply in replies) == [201] * 5 + [409] * (AT_ONCE - 5)
    quota = api.get("/projects/default/quota").body
    assert (quota["used_volumes"], quota["used_disk"]) == (5, 5 * 1024**3)


def test_networks_never_overlap(api: Api) -> None:
    path = "/projects/default/networks"
    replies = _at_once(lambda n: api.post(path, {"name": f"n{n}", "ipv4": "10.9.0.0/16"}))
    assert sorted(reply.status for reply in replies) == [201] + [409] * (AT_ONCE - 1)


def test_of_changes_to_one_version_one_wins(api: Api) -> None:
    headers = {"If-Match": '"1"'}
    path = "/projects/default"
    replies = _at_once(lambda n: api.patch(path, {"description": str(n)}, headers=headers))
    assert sorted(reply.status for reply in replies) == [200] + [412] * (AT_ONCE - 1)
    assert api.get(path).body["version"] == 2


def test_failed_log_ins_are_all_counted(api: Api) -> None:
    api.post("/users", {"name": "alice", "password": "correct horse battery"})
    body = {"name": "alice", "password": "wrong"}
    _at_once(lambda _: api.as_token(None).post("/login", body))
    assert api.get("/users/alice").body["locked_until"] is not None
    failures = api.get("/events", type="user.login_failed").body["items"]
    assert len(failures) >= 5


def test_a_disk_is_read_for_clones_or_for_an_image(api: Api, services: Services) -> None:
    host = PretendHost(services)
    path = "/projects/default/workloads"
    spec = {"name": "web", "kind": "container", "image": "busybox", "state": "stopped"}
    assert api.post(path, spec).status == 202
    host.converge()

    def read(number: int) -> Reply:
        verb = "clone" if number % 2 else "publish"
        return api.post(f"{path}/web/{verb}", {"name": f"n{number}"})

    replies = _at_once(read)
    begun = [reply.body["verb"] for reply in replies if reply.status == 202]
    assert begun in (["publish"], ["clone"] * (AT_ONCE // 2))
    refused = {reply.code for reply in replies if reply.status != 202}
    assert refused <= {"being_published", "being_cloned"}
