"""Clients of the hub that are slow, broken or malicious: bounded, told, logged, and alone in it.

The hub is a real process, and so is what runs at the other end, behind the agent's stream server.
"""

from __future__ import annotations

import json
import secrets
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.agent.fakes import FakeStorage, desired
from tests.agent.test_streams import RealExecDriver
from tests.bootstrap.raw import connected, eventually, plain, resident, until_closed
from tests.fixtures.control_plane import Server, new_control_plane, served
from tests.store.inventory import Inventory
from virtmgr.agent.streams import StreamServer
from virtmgr.bootstrap.control_plane import authority
from virtmgr.config.settings import Endpoint
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import StreamTicket
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, frame
from virtmgr.enrollment import pki
from virtmgr.ports.driver import Provision
from virtmgr.services.auth import hash_secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECOND_ADDRESS = "127.0.0.2"  # of another client


@dataclass
class Lab:
    """A hub, and a host with one workload."""

    server: Server
    pid: int
    driver: RealExecDriver
    things: Inventory
    workload_id: str

    @property
    def endpoint(self) -> Endpoint:
        return self.server.settings.stream_listen

    def ticket(self, *command: str, life: timedelta = timedelta(minutes=5)) -> str:
        secret = secrets.token_urlsafe(32)
        ticket = StreamTicket(
            id=new_id(),
            secret_hash=hash_secret(secret),
            workload_id=self.workload_id,
            host_id=self.things.host.id,
            user_id=self.things.user.id,
            action="exec",
            parameters={"command": list(command or ("cat",)), "stdin": True},
            expires_at=datetime.now(UTC) + life,
        )
        with self.server.inventory() as uow:
            uow.tickets.add(ticket)
        return secret

    @contextmanager
    def open(self, secret: str, **options: Any) -> Iterator[ClientConnection]:
        with connect(
            f"wss://{self.endpoint}/streams/v1/{secret}",
            ssl=self.server.tls(),
            compression=None,
            close_timeout=1,
            **options,
        ) as connection:
            yield connection

    def end(self, secret: str) -> dict[str, Any]:
        """How a stream ends that nothing is sent on."""
        with self.open(secret) as stream:
            return _end(stream)

    def echoes(self) -> None:
        """Another client, from elsewhere, is served."""
        with self.open(self.ticket("cat"), source_address=(SECOND_ADDRESS, 0)) as stream:
            stream.send(frame(Channel.STDIN, b"hello"))
            assert stream.recv() == frame(Channel.STDOUT, b"hello")
            stream.send(frame(Channel.CLOSE, bytes((Channel.STDIN,))))
            assert _end(stream) == {"exit_code": 0}

    def said(self, what: str) -> int:
        """How often the log has it."""
        return self.server.log.read_text().count(what)


def _end(stream: ClientConnection) -> dict[str, Any]:
    for message in stream:
        assert isinstance(message, bytes)
        if message[0] == Channel.END:
            found: dict[str, Any] = json.loads(message[1:])
            return found
    raise AssertionError("it ended and did not say how")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("streams")
    server = new_control_plane(directory)
    things = Inventory()
    workload = things.make_workload()
    driver, wish = RealExecDriver(), desired(workload.id, spec={"name": "web1"})
    driver.prepare(wish, Provision())
    driver.start(wish, Provision())
    with closing(_agent(server, directory, things.host.id, {workload.id: (driver, wish)})) as agent:
        agent.start()
        things.host.facts = {"stream_url": f"wss://127.0.0.1:{agent.port}"}
        with server.inventory() as uow:
            uow.users.add(things.user)
            uow.projects.add(things.project)
            cluster = uow.clusters.find("default")
            assert cluster is not None
            things.host.cluster_id = workload.cluster_id = cluster.id
            uow.hosts.add(things.host)
            uow.images.add(things.image)
            uow.flush()
            uow.workloads.add(workload)
        with served(server, module="tests.fixtures.impatient_hub") as (pid,):
            yield Lab(server, pid, driver, things, workload.id)
        for session in driver.sessions:
            session.close()


def _agent(server: Server, directory: Path, host_id: str, workloads: Any) -> StreamServer:
    ca = authority(server.settings)
    key = pki.new_key()
    pki.write_private(directory / "host.key", key)
    issued = ca.issue_host(pki.signing_request(key), host_id, ["127.0.0.1"])
    pki.write_private(directory / "host.crt", issued.pem)
    context = pki.server_context(
        directory / "host.crt", directory / "host.key", client_ca=ca.certificate_path
    )
    return StreamServer(
        ("127.0.0.1", 0), context, workloads.get, FakeStorage(directory / "volumes")
    )


@pytest.fixture(autouse=True)
def _others_are_unaffected(lab: Lab) -> Iterator[None]:
    yield
    lab.echoes()
    assert lab.said("Traceback") == 0


def _ws(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    """One frame (RFC 6455, 5.2); its mask is zero."""
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", fin << 7 | opcode, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", fin << 7 | opcode, mask | 126, size)
    else:
        head = struct.pack("!BBQ", fin << 7 | opcode, mask | 127, size)
    return head + (bytes(4) if masked else b"") + payload


def _request(path: str, *fields: str) -> bytes:
    upgrade = (
        *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    return "\r\n".join(
        [f"GET {path} HTTP/1.1", *(fields or ("Host: x",)), *upgrade, "", ""]
    ).encode()


CONTINUATION, TEXT, BINARY, PING = 0, 1, 2, 9
HUGE = LARGEST_MESSAGE + 1
BROKEN = {
    "text": (1003, _ws(TEXT, b"ls")),
    "not UTF-8": (1007, _ws(TEXT, b"\xff\xfe")),
    "too large": (1009, _ws(BINARY, bytes(HUGE))),
    "said to be too large": (1009, b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4)),
    "too large in parts": (
        1009,
        _ws(BINARY, bytes(HUGE // 2), fin=False) + _ws(CONTINUATION, bytes(HUGE // 2 + 1)),
    ),
    "not masked": (1002, _ws(BINARY, b"\0a", masked=False)),
    "reserved opcode": (1002, _ws(5, b"")),
    "ping in parts": (1002, _ws(PING, b"", fin=False)),
    "large ping": (1002, _ws(PING, bytes(200))),
    "part of nothing": (1002, _ws(CONTINUATION, b"a")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_end_the_stream_and_what_runs(lab: Lab, name: str) -> None:
    code, frames = BROKEN[name]
    before = lab.said('"stream_closed"')
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(_request(f"/streams/v1/{lab.ticket('cat')}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        connection.sendall(frames)
        answer = until_closed(connection)
    close = answer.index(b"\x88")
    assert int.from_bytes(answer[close + 2 : close + 4], "big") == code
    eventually(lambda: lab.said('"stream_closed"') > before)
    eventually(lambda: lab.driver.sessions[-1].process.poll() is not None)


def test_tickets_open_one_stream_within_their_time(lab: Lab) -> None:
    used = lab.ticket("true")
    assert lab.end(used) == {"exit_code": 0}
    before = lab.said("ticket_refused")
    refused = [used, lab.ticket(life=timedelta(seconds=-1)), "x", "", "..%2f", "a" * 5000]
    for secret in refused:
        assert lab.end(secret)["code"] == "ticket_refused"
    assert lab.said("ticket_refused") == before + len(refused)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (_request("/streams/v1"), 404),
        (_request("/api/v1/whoami"), 404),
        (_request("/streams/v1/x", "X-A: 1"), 400),
        (_request("/streams/v1/x", "Host: a", "Host: b"), 400),
        (b"GET /streams/v1/x HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (_request("/streams/v1/x", "Host: x", "Origin: https://elsewhere.example"), 403),
    ],
)
def test_other_requests_are_refused(lab: Lab, request_: bytes, status: int) -> None:
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(request_)
        assert until_closed(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000,
    ],
)
def test_what_is_no_request_ends_the_connection(lab: Lab, garbage: bytes) -> None:
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(garbage)
        assert b" 101 " not in until_closed(connection)


def test_slow_handshakes_and_requests_end(lab: Lab) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(plain(lab.endpoint))
        half = stack.enter_context(plain(lab.endpoint))
        half.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a TLS hello
        http = stack.enter_context(plain(lab.endpoint))
        http.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        idle = stack.enter_context(connected(lab.server, lab.endpoint))
        head = stack.enter_context(connected(lab.server, lab.endpoint))
        head.sendall(b"GET /streams/v1/x HTTP/1.1\r\nX-A: ")
        lab.echoes()
        for connection in (silent, half, http, idle, head):
            assert b" 101 " not in until_closed(connection)


def test_one_client_cannot_take_every_connection(lab: Lab) -> None:
    refused = "connections already"
    before = lab.said(refused)
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(plain(lab.endpoint)).sendall(b"\x16")
        eventually(lambda: lab.said(refused) > before)
        lab.echoes()
    eventually(lambda: _opens(lab))  # they are counted down again


def _opens(lab: Lab) -> bool:
    try:
        return lab.end(lab.ticket("true")) == {"exit_code": 0}
    except (OSError, ConnectionClosed):
        return False


def test_one_user_cannot_take_every_stream(lab: Lab) -> None:
    with ExitStack() as stack:
        for _ in range(5):
            stream = stack.enter_context(lab.open(lab.ticket("cat")))
            stream.send(frame(Channel.STDIN, b"a"))
            assert stream.recv()
        assert lab.end(lab.ticket("true"))["code"] == "too_many_streams"
    eventually(lambda: lab.end(lab.ticket("true")) == {"exit_code": 0})


def _read_on(stream: ClientConnection) -> None:
    while True:
        stream.recv()


def _send_on(stream: ClientConnection) -> None:
    while True:
        stream.send(frame(Channel.STDIN, bytes(60_000)))
        time.sleep(0.001)  # or it never gets round to reading


def _fill(connection: ssl.SSLSocket) -> None:
    while True:
        connection.sendall(_ws(BINARY, frame(Channel.STDIN, bytes(60_000))))


def test_a_client_that_does_not_read_is_dropped(lab: Lab) -> None:
    memory = resident(lab.pid)
    before = lab.said('"stream_not_read"')
    with lab.open(lab.ticket("cat", "/dev/zero"), max_queue=1) as stream:
        eventually(lambda: lab.said('"stream_not_read"') > before)
        assert resident(lab.pid) - memory < 64 * 2**20
        lab.echoes()
        with pytest.raises(ConnectionClosed):
            _read_on(stream)
    eventually(lambda: lab.driver.sessions[-2].process.poll() is not None)


def test_a_client_that_leaves_ends_what_does_not_read(lab: Lab) -> None:
    memory = resident(lab.pid)
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(_request(f"/streams/v1/{lab.ticket('sleep', '1000')}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            _fill(connection)
        assert resident(lab.pid) - memory < 64 * 2**20
    session = lab.driver.sessions[-1]
    eventually(lambda: session.process.poll() is not None)


def test_the_end_is_told_to_a_client_that_still_sends(lab: Lab) -> None:
    for _ in range(5):
        with lab.open(lab.ticket("head", "-c", "100000")) as stream:
            with pytest.raises(ConnectionClosed):
                _send_on(stream)
            assert _end(stream) == {"exit_code": 0}
