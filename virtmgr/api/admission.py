"""Who may connect to the hub: decided before a byte of TLS, so that nobody holds every place.

A protocol of its own stands before the WebSocket's: it sees a client's address as soon as the
client has connected, and hands its socket on to TLS only where the limits allow another connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, cast

import structlog
from websockets.asyncio.server import ServerConnection

CONNECTIONS: Final = 2000
CONNECTIONS_PER_ADDRESS: Final = 1000
STREAMS_PER_USER: Final = 500
OPEN_SECONDS: Final = 10  # for the TLS handshake, and for the request after it

_log = structlog.get_logger()


class NoPlace(Exception):
    """Why there is none; whoever asked says it in its own way."""


class Places:
    """Counts what is taken. To be used in one thread."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def take(
        self, who: str, most: int, most_of_all: int | None = None
    ) -> AbstractContextManager[object]:
        """A place for ``who``, to be given back by leaving what is returned.

        :raises NoPlace: it has ``most`` already, or all together have ``most_of_all``.
        """
        if self._taken[who] >= most:
            raise NoPlace(f"it has {most} connections already")
        if most_of_all is not None and self._taken.total() >= most_of_all:
            raise NoPlace(f"there are {most_of_all} connections already")
        self._taken[who] += 1
        place = ExitStack()  # closing it twice is closing it once
        place.callback(self._give_back, who)
        return place

    def _give_back(self, who: str) -> None:
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]


class Door:
    """Makes the connections of a server that counts them; ``websockets`` asks it for each."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._places = Places()
        self._greetings: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    def connection(self, *args: Any, **kwargs: Any) -> ServerConnection:
        """The protocol of a connection that is just accepted: ``create_connection`` of
        ``websockets.asyncio.server.serve``, which does no more with it than give it to the loop."""
        return cast(ServerConnection, _Newcomer(self, lambda: _Counted(*args, **kwargs)))

    def admit(self, client: socket.socket, make: Callable[[], _Counted]) -> None:
        """Start TLS with a client that has just connected, or turn it away."""
        try:
            address = str(client.getpeername()[0])
        except OSError:
            client.close()  # it is gone already
            return
        try:
            place = self._places.take(address, CONNECTIONS_PER_ADDRESS, CONNECTIONS)
        except NoPlace as reason:
            _log.info("connection_refused", client=address, reason=str(reason))
            client.close()
            return
        greet = self._greet(client, make, place, address)
        greeting = asyncio.get_running_loop().create_task(greet)
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)

    def close(self) -> None:
        """Let no handshake hold up the end."""
        for greeting in self._greetings:
            greeting.cancel()

    async def _greet(
        self,
        client: socket.socket,
        make: Callable[[], _Counted],
        place: AbstractContextManager[object],
        address: str,
    ) -> None:
        with ExitStack() as undo:
            undo.callback(client.close)
            undo.push(place)
            connection = make()
            connection.place = place
            try:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    client,
                    ssl=self._context,
                    ssl_handshake_timeout=OPEN_SECONDS,
                    ssl_shutdown_timeout=OPEN_SECONDS,
                )
            except OSError as error:  # ssl.SSLError and TimeoutError are such
                _log.info("connection_refused", client=address, reason=str(error))
                return
            undo.pop_all()  # the connection itself sees to it from here on


class _Newcomer(asyncio.Protocol):
    """A client that has connected and not said anything."""

    def __init__(self, door: Door, make: Callable[[], _Counted]) -> None:
        self._door = door
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket from a loop that has not read from it yet."""
        given = transport.get_extra_info("socket")
        try:
            client = socket.socket(fileno=os.dup(given.fileno()))
        except OSError as error:  # no file descriptors are left
            _log.warning("connection_refused", reason=str(error))
            return
        finally:
            cast(asyncio.Transport, transport).abort()
        client.setblocking(False)
        self._door.admit(client, self._make)


class _Counted(ServerConnection):
    """A connection that gives its place back when it is lost."""

    place: AbstractContextManager[object]

    def connection_lost(self, exc: Exception | None) -> None:
        self.place.__exit__(None, None, None)
        super().connection_lost(exc)
