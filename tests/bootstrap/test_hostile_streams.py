"""Clients of the hub that are slow, broken or malicious: bounded, told, logged, and alone in it.

The hub is a real process, and so is what runs at the other end, behind the agent's stream server.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.bootstrap.raw import connected, eventually, plain, resident, until_closed
from tests.bootstrap.stream_lab import (
    BINARY,
    BROKEN,
    Lab,
    end_of,
    stream_lab,
    upgrade_request,
    websocket_frame,
)
from virtmgr.domain.streaming import Channel, frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with stream_lab(tmp_path_factory.mktemp("streams")) as found:
        yield found


@pytest.fixture(autouse=True)
def _others_are_unaffected(lab: Lab) -> Iterator[None]:
    yield
    lab.echoes()
    assert lab.said("Traceback") == 0


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_end_the_stream_and_what_runs(lab: Lab, name: str) -> None:
    code, frames = BROKEN[name]
    before, begun = lab.said('"stream_closed"'), len(lab.driver.sessions)
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(upgrade_request(f"/streams/v1/{lab.ticket('cat')}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        eventually(lambda: len(lab.driver.sessions) > begun)
        with suppress(ssl.SSLEOFError, ConnectionError):  # its head alone may end the stream
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
        (upgrade_request("/streams/v1"), 404),
        (upgrade_request("/api/v1/whoami"), 404),
        (upgrade_request("/streams/v1/x", "X-A: 1"), 400),
        (upgrade_request("/streams/v1/x", "Host: a", "Host: b"), 400),
        (b"GET /streams/v1/x HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (upgrade_request("/streams/v1/x", "Host: x", "Origin: https://elsewhere.example"), 403),
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
        connection.sendall(websocket_frame(BINARY, frame(Channel.STDIN, bytes(60_000))))


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
        connection.sendall(upgrade_request(f"/streams/v1/{lab.ticket('sleep', '1000')}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            _fill(connection)
        assert resident(lab.pid) - memory < 64 * 2**20
    session = lab.driver.sessions[-1]
    eventually(lambda: session.process.poll() is not None)


def test_the_end_is_told_to_a_client_that_still_sends(lab: Lab) -> None:
    for _ in range(5):
        # Without a limit to its queue: what it does not take from there would stop its reading.
        with lab.open(lab.ticket("head", "-c", "100000"), max_queue=None) as stream:
            with pytest.raises(ConnectionClosed):
                _send_on(stream)
            assert end_of(stream) == {"exit_code": 0}
