"""Clients that are slow, broken or malicious: each is bounded, and others are served meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bootstrap.raw import PATIENCE, connected, eventually, plain, resident, until_closed
from tests.fixtures.control_plane import Client, Server, new_control_plane, served
from tests.store.inventory import make_event
from virtmgr.api import admission, agent, app, hub, parsing
from virtmgr.bootstrap import serving, stream_relay, web
from virtmgr.config.resources import resource_path
from virtmgr.config.settings import Endpoint
from virtmgr.domain.streaming import LARGEST_MESSAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    server = new_control_plane(tmp_path_factory.mktemp("hostile"))
    with served(server, module="tests.fixtures.impatient_web") as (arbiter,):
        yield server, arbiter


@pytest.fixture
def server(running: tuple[Server, int]) -> Server:
    return running[0]


@pytest.fixture
def worker(running: tuple[Server, int]) -> int:
    """Id of the process that serves."""
    arbiter = running[1]
    (worker,) = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
    return int(worker)


@pytest.fixture(params=["operators", "agents"])
def endpoint(request: pytest.FixtureRequest, server: Server) -> Endpoint:
    settings = server.settings
    return settings.listen if request.param == "operators" else settings.agent_listen


def _head(server: Server, line: str, *fields: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: virtmgr", f"Authorization: Bearer {server.token}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def _post(server: Server, body: bytes, *fields: str) -> bytes:
    fields = fields or (f"Content-Length: {len(body)}",)
    json_type = "Content-Type: application/json"
    return _head(server, "POST /api/v1/projects", json_type, "Connection: close", *fields) + body


def _served_meanwhile(server: Server) -> None:
    client = Client(server)
    assert client.call("GET", "/whoami").status == 200
    client.close()


def _is_served(server: Server) -> bool:
    try:
        _served_meanwhile(server)
    except OSError:
        return False
    return True


CHUNKED = "Transfer-Encoding: chunked"
GET = "GET /api/v1/version"
REFUSED: dict[str, tuple[int, Callable[[Server], bytes]]] = {
    "long line": (414, lambda s: _head(s, "GET /" + "a" * 20000)),
    "big header": (431, lambda s: _head(s, GET, "X-A: " + "a" * 100_000)),
    "many headers": (431, lambda s: _head(s, GET, *(f"X-{n}: 1" for n in range(200)))),
    "no HTTP": (400, lambda _: b"\x00\x01\x02\r\n\r\n"),
    "method": (400, lambda s: _head(s, "G@T /")),
    "HTTP/2": (400, lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "length and chunks": (400, lambda s: _post(s, b"0\r\n\r\n", "Content-Length: 5", CHUNKED)),
    "two lengths": (400, lambda s: _post(s, b"{}", "Content-Length: 2", "Content-Length: 3")),
    "negative length": (400, lambda s: _post(s, b"{}", "Content-Length: -2")),
    "signed length": (400, lambda s: _post(s, b"{}", "Content-Length: +2")),
    "other coding": (400, lambda s: _post(s, b"{}", "Transfer-Encoding: xchunked")),
    "chunked twice": (400, lambda s: _post(s, b"0\r\n\r\n", CHUNKED, CHUNKED)),
    "chunked not last": (400, lambda s: _post(s, b"", CHUNKED + ", identity")),
    "folded header": (400, lambda s: _head(s, GET, "X-A: 1", " 2")),
    "space before colon": (400, lambda s: _head(s, GET, "Content-Length : 2")),
    "no host": (400, lambda _: f"{GET} HTTP/1.1\r\n\r\n".encode()),
    "two hosts": (400, lambda s: _head(s, GET, "Host: virtmgr")),
    "two hosts in HTTP/1.0": (
        400,
        lambda _: f"{GET} HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".encode(),
    ),
    "no host's name": (400, lambda _: f"{GET} HTTP/1.1\r\nHost: a/b@c\r\n\r\n".encode()),
    "NUL in header": (400, lambda s: _head(s, GET, "X-A: a\0b")),
    "chunk size": (400, lambda s: _post(s, b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED)),
    "chunk end": (400, lambda s: _post(s, b"2\r\n{}xx0\r\n\r\n", CHUNKED)),
    "chunks without end": (
        413,
        lambda s: _post(s, (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 5, CHUNKED),
    ),
    "large body": (413, lambda s: _post(s, b"{}", f"Content-Length: {app.MAX_BODY + 1}")),
    "deep lists": (400, lambda s: _post(s, b"[" * 100_000 + b"]" * 100_000)),
    "deep objects": (400, lambda s: _post(s, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    "long number": (400, lambda s: _post(s, b'{"name":' + b"9" * 100_000 + b"}")),
    "huge number": (400, lambda s: _post(s, b'{"name":1e99999}')),
    "not UTF-8": (400, lambda s: _post(s, b'{"name":"\xff"}')),
    "NUL in text": (400, lambda s: _post(s, b'{"name":"\\u0000"}')),
    "many parameters": (
        422,
        lambda s: _head(
            s,
            "GET /api/v1/projects?" + "&".join(f"a{n}=1" for n in range(1000)),
            "Connection: close",
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_problem(server: Server, name: str) -> None:
    status, request = REFUSED[name]
    with connected(server, server.settings.listen) as connection:
        connection.sendall(request(server))
        answer = until_closed(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), head
    assert b"content-type: application/problem+json" in head.lower()
    assert body.count(b"HTTP/1.1") == 0, "a second request was read out of the first"
    assert json.loads(body)["status"] == status
    _served_meanwhile(server)


def test_http_1_0_needs_no_host(server: Server) -> None:
    with connected(server, server.settings.listen) as connection:
        connection.sendall(f"{GET} HTTP/1.0\r\n\r\n".encode())
        assert b" 200 OK" in until_closed(connection)


def test_slow_handshakes_and_heads_end(server: Server, endpoint: Endpoint) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(plain(endpoint))
        half = stack.enter_context(plain(endpoint))
        half.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a TLS hello
        idle = stack.enter_context(connected(server, endpoint))
        head = stack.enter_context(connected(server, endpoint))
        head.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        _served_meanwhile(server)
        for connection in (silent, half, idle, head):
            assert b"200" not in until_closed(connection)


def test_plain_http_is_no_tls(endpoint: Endpoint, server: Server) -> None:
    with plain(endpoint) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in until_closed(connection)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("framing", ["Content-Length: 1000", CHUNKED])
def test_a_slow_body_is_given_up(server: Server, framing: str) -> None:
    with connected(server, server.settings.listen) as connection:
        connection.sendall(_post(server, b"8\r\n{", framing))
        _served_meanwhile(server)
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


def test_a_slow_upload_is_given_up_and_leaves_nothing(server: Server) -> None:
    line = "POST /api/v1/images/upload?name=slow"
    with connected(server, server.settings.listen) as connection:
        connection.sendall(_head(server, line, "Content-Length: 100000000") + b"x" * 100_000)
        assert until_closed(connection).startswith(b"HTTP/1.1 408 ")
    assert not list((server.settings.data_directory / "images").rglob("*upload*/*"))


def test_an_answer_that_is_not_read_is_given_up(server: Server) -> None:
    with connected(server, server.settings.listen) as connection:
        request = _head(server, "GET /api/v1/openapi.json")
        connection.settimeout(0.5)
        deadline = time.monotonic() + PATIENCE
        sent = 0
        while "answer_not_read" not in server.log.read_text():
            assert time.monotonic() < deadline
            try:
                sent += connection.send(request)  # ever more answers, until the buffers are full
            except OSError:
                time.sleep(0.1)
        _served_meanwhile(server)


def test_events_that_are_not_read_are_given_up(server: Server, worker: int) -> None:
    """The log is far larger than what the kernel keeps for a connection: that is all it costs."""
    newest = _add_events(server, 2_000)
    memory = resident(worker)
    before = server.log.read_text().count("answer_not_read")
    follow = _head(server, "GET /api/v1/events?after=0", "Accept: text/event-stream")
    with ExitStack() as stack:
        readers = [stack.enter_context(connected(server, server.settings.listen)) for _ in range(5)]
        for reader in readers:
            reader.sendall(follow)
        other = stack.enter_context(connected(server, server.settings.listen))
        other.sendall(
            _head(server, f"GET /api/v1/events?after={newest}", "Accept: text/event-stream")
        )
        assert other.recv(4096)
        eventually(lambda: server.log.read_text().count("answer_not_read") == before + 5)
        assert resident(worker) - memory < 64 * 2**20
        _served_meanwhile(server)
        _add_events(server, 1)
        received = b""
        while f"id: {newest + 1}\n".encode() not in received:  # it follows all the time
            piece = other.recv(4096)
            assert piece
            received += piece
        for reader in readers:  # what was on the way, and no end
            assert f"id: {newest}\n".encode() not in until_closed(reader)


def _add_events(server: Server, count: int) -> int:
    """The sequence of the last of them."""
    with server.inventory() as uow:
        for _ in range(count):
            uow.events.append(make_event(data={"command": "x" * 10_000}))
    with server.inventory() as uow:
        return uow.events.last_sequence()


def test_one_client_cannot_take_every_connection(server: Server, endpoint: Endpoint) -> None:
    refused = "connections already"
    before = server.log.read_text().count(refused)
    with ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(plain(endpoint)).sendall(b"\x16")
        eventually(lambda: server.log.read_text().count(refused) > before)
    eventually(lambda: _is_served(server))  # they are counted down again


def test_agents_need_a_certificate(server: Server) -> None:
    with connected(server, server.settings.agent_listen) as connection:
        connection.sendall(b"GET /agent/v1/wake HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"certificate_required" in answer


def test_an_answer_comes_in_one_piece_also_where_it_is_no_more_than_a_head(server: Server) -> None:
    """A client with manners, for once: head and body are one record of TLS."""
    with connected(server, server.settings.agent_listen) as connection:
        for _ in range(2):
            connection.sendall(b"GET /agent/v1/wake HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401 ")
            assert b"certificate_required" in body
        connection.sendall(b"HEAD /agent/v1/blobs/x HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 ")
        assert not body


def test_the_documented_limits_are_the_real_ones() -> None:
    text = resource_path("docs").joinpath("api.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|]+) \| `([\d,]+)` \|", text, re.MULTILINE)
    assert {what: int(value.replace(",", "")) for what, value in table} == {
        "connections to a port": serving.CONNECTIONS,
        "connections to the agents' port": serving.AGENT_CONNECTIONS,
        "connections of one address": serving.CONNECTIONS_PER_ADDRESS,
        "TLS handshake, seconds": serving.HANDSHAKE_SECONDS,
        "request's head, and idle between requests, seconds": serving.HEAD_SECONDS,
        "the same on the agents' port, seconds": serving.AGENT_HEAD_SECONDS,
        "each 64 KiB of a body, seconds": serving.BODY_SECONDS,
        "each piece of an answer, seconds": serving.SEND_SECONDS,
        "request line, bytes": web.MAX_LINE,
        "header fields": web.MAX_FIELDS,
        "one header field, bytes": web.MAX_FIELD,
        "body, bytes": app.MAX_BODY,
        "an agent's sync, bytes": agent.MAX_SYNC,
        "agents' syncs worked on at once": agent.SYNCS_AT_ONCE,
        "an agent's sync waits for its turn, seconds": agent.SYNC_PATIENCE,
        "nesting of JSON": parsing.MAX_DEPTH,
        "streams: connections to the port": admission.CONNECTIONS,
        "streams: connections of one address": admission.CONNECTIONS_PER_ADDRESS,
        "streams: open ones of one user": admission.STREAMS_PER_USER,
        "streams: open ones through the API's port": stream_relay.MOST,
        "streams: handshake and request, seconds each": admission.OPEN_SECONDS,
        "streams: one message, bytes": LARGEST_MESSAGE,
        "streams: each message to a client, seconds": hub.SEND_SECONDS,
        "streams: between pings, and for the answer to each, seconds": hub.PING_SECONDS,
    }
