"""Law 4, never too much: two web processes on one database, many clients at both, over HTTPS."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fixtures.control_plane import (
    Client,
    Reply,
    Server,
    add_hosts,
    add_images,
    new_control_plane,
    served,
)
from tests.fixtures.postgresql import PostgresqlServer

CLIENTS = 12  # half of them at each web process
HOSTS = 2
VCPUS = 3.0  # of each host; the cluster's overcommit makes 12 of them
VCPUS_EACH = 0.5


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    directory = tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            database: PostgresqlServer = request.getfixturevalue("postgresql")
            name = database.create_database()
            stack.callback(database.drop_database, name)
            url = database.url(name)
        first = new_control_plane(directory, url)
        with first.inventory() as uow:
            add_hosts(uow, HOSTS, vcpus=VCPUS)
            add_images(uow)
        second = first.beside()
        stack.enter_context(served(first, second))
        yield first, second


@pytest.fixture
def api(servers: tuple[Server, Server]) -> Iterator[Client]:
    client = Client(servers[0])
    yield client
    client.close()


def _everywhere(
    servers: tuple[Server, Server], requests: int, body: Callable[[int], tuple[str, Any]]
) -> list[Reply]:
    """``requests`` POSTs to ``body``'s path, by many clients that begin together, at both."""
    replies: list[Reply] = []
    numbers = iter(range(requests))
    barrier = threading.Barrier(CLIENTS)

    def run(server: Server) -> None:
        client = Client(server)
        barrier.wait()
        for number in numbers:
            replies.append(client.call("POST", *body(number)))
        client.close()

    threads = [threading.Thread(target=run, args=(servers[n % 2],)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == requests
    return replies


def _spec(name: str, **more: Any) -> dict[str, Any]:
    resources = {"vcpus": VCPUS_EACH, "memory": "64MiB"}
    return {"name": name, "kind": "container", "image": "busybox", "resources": resources, **more}


def _codes(replies: list[Reply]) -> Counter[str]:
    return Counter("made" if reply.status == 202 else reply.body["code"] for reply in replies)


def _project(api: Client, name: str, **limits: Any) -> str:
    assert api.call("POST", "/projects", {"name": name}).status == 201
    assert api.call("PATCH", f"/projects/{name}/quota", limits).status == 200
    return f"/projects/{name}/workloads"


def test_a_quota_gives_exactly_what_it_has(servers: tuple[Server, Server], api: Client) -> None:
    path = _project(api, "quota", limit_workloads=9)
    replies = _everywhere(servers, 30, lambda n: (path, _spec(f"w{n}", nics=[{}])))
    assert _codes(replies) == {"made": 9, "quota_exceeded": 21}
    for reply in replies:
        if reply.status == 409:
            assert reply.body["explanation"]["exceeded"]["workloads"]["limit"] == 9
    assert api.call("GET", "/projects/quota/quota").body["used_workloads"] == 9
    made = api.call("GET", path + "?limit=500").body["items"]
    addresses = [one for workload in made for nic in workload["nics"] for one in nic["addresses"]]
    assert len(made) == 9
    assert len(addresses) == len(set(addresses)) == 18  # one of each family


def test_claims_never_exceed_the_hosts(servers: tuple[Server, Server], api: Client) -> None:
    """Of several projects, so that no quota's row puts the requests in order."""
    paths = [_project(api, f"claims{n}") for n in range(CLIENTS)]
    replies = _everywhere(servers, 80, lambda n: (paths[n % CLIENTS], _spec(f"c{n}")))
    hosts = api.call("GET", "/hosts").body["items"]
    overcommit = api.call("GET", "/clusters/default").body["overcommit_vcpus"]
    for host in hosts:
        assert host["claimed"]["vcpus"] == host["capacity"]["vcpus"] * overcommit
    everything = api.call("GET", "/workloads?limit=500").body["items"]
    assert len(everything) == HOSTS * VCPUS * overcommit / VCPUS_EACH
    made = sum(workload["project"]["name"].startswith("claims") for workload in everything)
    assert _codes(replies) == {"made": made, "no_placement": 80 - made}
    for reply in replies:
        if reply.status == 409:
            assert reply.body["explanation"]["hosts"] == HOSTS


def test_an_address_and_a_name_have_one_owner(servers: tuple[Server, Server], api: Client) -> None:
    _project(api, "names", limit_volumes=100)
    networks, volumes = "/projects/names/networks", "/projects/names/volumes"
    network = {"name": "n", "ipv4": "10.9.0.0/24"}
    replies = _everywhere(servers, 24, lambda _: (networks, network))
    assert Counter(reply.status for reply in replies) == {201: 1, 409: 23}
    replies = _everywhere(servers, 24, lambda n: (volumes, {"name": f"v{n % 6}", "size": "1GiB"}))
    assert Counter(reply.status for reply in replies) == {201: 6, 409: 18}
    assert api.call("GET", "/projects/names/quota").body["used_volumes"] == 6
