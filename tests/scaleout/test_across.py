"""Whichever process serves: what one control plane does is seen, woken and opened at others."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from tests.fixtures.control_plane import Client
from tests.fixtures.processes import Process, processes
from tests.scaleout.client import Follower, wait_until
from tests.scaleout.plane import Installation, Plane, installation
from virtmgr.domain.streaming import Channel

pytestmark = [pytest.mark.slow, pytest.mark.postgresql, pytest.mark.timeout(1200)]

_ALL = "/projects/default/workloads"
_BODY = {
    "kind": "container",
    "image": "busybox",
    "resources": {"vcpus": 0.1, "memory": "64MiB"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(
        tmp_path_factory.mktemp("across"), planes=2, hosts=1, web_processes=2
    ) as made:
        yield made


@pytest.fixture
def clients(place: Installation) -> Iterator[list[Client]]:
    made = [Client(plane.server) for plane in place.planes]
    yield made
    for client in made:
        client.close()


def test_hosts_are_woken_wherever_they_wait(clients: list[Client]) -> None:
    """The one agent waits at one of them. Were it not woken by the other, each create there would
    take as long as an idle agent takes to sync by itself: seconds."""
    took: list[list[float]] = [[], []]
    for number in range(10):
        began = time.monotonic()
        reply = clients[number % 2].call(
            "POST", f"{_ALL}?wait=20", {"name": f"woken{number}", **_BODY}
        )
        took[number % 2].append(time.monotonic() - began)
        assert reply.status == 200, reply.body
    medians = [sorted(times)[len(times) // 2] for times in took]
    assert max(medians) < 4 + 4 * min(medians), took


def test_a_ticket_of_one_opens_a_stream_at_another(
    place: Installation, clients: list[Client]
) -> None:
    assert clients[0].call("POST", f"{_ALL}?wait=20", {"name": "exec", **_BODY}).status == 200
    for issuer, opener in ((0, 1), (1, 0)):
        body = {"command": ["echo", "hello"]}
        reply = clients[issuer].call("POST", f"{_ALL}/exec/exec", body)
        assert reply.status in (200, 201), reply.body
        path = urlsplit(reply.body["url"]).path
        server = place.planes[opener].server
        url = f"wss://{server.settings.stream_listen}{path}"
        with connect(url, ssl=server.tls(), compression=None) as stream:
            messages = [message for message in stream if isinstance(message, bytes)]
        output = b"".join(m[1:] for m in messages if m[0] == Channel.STDOUT)
        assert output == b"hello\n"
        assert json.loads(messages[-1][1:]) == {"exit_code": 0}


def test_events_reach_those_who_follow_elsewhere(
    place: Installation, clients: list[Client]
) -> None:
    follower = Follower(place.planes[1].server)
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    assert clients[0].call("POST", "/projects", {"name": "followed"}).status == 201
    with place.api.inventory() as uow:
        last = uow.events.last_sequence()
    follower.stop_at(last)
    clients[0].call("POST", "/projects", {"name": "followed2"})
    thread.join()
    assert follower.sequences == sorted(set(follower.sequences))


def test_one_of_several_web_processes_is_replaced_when_it_dies(place: Installation) -> None:
    plane = place.planes[0]
    first, other = _web_workers(plane)
    first.signal(signal.SIGKILL)
    wait_until(lambda: len(_web_workers(plane)) == 2 and not first.is_there())
    assert other in _web_workers(plane)
    for _ in range(10):
        with closing(Client(plane.server)) as client:
            assert client.call("GET", "/projects").status == 200


def _web_workers(plane: Plane) -> list[Process]:
    """The processes that serve; their parent, gunicorn's arbiter, only watches them."""
    assert plane.process is not None
    web = processes("virtmgr.bootstrap.web")
    (arbiter,) = (one for one in web if one.parent == plane.process.pid)
    return [one for one in web if one.parent == arbiter.pid]


def test_another_one_leads_when_the_leader_dies(place: Installation) -> None:
    wait_until(lambda: place.leader() != "None")
    leader = place.leader()
    pid = int(leader.split(":")[1])
    victim = next(
        plane for plane in place.planes if plane.process and _is_below(pid, plane.process.pid)
    )
    victim.kill()
    began = time.monotonic()
    wait_until(lambda: place.leader() != leader)
    print(f"another one leads after {time.monotonic() - began:.1f} s")
    victim.start()


def _is_below(pid: int, parent: int) -> bool:
    return any(one.pid == pid and one.parent == parent for one in processes())
