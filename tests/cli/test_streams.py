"""exec, console and vnc over real WebSockets, on real terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.cli.conftest import Run
from tests.cli.fake_server import TOKEN, FakeServer, State

Handler = Callable[[ServerConnection], None]
SECONDS = 20
MAIN = (sys.executable, "-u", "-c", "from virtmgr.cli.main import main; main()")


@contextmanager
def streams(state: State, handler: Handler) -> Iterator[list[dict[str, str]]]:
    """A stream listener whose connections ``handler`` serves; the headers that it was sent."""
    headers: list[dict[str, str]] = []

    def noted(connection: ServerConnection) -> None:
        assert connection.request is not None
        headers.append({key.lower(): value for key, value in connection.request.headers.items()})
        handler(connection)

    with serve(noted, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            state.stream_url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/streams/v1/T"
            yield headers
        finally:
            server.shutdown()
            thread.join()


def end(connection: ServerConnection, told: dict[str, Any]) -> None:
    connection.send(b"\x03" + json.dumps(told).encode())


def messages(connection: ServerConnection) -> Iterator[bytes]:
    for message in connection:
        assert isinstance(message, bytes)
        yield message


class Terminal:
    """virtmgr on a terminal of its own."""

    def __init__(self, server: FakeServer, *arguments: str) -> None:
        self.descriptor, inner = pty.openpty()
        self.resize(40, 100)
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        self.process = subprocess.Popen(
            [*MAIN, *arguments],
            env=environment(server),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        self.seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.descriptor)
        os.close(self.inner)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def read_until(self, text: bytes) -> None:
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            ready, _, _ = select.select([self.descriptor], [], [], 0.1)
            if ready:
                self.seen += os.read(self.descriptor, 65536)
            assert time.monotonic() < deadline, self.seen

    def wait(self) -> int:
        return self.process.wait(SECONDS)


def environment(server: FakeServer) -> dict[str, str]:
    return {
        "VIRTMGR_CONFIG": "/nonexistent",
        "VIRTMGR_SERVER": server.url,
        "VIRTMGR_TOKEN": TOKEN,
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path.cwd())]),
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
    }


def run(server: FakeServer, *arguments: str, stdin: bytes = b"") -> Any:
    return subprocess.run(
        [*MAIN, *arguments],
        env=environment(server),
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )


def test_exec_passes_streams_and_exit_code(server: FakeServer, state: State) -> None:
    def handler(connection: ServerConnection) -> None:
        got = b""
        for message in messages(connection):
            if message == b"\xff\x00":
                break
            got += message[1:]
        connection.send(b"\x01" + got.upper())
        connection.send(b"\x02" + b"a warning\n")
        end(connection, {"exit_code": 42})

    with streams(state, handler) as headers:
        done = run(server, "exec", "-i", "web1", "--", "tr", "-d", "x", stdin=b"hello\n" * 20000)
    assert done.returncode == 42, done.stderr
    assert done.stdout == b"HELLO\n" * 20000
    assert done.stderr == b"a warning\n"
    assert "authorization" not in headers[0]
    assert state.requests[0][2] == {"command": ["tr", "-d", "x"], "tty": False, "stdin": True}
    assert "idempotency-key" not in state.requests[0][3]


def test_exec_needs_no_dashes_and_leaves_options_alone(server: FakeServer, state: State) -> None:
    with streams(state, lambda connection: end(connection, {"exit_code": 0})):
        assert run(server, "exec", "web1", "ls", "-l").returncode == 0
    assert state.requests[0][2]["command"] == ["ls", "-l"]


def test_exec_problem_and_broken_stream(server: FakeServer, state: State) -> None:
    told = {"code": "illegal_transition", "detail": "web1 is stopped", "hint": "start it"}
    with streams(state, lambda connection: end(connection, told)):
        done = run(server, "exec", "web1", "--", "true")
    assert done.returncode == 4
    assert done.stderr == b"error: web1 is stopped\nhint: start it\n"
    with streams(state, lambda connection: connection.close()):
        assert run(server, "exec", "web1", "--", "true").returncode == 6
    assert run(server, "exec", "web1", "--", "true").returncode == 6  # nobody listens


def test_exec_on_a_terminal(server: FakeServer, state: State) -> None:
    """Keys go over raw, the window's size follows, and the terminal is as it was afterwards."""
    sizes: list[dict[str, int]] = []

    def handler(connection: ServerConnection) -> None:
        connection.send(b"\x01ready")
        for message in messages(connection):
            if message[0] == 4:
                sizes.append(json.loads(message[1:]))
                connection.send(b"\x01resized")
            elif message == b"\x00\x03":  # ctrl-c does not end virtmgr: the other side has it
                connection.send(b"\x01interrupted")
            elif message[1:] == b"q":
                end(connection, {"exit_code": 7})
            else:
                connection.send(b"\x01" + message[1:].upper())

    with streams(state, handler), Terminal(server, "exec", "-it", "web1", "--", "sh") as terminal:
        terminal.read_until(b"ready")
        terminal.type(b"abc")
        terminal.read_until(b"ABC")
        terminal.type(b"\x03")
        terminal.read_until(b"interrupted")
        terminal.resize(50, 132)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.read_until(b"resized")
        terminal.type(b"q")
        assert terminal.wait() == 7
        assert termios.tcgetattr(terminal.inner) == terminal.before
        assert b"abc" not in terminal.seen  # raw: no local echo
    assert sizes[-1] == {"rows": 50, "columns": 132}
    body = state.requests[0][2]
    assert (body["tty"], body["rows"], body["columns"]) == (True, 40, 100)


def test_console_leaves_on_its_escape_key(server: FakeServer, state: State) -> None:
    left = threading.Event()

    def handler(connection: ServerConnection) -> None:
        connection.send(b"\x01login: ")
        for message in messages(connection):
            if message[0] == 0:
                connection.send(b"\x01<" + message[1:] + b">")
        left.set()

    with streams(state, handler), Terminal(server, "console", "vm1") as terminal:
        terminal.read_until(b"login: ")
        terminal.type(b"root\r")
        terminal.read_until(b"\r>")
        terminal.type(b"\x1d")
        terminal.read_until(b"Disconnected.")
        assert terminal.wait() == 0
        assert termios.tcgetattr(terminal.inner) == terminal.before
        assert left.wait(SECONDS)


def test_console_reads_from_a_pipe(server: FakeServer, state: State) -> None:
    def handler(connection: ServerConnection) -> None:
        for message in messages(connection):
            if message == b"\xff\x00":
                return
            connection.send(b"\x01" + message[1:])

    with streams(state, handler):
        done = run(server, "console", "vm1", stdin=b"hello")
    assert (done.returncode, done.stdout) == (0, b"hello")


def test_vnc_bridges_a_local_port(server: FakeServer, state: State) -> None:
    state.workload("vm1", kind="vm")

    def handler(connection: ServerConnection) -> None:
        connection.send(b"\x01RFB 003.008\n")
        for message in messages(connection):
            connection.send(b"\x01" + message[1:][::-1])

    with streams(state, handler):
        process = subprocess.Popen(
            [*MAIN, "vnc", "vm1", "--once"],
            env=environment(server),
            stdout=subprocess.PIPE,
        )
        with process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().decode().strip()
                port = int(url.removeprefix("vnc://127.0.0.1:"))
                with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as viewer:
                    assert viewer.recv(12, socket.MSG_WAITALL) == b"RFB 003.008\n"
                    viewer.sendall(b"abc")
                    assert viewer.recv(3, socket.MSG_WAITALL) == b"cba"
                assert process.wait(SECONDS) == 0
            finally:
                process.kill()


def test_progress_is_drawn_for_who_watches(server: FakeServer, state: State) -> None:
    state.workload("web1")
    steps = [{"state": "running", "progress": n / 9, "message": "fetching"} for n in range(9)]
    state.answers.append(
        lambda: state.operation("start", "web1", *steps, {"state": "succeeded", "progress": 1.0})
    )
    with Terminal(server, "start", "web1") as terminal:
        terminal.read_until(b"fetching")
        terminal.read_until(b"workload web1 started")
        assert terminal.wait() == 0
    assert "fetching" not in run(server, "start", "web1").stdout.decode()


@pytest.mark.parametrize("verb", ["exec", "console"])
def test_streams_of_what_is_not_there(virtmgr: Run, state: State, verb: str) -> None:
    from tests.cli.fake_server import problem

    state.answers.append(problem(404, "not_found", "there is no workload x"))
    command = ("--", "true") if verb == "exec" else ()
    assert virtmgr(verb, "x", *command).exit_code == 3
