"""Carrying a byte stream between a local socket and a WebSocket, both ways, each to its end."""

from __future__ import annotations

import threading
from contextlib import suppress
from socket import (
    IPPROTO_TCP,
    SHUT_RDWR,
    SHUT_WR,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    socket,
)
from typing import Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.connection import Connection

from virtmgr.domain.streaming import Channel, frame

CHUNK: Final = 256 * 1024
_SILENCE: Final = 15_000  # milliseconds after which a host that acknowledges nothing is gone


def watch_peer(connection: Connection) -> None:
    """Let a peer that is gone without a word be noticed within seconds, however little is said."""
    wire = connection.socket
    wire.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
    for option, value in (
        (TCP_NODELAY, 1),
        (TCP_KEEPIDLE, 5),
        (TCP_KEEPINTVL, 3),
        (TCP_KEEPCNT, 3),
        (TCP_USER_TIMEOUT, _SILENCE),
    ):
        with suppress(OSError):  # it is no TCP socket, or has ended
            wire.setsockopt(IPPROTO_TCP, option, value)


def relay(connection: Connection, local: socket, *, sends: Channel, receives: Channel) -> None:
    """Copy until both directions have ended; both are closed then.

    The end of one direction is passed on and leaves the other open. A connection that breaks ends
    both.
    """
    watch_peer(connection)
    pump = threading.Thread(
        target=_send, args=(connection, local, sends), name="relay", daemon=True
    )
    pump.start()
    try:
        _receive(connection, local, receives)
        pump.join()
    finally:
        with suppress(OSError):
            local.shutdown(SHUT_RDWR)
        connection.close()
        pump.join()
        local.close()


def _send(connection: Connection, local: socket, channel: Channel) -> None:
    try:
        while content := local.recv(CHUNK):
            connection.send(frame(channel, content))
        connection.send(bytes((Channel.CLOSE, channel)))
    except (ConnectionClosed, OSError):
        with suppress(OSError):  # wakes the other direction
            local.shutdown(SHUT_RDWR)
        connection.close()


def _receive(connection: Connection, local: socket, channel: Channel) -> None:
    try:
        for message in connection:
            if isinstance(message, str) or not message:
                break
            if message[0] == Channel.CLOSE:
                local.shutdown(SHUT_WR)
                return
            if message[0] != channel:
                break
            local.sendall(memoryview(message)[1:])
    except (ConnectionClosed, OSError):
        pass  # either side is gone: both are closed
    with suppress(OSError):
        local.shutdown(SHUT_RDWR)
