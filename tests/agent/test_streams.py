"""The stream server over real TLS, dialled as the control plane dials it."""

from __future__ import annotations

import io
import json
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_RDWR, socket, socketpair
from typing import Any, BinaryIO

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.agent.fakes import FakeStorage, desired, eventually
from tests.fixtures.from_the_future import UNKNOWN
from virtmgr.agent.streams import StreamServer
from virtmgr.domain.streaming import Channel, StreamRequest, frame
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.drivers.fake.driver import FakeDriver
from virtmgr.enrollment import pki
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.ports.driver import (
    ExecRequest,
    ExecSession,
    Provision,
    RuntimeState,
    WorkloadDriver,
)


class ProcessSession:
    """A command that really runs, on this machine."""

    def __init__(self, request: ExecRequest) -> None:
        self.process = subprocess.Popen(
            request.command,
            stdin=subprocess.PIPE if request.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdout is not None
        self.stdin: BinaryIO | None = self.process.stdin  # type: ignore[assignment]
        self.stdout: BinaryIO = self.process.stdout  # type: ignore[assignment]
        self.stderr: BinaryIO | None = self.process.stderr  # type: ignore[assignment]
        self.sizes: list[tuple[int, int]] = []

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def wait(self) -> int:
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                file.close()


class RealExecDriver(FakeDriver):
    """The fake driver, but what is run inside is real, and a console that tests hold."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[ProcessSession] = []
        self.consoles: list[socket] = []

    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession:
        del workload_id
        self.sessions.append(ProcessSession(request))
        return self.sessions[-1]

    def console(self, workload_id: str) -> socket:
        del workload_id
        ours, theirs = socketpair()
        self.consoles.append(ours)
        return theirs


@dataclass
class Lab:
    """A stream server with one workload, and certificates of everybody."""

    driver: RealExecDriver
    server: StreamServer
    ca: CertificateAuthority
    control_plane: ssl.SSLContext
    host: ssl.SSLContext
    known: dict[str, tuple[WorkloadDriver, DesiredWorkload]]  # what is desired on the host

    @contextmanager
    def dial(
        self, action: str, workload_id: str = "w1", **parameters: Any
    ) -> Iterator[ClientConnection]:
        request = StreamRequest(workload_id=workload_id, action=action, parameters=parameters)
        with self.connect(self.control_plane) as connection:
            connection.send(request.model_dump_json())
            yield connection

    def connect(self, context: ssl.SSLContext) -> ClientConnection:
        return connect(f"wss://127.0.0.1:{self.server.port}", ssl=context, compression=None)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    ca = CertificateAuthority(tmp_path / "ca")
    ca.create()
    key = pki.new_key()
    issued = ca.issue_host(pki.signing_request(key), "host-1", ["127.0.0.1"])
    pki.write_private(tmp_path / "host.key", key)
    pki.write_private(tmp_path / "host.crt", issued.pem)
    host = (tmp_path / "host.crt", tmp_path / "host.key")
    driver, workload = RealExecDriver(), desired()
    driver.prepare(workload, Provision())
    driver.start(workload, Provision())
    found: dict[str, tuple[WorkloadDriver, DesiredWorkload]] = {workload.id: (driver, workload)}
    with closing(
        StreamServer(
            ("127.0.0.1", 0),
            pki.server_context(*host, client_ca=ca.certificate_path),
            found.get,
            FakeStorage(tmp_path / "volumes"),
        )
    ) as server:
        server.start()
        yield Lab(
            driver,
            server,
            ca,
            pki.client_context(ca.certificate_path, *ca.ensure_server(["127.0.0.1"])),
            pki.client_context(ca.certificate_path, *host),
            found,
        )
    for session in driver.sessions:
        session.close()
    for console in driver.consoles:
        console.close()


def read_all(connection: ClientConnection) -> tuple[dict[int, bytes], dict[str, Any]]:
    """What came on each channel, and how it ended."""
    channels: dict[int, bytes] = {}
    while True:
        message = connection.recv(timeout=15)
        assert isinstance(message, bytes)
        if message[0] == Channel.END:
            return channels, json.loads(message[1:])
        channels[message[0]] = channels.get(message[0], b"") + message[1:]


def send_in_background(connection: ClientConnection, messages: list[bytes]) -> threading.Thread:
    def send() -> None:
        for message in messages:
            connection.send(message)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


# ---- exec


def test_exec_carries_input_output_errors_and_the_exit_code(lab: Lab) -> None:
    command = ["sh", "-c", "cat; echo done >&2; exit 7"]
    with lab.dial("exec", command=command, stdin=True) as connection:
        connection.send(frame(Channel.STDIN, b"hello "))
        connection.send(frame(Channel.STDIN, b"world"))
        connection.send(frame(Channel.RESIZE, b'{"rows": 50, "columns": 120}'))
        connection.send(frame(Channel.CLOSE, bytes((Channel.STDIN,))))
        channels, result = read_all(connection)
    assert channels == {Channel.STDOUT: b"hello world", Channel.STDERR: b"done\n"}
    assert result == {"exit_code": 7}
    assert lab.driver.sessions[0].sizes == [(50, 120)]


def test_what_a_newer_control_plane_says_of_a_command_beyond_ours_is_ignored(lab: Lab) -> None:
    with lab.dial("exec", command=["echo", "done"], **{UNKNOWN: 1}) as connection:
        channels, result = read_all(connection)
    assert channels == {Channel.STDOUT: b"done\n"}
    assert result == {"exit_code": 0}


def test_much_data_goes_both_ways_unchanged(lab: Lab) -> None:
    content = bytes(range(256)) * 8192
    pieces = [content[i : i + 60000] for i in range(0, len(content), 60000)]
    messages = [frame(Channel.STDIN, piece) for piece in pieces]
    messages.append(frame(Channel.CLOSE, bytes((Channel.STDIN,))))
    with lab.dial("exec", command=["cat"], stdin=True) as connection:
        sender = send_in_background(connection, messages)
        channels, result = read_all(connection)
        sender.join()
    assert channels[Channel.STDOUT] == content
    assert result == {"exit_code": 0}


def test_a_command_that_a_signal_ended_says_which(lab: Lab) -> None:
    with lab.dial("exec", command=["sh", "-c", "kill -TERM $$"]) as connection:
        assert read_all(connection) == ({}, {"exit_code": 143})


def test_input_for_a_command_that_closed_it_does_no_harm(lab: Lab) -> None:
    command = ["sh", "-c", "exec <&-; sleep 0.2; echo on"]
    with lab.dial("exec", command=command, stdin=True) as connection:
        for _ in range(5):
            connection.send(frame(Channel.STDIN, b"x" * 70000))
        assert read_all(connection) == ({Channel.STDOUT: b"on\n"}, {"exit_code": 0})


@pytest.mark.parametrize("how", ["goodbye", "cut"])
def test_a_command_ends_when_its_client_goes(lab: Lab, how: str) -> None:
    with lab.dial("exec", command=["sleep", "600"], stdin=True) as connection:
        eventually(lambda: len(lab.driver.sessions) == 1)
        if how == "cut":
            connection.socket.shutdown(SHUT_RDWR)
    eventually(lambda: lab.driver.sessions[0].process.poll() is not None)


@pytest.mark.parametrize(
    "nonsense", [frame(Channel.RESIZE, b"{}"), frame(Channel.RESIZE, b"\xff"), b"", "text"]
)
def test_nonsense_ends_the_stream_and_the_command(lab: Lab, nonsense: bytes | str) -> None:
    with lab.dial("exec", command=["sleep", "600"], stdin=True) as connection:
        connection.send(nonsense)
        _, result = read_all(connection)
    assert result["code"] == "invalid_request"
    eventually(lambda: lab.driver.sessions[0].process.poll() is not None)


# ---- console


def test_a_console_is_a_pipe_both_ways_until_the_workload_ends_it(lab: Lab) -> None:
    with lab.dial("console") as connection:
        eventually(lambda: len(lab.driver.consoles) == 1)
        console = lab.driver.consoles[0]
        console.settimeout(15)
        connection.send(frame(Channel.STDIN, b"root\n"))
        assert console.recv(100) == b"root\n"
        console.sendall(b"Password: ")
        assert connection.recv(timeout=15) == frame(Channel.STDOUT, b"Password: ")
        console.close()
        assert read_all(connection) == ({}, {"exit_code": 0})


@pytest.mark.parametrize("how", ["goodbye", "cut"])
def test_a_console_is_let_go_when_its_client_goes(lab: Lab, how: str) -> None:
    with lab.dial("console") as connection:
        eventually(lambda: len(lab.driver.consoles) == 1)
        if how == "cut":
            connection.socket.shutdown(SHUT_RDWR)
    lab.driver.consoles[0].settimeout(15)
    assert lab.driver.consoles[0].recv(1) == b""


# ---- logs and files


def test_logs_come_as_they_are_and_as_they_grow(lab: Lab) -> None:
    lab.driver.world.say("w1", "one\ntwo\n")
    with lab.dial("logs", tail=2) as connection:
        assert read_all(connection) == ({Channel.STDOUT: b"one\ntwo\n"}, {"exit_code": 0})
    with lab.dial("logs", tail=1, follow=True) as connection:
        assert connection.recv(timeout=15) == frame(Channel.STDOUT, b"two\n")
        lab.driver.world.say("w1", "three\n")
        assert connection.recv(timeout=15) == frame(Channel.STDOUT, b"three\n")
        lab.driver.world.remove("w1")
        assert read_all(connection) == ({}, {"exit_code": 0})


def test_files_go_in_and_out_as_tar(lab: Lab) -> None:
    content = b"content " * 30000
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with lab.dial("push", path="/data") as connection:
        data = archive.getvalue()
        for start in range(0, len(data), 65536):
            connection.send(frame(Channel.STDIN, data[start : start + 65536]))
        connection.send(frame(Channel.CLOSE, bytes((Channel.STDIN,))))
        assert read_all(connection) == ({}, {"exit_code": 0})
    with lab.dial("pull", path="/data/file") as connection:
        channels, result = read_all(connection)
    assert result == {"exit_code": 0}
    with tarfile.open(fileobj=io.BytesIO(channels[Channel.STDOUT])) as tar:
        extracted = tar.extractfile("file")
        assert extracted is not None
        assert extracted.read() == content


# ---- refusals


@pytest.mark.parametrize(
    ("action", "workload_id", "parameters", "code"),
    [
        ("exec", "unknown", {"command": ["true"]}, "not_found"),
        ("dance", "w1", {}, "invalid_request"),
        ("vnc", "w1", {}, "unsupported"),
        ("pull", "w1", {"path": "/nothing"}, "not_found"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(
    lab: Lab, action: str, workload_id: str, parameters: dict[str, Any], code: str
) -> None:
    with lab.dial(action, workload_id, **parameters) as connection:
        channels, result = read_all(connection)
    assert channels == {}
    assert result["code"] == code
    assert result["detail"]


def test_errors_name_the_workload_as_people_do(lab: Lab) -> None:
    known = desired("01997d2e-7c1e-7aaa-8000-000000000001", spec={"name": "web"}, name="web")
    lab.known[known.id] = (lab.driver, known)
    with lab.dial("push", known.id, path="/data") as connection:
        assert read_all(connection)[1]["detail"] == "workload web is not on this host"
    request = StreamRequest(workload_id="w9", action="logs", parameters={}, workload_name="db")
    with lab.connect(lab.control_plane) as connection:
        connection.send(request.model_dump_json())
        assert "'db' is not on this host" in read_all(connection)[1]["detail"]


def test_a_stopped_workload_has_no_files_to_lose(lab: Lab) -> None:
    """An error in the middle of a stream ends it with a problem, not with silence."""
    lab.driver.world.remove("w1")
    with lab.dial("push", path="/data") as connection:
        assert read_all(connection)[1]["code"] == "driver_error"
    assert lab.driver.inspect("w1").state is RuntimeState.ABSENT


def test_another_host_may_not_open_streams(lab: Lab) -> None:
    with lab.connect(lab.host) as connection:
        _, result = read_all(connection)
        assert result["code"] == "not_found"
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=15)
    assert lab.driver.sessions == []


def test_strangers_do_not_even_get_to_speak(lab: Lab, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other")
    other.create()
    certificate, key = other.ensure_server(["127.0.0.1"])
    for context in (
        pki.client_context(lab.ca.certificate_path),
        pki.client_context(lab.ca.certificate_path, certificate, key),
    ):
        with pytest.raises((OSError, EOFError, WebSocketException)):
            lab.connect(context).close()
