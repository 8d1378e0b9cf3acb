"""A real hub in front of an agent's real stream server, and what ill-behaved clients send it."""

from __future__ import annotations

import json
import secrets
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.agent.fakes import FakeStorage, desired
from tests.agent.test_streams import RealExecDriver
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

SECOND_ADDRESS = "127.0.0.2"  # of another client


@dataclass
class Lab:
    """A hub, and a host with one workload."""

    server: Server
    pid: int
    driver: RealExecDriver
    things: Inventory
    workload_id: str
    endpoint: Endpoint  # where clients open streams

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
            return end_of(stream)

    def echoes(self) -> None:
        """Another client, from elsewhere, is served."""
        with self.open(self.ticket("cat"), source_address=(SECOND_ADDRESS, 0)) as stream:
            stream.send(frame(Channel.STDIN, b"hello"))
            assert stream.recv() == frame(Channel.STDOUT, b"hello")
            stream.send(frame(Channel.CLOSE, bytes((Channel.STDIN,))))
            assert end_of(stream) == {"exit_code": 0}

    def said(self, what: str) -> int:
        """How often the log has it."""
        return self.server.log.read_text().count(what)


def end_of(stream: ClientConnection) -> dict[str, Any]:
    for message in stream:
        assert isinstance(message, bytes)
        if message[0] == Channel.END:
            found: dict[str, Any] = json.loads(message[1:])
            return found
    raise AssertionError("it ended and did not say how")


@contextmanager
def stream_lab(directory: Path) -> Iterator[Lab]:
    """Running until the block ends; its endpoint is the hub's."""
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
            yield Lab(server, pid, driver, things, workload.id, server.settings.stream_listen)
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


def websocket_frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
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


def upgrade_request(path: str, *fields: str) -> bytes:
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
    "text": (1003, websocket_frame(TEXT, b"ls")),
    "not UTF-8": (1007, websocket_frame(TEXT, b"\xff\xfe")),
    "too large": (1009, websocket_frame(BINARY, bytes(HUGE))),
    "said to be too large": (1009, b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4)),
    "too large in parts": (
        1009,
        websocket_frame(BINARY, bytes(HUGE // 2), fin=False)
        + websocket_frame(CONTINUATION, bytes(HUGE // 2 + 1)),
    ),
    "not masked": (1002, websocket_frame(BINARY, b"\0a", masked=False)),
    "reserved opcode": (1002, websocket_frame(5, b"")),
    "ping in parts": (1002, websocket_frame(PING, b"", fin=False)),
    "large ping": (1002, websocket_frame(PING, bytes(200))),
    "part of nothing": (1002, websocket_frame(CONTINUATION, b"a")),
}
