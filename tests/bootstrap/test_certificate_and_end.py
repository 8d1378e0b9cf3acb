"""The control plane takes up a renewed certificate while it runs, and ends swiftly and politely."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from virtmgr.bootstrap.certificate import OwnCertificate
from virtmgr.bootstrap.control_plane import authority
from virtmgr.bootstrap.processes import environment
from virtmgr.bootstrap.setup import initialise
from virtmgr.config.settings import Endpoint, ServerSettings

PATIENCE = 120.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    ports = [Endpoint("127.0.0.1", free_port()) for _ in range(3)]
    return ServerSettings(
        data_directory=tmp_path / "data",
        run_directory=tmp_path / "run",
        database=f"sqlite:///{tmp_path / 'virtmgr.db'}",
        listen=ports[0],
        agent_listen=ports[1],
        stream_listen=ports[2],
    )


@contextmanager
def running(module: str, settings: ServerSettings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module]
    process = subprocess.Popen(command, env=environment(settings), stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def dial(settings: ServerSettings, endpoint: Endpoint) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(settings.ca_file))
    raw = socket.create_connection((endpoint.host, endpoint.port), timeout=PATIENCE)
    return context.wrap_socket(raw, server_hostname=endpoint.host)


def serial(connection: ssl.SSLSocket) -> str:
    certificate = connection.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def answers(settings: ServerSettings, endpoint: Endpoint) -> bool:
    try:
        with dial(settings, endpoint):
            return True
    except OSError:
        return False


def renew(settings: ServerSettings) -> None:
    """As if a third of its life was left."""
    (settings.data_directory / "pki" / "server.names").write_text("another")
    OwnCertificate(settings)


@pytest.mark.parametrize(
    ("module", "listener"),
    [
        ("virtmgr.bootstrap.web", "listen"),
        ("virtmgr.bootstrap.hub", "stream_listen"),
    ],
)
def test_a_new_connection_sees_the_new_certificate(
    settings: ServerSettings, module: str, listener: str
) -> None:
    initialise(settings)
    endpoint = getattr(settings, listener)
    with running(module, settings):
        eventually(lambda: answers(settings, endpoint))
        with dial(settings, endpoint) as old:
            before = serial(old)
            renew(settings)

            def renewed() -> bool:
                with dial(settings, endpoint) as new:
                    return serial(new) != before

            eventually(renewed)
            if endpoint is settings.stream_listen:
                return  # the hub gives a client that says nothing 10 seconds
            old.sendall(b"GET /api/v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            assert old.recv(100).startswith(b"HTTP/1.1")


def test_half_a_renewal_is_not_taken_up(settings: ServerSettings) -> None:
    initialise(settings)
    own = OwnCertificate(settings)
    own.for_clients()
    certificate = authority(settings).directory / "server.crt"
    good = certificate.read_bytes()
    key = certificate.with_suffix(".key")
    before = key.read_bytes()
    renew(settings)
    after = key.read_bytes()
    key.write_bytes(before)
    assert not own.take_up()
    key.write_bytes(after)
    assert own.take_up()
    assert not own.take_up()
    assert certificate.read_bytes() != good


def test_requests_in_flight_are_answered_at_the_end(settings: ServerSettings) -> None:
    made = initialise(settings)
    with running("virtmgr.bootstrap.web", settings) as process, ExitStack() as clients:
        eventually(lambda: answers(settings, settings.listen))
        context = ssl.create_default_context(cafile=str(settings.ca_file))
        idle, following, uploading = (
            clients.enter_context(
                closing(
                    HTTPSConnection(
                        settings.listen.host,
                        settings.listen.port,
                        context=context,
                        timeout=PATIENCE,
                    )
                )
            )
            for _ in range(3)
        )
        headers = {"Authorization": f"Bearer {made.token}"}
        idle.request("GET", "/api/v1/version", headers=headers)
        assert idle.getresponse().read()
        following.request(
            "GET", "/api/v1/events", headers={**headers, "Accept": "text/event-stream"}
        )
        stream = following.getresponse()
        assert stream.readline()
        uploading.putrequest("POST", "/api/v1/images/upload?name=x&dry_run=true")
        for name, value in {**headers, "Content-Length": "4"}.items():
            uploading.putheader(name, value)
        uploading.endheaders(b"ab")
        time.sleep(1)  # so that it is in flight; the test holds where it is not, too
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: not answers(settings, settings.listen))
        uploading.send(b"cd")
        assert uploading.getresponse().status == 200
        stream.read()  # it ends
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("module", ["virtmgr.bootstrap.hub", "virtmgr.bootstrap.worker"])
def test_the_others_end_when_they_are_asked_to(settings: ServerSettings, module: str) -> None:
    initialise(settings)
    with running(module, settings) as process:
        if module.endswith("hub"):
            eventually(lambda: answers(settings, settings.stream_listen))
        else:
            eventually(lambda: _catches_term(process.pid))
        process.terminate()
        assert process.wait(PATIENCE) == 0


def _catches_term(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1))
    return False
