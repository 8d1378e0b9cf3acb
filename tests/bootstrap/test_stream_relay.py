"""Streams through the web process: what passes, what is refused, and that nobody is held up.

Web process, hub and what runs at the other end are real processes.
"""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Thread

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.bootstrap.raw import connected, eventually, resident, until_closed
from tests.bootstrap.stream_lab import (
    BINARY,
    BROKEN,
    Lab,
    stream_lab,
    upgrade_request,
    websocket_frame,
)
from tests.fixtures.control_plane import Client, mortal, served
from virtmgr.domain.streaming import Channel, frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 2**20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        stream_lab(tmp_path_factory.mktemp("relay")) as found,
        served(found.server) as (pid,),
    ):
        yield replace(found, endpoint=found.server.settings.listen, pid=pid)


@pytest.fixture(autouse=True)
def _others_are_unaffected(lab: Lab) -> Iterator[None]:
    yield
    lab.echoes()
    assert lab.said("Traceback") == 0


def _own(lab: Lab, secret: str, *fields: str) -> bytes:
    return upgrade_request(f"/streams/v1/{secret}", *(fields or (f"Host: {lab.endpoint}",)))


def test_much_passes_unharmed_in_both_directions(lab: Lab) -> None:
    with lab.open(lab.ticket("cat")) as stream:
        sent, received = bytes(range(256)) * 256 * 16, b""

        def send() -> None:
            for start in range(0, len(sent), 60_000):
                stream.send(frame(Channel.STDIN, sent[start : start + 60_000]))
            stream.send(frame(Channel.CLOSE, bytes((Channel.STDIN,))))

        sender = Thread(target=send)
        sender.start()
        for message in stream:
            assert isinstance(message, bytes)
            if message[0] == Channel.END:
                break
            received += message[1:]
        sender.join()
        assert received == sent


def test_tickets_open_one_stream(lab: Lab) -> None:
    used = lab.ticket("true")
    assert lab.end(used) == {"exit_code": 0}
    for secret in (used, "x"):
        assert lab.end(secret)["code"] == "ticket_refused"


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://{here}"])
def test_pages_of_other_sites_open_nothing(lab: Lab, origin: str) -> None:
    secret = lab.ticket("true")
    with connected(lab.server, lab.endpoint) as connection:
        here = str(lab.endpoint)
        connection.sendall(
            _own(lab, secret, f"Host: {here}", f"Origin: {origin.format(here=here)}")
        )
        assert until_closed(connection).startswith(b"HTTP/1.1 403 ")
    assert lab.end(secret) == {"exit_code": 0}, "the ticket was not used up"


def test_own_pages_open_streams(lab: Lab) -> None:
    with connected(lab.server, lab.endpoint) as connection:
        here = str(lab.endpoint)
        connection.sendall(
            _own(lab, lab.ticket("true"), f"Host: {here}", f"Origin: https://{here}")
        )
        assert until_closed(connection).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/streams/v1/", ("Host: x",), 404),
        ("/streams/v1/..%2f", ("Host: x",), 404),
        ("/streams/v1/x/y", ("Host: x",), 404),
        ("/streams/v1/" + "a" * 5000, ("Host: x",), 404),
        ("/streams/v1/x", ("X-A: 1",), 400),
        ("/streams/v1/x", ("Host: a", "Host: b"), 400),
        ("/streams/v1/x", ("Host: x", "Content-Length: 3"), 400),
        ("/streams/v1/x", ("Host: x", "Transfer-Encoding: chunked"), 400),
        ("/streams/v1/x", ("Host: x", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400),
    ],
)
def test_other_requests_are_refused(
    lab: Lab, path: str, fields: tuple[str, ...], status: int
) -> None:
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(upgrade_request(path, *fields))
        assert until_closed(connection).startswith(f"HTTP/1.1 {status} ".encode())


def test_what_is_no_upgrade_is_refused(lab: Lab) -> None:
    for wrong in (b"GET /streams/v1/x HTTP/1.1\r\nHost: x\r\n\r\n", _own(lab, "x", "Host: x")):
        with connected(lab.server, lab.endpoint) as connection:
            connection.sendall(wrong.replace(b"GET", b"POST") if b"Upgrade" in wrong else wrong)
            assert until_closed(connection).startswith(b"HTTP/1.1 426 ")


def test_agents_port_carries_no_streams(lab: Lab) -> None:
    with connected(lab.server, lab.server.settings.agent_listen) as connection:
        connection.sendall(_own(lab, lab.ticket("true")))
        connection.settimeout(5)
        assert b" 101 " not in connection.recv(4096)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_frames_end_the_stream_and_what_runs(lab: Lab, name: str) -> None:
    code, frames = BROKEN[name]
    begun = len(lab.driver.sessions)
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(_own(lab, lab.ticket("cat")))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        eventually(lambda: len(lab.driver.sessions) > begun)
        with suppress(ssl.SSLEOFError, ConnectionError):  # its head alone may end the stream
            connection.sendall(frames)
        answer = until_closed(connection)
    close = answer.index(b"\x88")
    assert int.from_bytes(answer[close + 2 : close + 4], "big") == code
    eventually(lambda: lab.driver.sessions[-1].process.poll() is not None)


def test_a_client_that_goes_ends_what_runs(lab: Lab) -> None:
    begun = len(lab.driver.sessions)
    with connected(lab.server, lab.endpoint) as connection:
        connection.sendall(_own(lab, lab.ticket("sleep", "1000")))
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        eventually(lambda: len(lab.driver.sessions) > begun)
    eventually(lambda: lab.driver.sessions[-1].process.poll() is not None)


def _read_on(stream: ClientConnection) -> None:
    while True:
        stream.recv()


def test_a_client_that_does_not_read_is_dropped_and_costs_little(lab: Lab) -> None:
    memory = resident(lab.pid)
    before = lab.said('"stream_not_read"')
    with lab.open(lab.ticket("cat", "/dev/zero"), max_queue=1) as stream:
        eventually(lambda: lab.said('"stream_not_read"') > before)
        assert resident(lab.pid) - memory < 32 * MIB
        lab.echoes()
        with pytest.raises(ConnectionClosed):
            _read_on(stream)
    eventually(lambda: lab.driver.sessions[-2].process.poll() is not None)


def test_requests_are_answered_beside_streams_at_full_speed(lab: Lab) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stream = stack.enter_context(lab.open(lab.ticket("cat", "/dev/zero")))
            Thread(target=_swallow, args=(stream,), daemon=True).start()
        client = Client(lab.server)
        stack.callback(client.close)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert client.call("GET", "/health").status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2


def _swallow(stream: ClientConnection) -> None:
    try:
        _read_on(stream)
    except ConnectionClosed:
        return


def test_frames_that_come_too_early_harm_nobody(lab: Lab) -> None:
    with connected(lab.server, lab.endpoint) as connection:
        early = websocket_frame(BINARY, frame(Channel.STDIN, b"a"))
        connection.sendall(_own(lab, lab.ticket("true")) + early)
        until_closed(connection)


def test_without_a_hub_it_is_said(lab: Lab) -> None:
    alone = lab.server.beside()
    run = lab.server.settings.run_directory.parent / "alone"
    alone = replace(alone, settings=replace(alone.settings, run_directory=run))
    with mortal(alone), connected(alone, alone.settings.listen) as connection:
        connection.sendall(upgrade_request("/streams/v1/x"))
        assert until_closed(connection).startswith(b"HTTP/1.1 503 ")


def test_open_streams_do_not_hold_up_the_end(lab: Lab) -> None:
    other = lab.server.beside()
    other = replace(
        other, settings=replace(other.settings, run_directory=lab.server.settings.run_directory)
    )
    with mortal(other) as pid:
        through = replace(lab, server=other, endpoint=other.settings.listen, pid=pid)
        with through.open(lab.ticket("cat")) as stream:
            stream.send(frame(Channel.STDIN, b"a"))
            assert stream.recv() == frame(Channel.STDOUT, b"a")
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                _read_on(stream)
            assert time.monotonic() - began < 3
