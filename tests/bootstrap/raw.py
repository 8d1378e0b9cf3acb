"""Connections without manners: what clients that are broken or malicious send and leave unread."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures.control_plane import Server
from virtmgr.config.settings import Endpoint

PATIENCE = 60.0  # seconds that a test waits for what a server does after one or two


@contextmanager
def plain(endpoint: Endpoint, *, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """TCP, and no TLS yet."""
    address = (endpoint.host, endpoint.port)
    with socket.create_connection(address, PATIENCE, (source, 0)) as connection:
        yield connection


@contextmanager
def connected(
    server: Server, endpoint: Endpoint, *, source: str = "127.0.0.1"
) -> Iterator[ssl.SSLSocket]:
    """TLS, and no request yet."""
    with (
        plain(endpoint, source=source) as beneath,
        server.tls().wrap_socket(beneath, server_hostname=endpoint.host) as connection,
    ):
        yield connection


def until_closed(connection: socket.socket) -> bytes:
    """All that comes; fails if the server does not end it."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except (ConnectionResetError, ssl.SSLEOFError):
        pass
    return received


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; that it never does is the failure."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096
