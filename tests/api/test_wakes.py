"""The long poll of hosts, over real connections with client certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from select import select
from socket import create_connection
from ssl import SSLSocket

import httpx2 as httpx
import pytest

from tests.fixtures.control_plane import Client, Server, new_control_plane, served
from tests.fixtures.enrolled_host import TOOLS, enrol_another_machine
from virtmgr.agent.identity import Identity, client_context
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import SyncRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("host")]

PATH = "/agent/v1/wake"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = new_control_plane(tmp_path_factory.mktemp("control-plane"))
    with served(server):
        yield server


@pytest.fixture
def identity(server: Server, tmp_path: Path) -> Identity:
    """Of a host that has enrolled."""
    return enrol_another_machine(server, tmp_path / "host", f"host-{new_id()[-8:]}")[0]


@pytest.fixture
def raw(server: Server, identity: Identity) -> Iterator[SSLSocket]:
    """A connection of the host, and nothing above TLS."""
    address = (server.settings.agent_listen.host, server.settings.agent_listen.port)
    with create_connection(address, 30) as plain:
        context = client_context(identity, TOOLS)
        with context.wrap_socket(plain, server_hostname=address[0]) as connection:
            yield connection


def _poll(revision: int, timeout: float, fields: str = "") -> bytes:
    line = f"GET {PATH}?revision={revision}&timeout={timeout} HTTP/1.1"
    return f"{line}\r\nHost: here\r\n{fields}\r\n".encode()


def _answer(connection: SSLSocket) -> tuple[str, bytes]:
    """Head, in small letters, and body of what is answered next."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    fields = head.decode().lower()
    length = int(fields.partition("content-length: ")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65536)
    return fields, body


@pytest.fixture
def host(identity: Identity) -> Iterator[httpx.Client]:
    """Calls as a host that has synced."""
    context = client_context(identity, TOOLS)
    with httpx.Client(base_url=identity.server, verify=context, timeout=30) as client:
        sync = SyncRequest(full=True).model_dump(mode="json", exclude_unset=True)
        assert client.post("/agent/v1/sync", json=sync).status_code == 200
        yield client


def _revision(server: Server) -> int:
    with server.inventory() as uow:
        return max(host.revision for host in uow.hosts.all())


def test_a_poll_that_nothing_ends_lasts_its_time(server: Server, host: httpx.Client) -> None:
    asked = {"revision": _revision(server), "timeout": 0.2}
    assert host.get(PATH, params=asked).json() == {"wake": False}


def test_a_poll_for_what_is_known_to_be_newer_ends_at_once(host: httpx.Client) -> None:
    answer = host.get(PATH, params={"revision": -1, "timeout": 60})
    assert answer.json() == {"wake": True}
    assert answer.headers["Content-Type"] == "application/json"


def test_what_is_no_number_is_taken_as_if_it_were_not_there(host: httpx.Client) -> None:
    for nonsense in ("nan", "inf", "-inf", "1e999", "x", ""):
        answer = host.get(PATH, params={"revision": -1, "timeout": nonsense, "renew": nonsense})
        assert (answer.status_code, answer.json()) == (200, {"wake": True}), nonsense
        answer = host.get(PATH, params={"revision": nonsense, "timeout": 0})
        assert answer.status_code == 200, nonsense


def test_a_connection_serves_on_after_a_poll_that_waited(server: Server, raw: SSLSocket) -> None:
    for timeout in (0.2, 0.3, 0):
        raw.sendall(_poll(_revision(server), timeout))
        head, body = _answer(raw)
        assert "connection: keep-alive" in head
        assert json.loads(body) == {"wake": False}
    raw.sendall(_poll(_revision(server), 0.2, "Connection: close\r\n"))
    assert "connection: close" in _answer(raw)[0]
    assert raw.recv(1) == b""


def test_what_is_sent_ahead_of_a_poll_that_waits_is_not_answered(
    server: Server, raw: SSLSocket
) -> None:
    raw.sendall(2 * _poll(_revision(server), 0.2))
    assert "connection: close" in _answer(raw)[0]
    assert raw.recv(1) == b""


def test_a_waiting_host_is_woken(server: Server, raw: SSLSocket) -> None:
    client = Client(server)
    name = client.call("GET", "/hosts?sort=-created_at&limit=1").body["items"][0]["name"]
    raw.sendall(_poll(_revision(server), 60))
    while not select([raw], [], [], 0.5)[0]:  # a hint is lost where the poll has not come yet
        assert client.call("POST", "/images/prune", {"host": name}).status < 300
    client.close()
    assert json.loads(_answer(raw)[1]) == {"wake": True}


def test_nothing_else_is_there(host: httpx.Client) -> None:
    answer = host.post(PATH, json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_host_that_was_removed_is_refused(server: Server, host: httpx.Client) -> None:
    client = Client(server)
    name = client.call("GET", "/hosts?sort=-created_at&limit=1").body["items"][0]["name"]
    assert client.call("DELETE", f"/hosts/{name}?force=true").status < 300
    client.close()
    answer = host.get(PATH, params={"revision": -1, "timeout": 0})
    assert answer.status_code in (401, 403)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["hint"]
