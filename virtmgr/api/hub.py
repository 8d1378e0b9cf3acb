"""The stream hub: takes a client's WebSocket with its ticket, dials the agent, copies both ways.

A process of its own on asyncio, so that bytes of consoles never wait behind requests.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from socket import SO_LINGER, SOL_SOCKET, socket
from typing import Any, Final, cast

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Origin

from virtmgr.api import admission
from virtmgr.api.admission import Door, NoPlace, Places
from virtmgr.api.dialling import DIAL_SECONDS, PATH, check_agent, unreachable
from virtmgr.domain.errors import TooManyRequests, VirtmgrError
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, frame
from virtmgr.services.container import Services
from virtmgr.services.streams import OpenedRoute, redeem

PREFIX: Final = "/streams/v1/"
SEND_SECONDS: Final = 60  # for each message to a client
PING_SECONDS: Final = 20  # between pings, and for the answer to each
CLOSE_SECONDS: Final = 10  # for the closing handshake, and for what is to be sent before it
_FAULTS: Final = frozenset(  # of a client, for which its stream is ended
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.MESSAGE_TOO_BIG,
    }
)

_log = structlog.get_logger()


@dataclass(frozen=True)
class Hub:
    """``origins``: pages that browsers may open streams from; programs send no Origin."""

    services: Services
    server_context: ssl.SSLContext
    agent_context: ssl.SSLContext
    origins: tuple[Origin, ...] = ()
    _streams: Places = field(default_factory=Places)  # by user

    async def run(self, host: str, port: int, stop: asyncio.Event, local: socket) -> None:
        """Serve until ``stop`` is set.

        :param local: listens for the web process of this machine, which clients come through.
        """
        door = Door(self.server_context)
        options: dict[str, Any] = {
            "max_size": LARGEST_MESSAGE,
            "compression": None,
            "origins": [None, *self.origins],
            "process_request": _check_request,
            "open_timeout": admission.OPEN_SECONDS,
            "close_timeout": CLOSE_SECONDS,
            "ping_interval": PING_SECONDS,
            "ping_timeout": PING_SECONDS,
            "server_header": None,
        }
        make = cast(type[ServerConnection], door.connection)
        async with (
            unix_serve(self._serve, sock=local, **options),
            serve(self._serve, host, port, create_connection=make, **options),
        ):
            _log.info("hub.listening", address=f"{host}:{port}")
            await stop.wait()
            door.close()

    async def _serve(self, client: ServerConnection) -> None:
        assert client.request is not None  # the handshake is done
        secret = client.request.path.removeprefix(PREFIX).partition("?")[0]
        try:
            route = await asyncio.to_thread(redeem, self.services, secret)
            with self._place(route.user_id):
                async with await self._dial(route) as agent:
                    await _relay(client, agent)
        except VirtmgrError as error:
            _log.info("stream_refused", client=_address(client), code=error.code)
            await _end(client, error)

    def _place(self, user_id: str | None) -> AbstractContextManager[object]:
        try:
            return self._streams.take(user_id or "", admission.STREAMS_PER_USER)
        except NoPlace as reason:
            raise TooManyRequests(
                f"no further stream is opened for this user: {reason}",
                code="too_many_streams",
                hint="end some of those that are open",
            ) from reason

    async def _dial(self, route: OpenedRoute) -> ClientConnection:
        try:
            agent = await connect(
                route.agent_url + PATH,
                ssl=self.agent_context,
                max_size=LARGEST_MESSAGE,
                compression=None,
                open_timeout=DIAL_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=None,
            )
        except (OSError, WebSocketException) as error:
            raise unreachable(error, f"host {route.host_name!r}") from error
        try:
            check_agent(agent.transport.get_extra_info("ssl_object"), route.host_id)
            await agent.send(route.request.model_dump_json())
        except VirtmgrError:
            await _close(agent)
            raise
        except ConnectionClosed as error:
            raise unreachable(error, f"host {route.host_name!r}") from error
        return agent


def _check_request(connection: ServerConnection, request: Request) -> Response | None:
    if len(request.headers.get_all("Host")) != 1:
        return connection.respond(HTTPStatus.BAD_REQUEST, "A request has one Host field.\n")
    if request.path.startswith(PREFIX):
        return None
    return connection.respond(HTTPStatus.NOT_FOUND, "Streams are opened with a ticket.\n")


async def _relay(client: ServerConnection, agent: ClientConnection) -> None:
    """Copy until the agent has said all, or the client is gone; then end both.

    Either may have stopped reading: nothing here waits for one of them without a limit, but for an
    agent that has no room for more input just now.
    """
    outward = asyncio.create_task(_copy_out(agent, client))
    inward = asyncio.create_task(_copy_in(client, agent))
    gone = asyncio.create_task(client.wait_closed())
    try:
        await asyncio.wait((outward, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _close(agent)
        await _close(client)
        await asyncio.gather(outward, inward, gone, return_exceptions=True)


async def _copy_in(client: ServerConnection, agent: ClientConnection) -> None:
    address = _address(client)  # while it has one
    try:
        async for message in client:
            if isinstance(message, str):
                await _close(client, CloseCode.UNSUPPORTED_DATA, "stream messages are binary")
                break
            with suppress(ConnectionClosed):  # what else it sent is read, so that it reads our end
                await agent.send(message)
    except ConnectionClosed:
        pass  # whether the client was to blame is told below
    own = client.protocol.close_sent
    if own is not None and own.code in _FAULTS:
        _log.info("stream_closed", client=address, code=own.code, reason=own.reason)


async def _copy_out(agent: ClientConnection, client: ServerConnection) -> None:
    try:
        async for message in agent:
            async with asyncio.timeout(SEND_SECONDS):
                await client.send(message)
    except TimeoutError:
        _log.info("stream_not_read", client=_address(client))
        _abort(client)
    except ConnectionClosed:
        return


async def _end(client: ServerConnection, error: VirtmgrError) -> None:
    """Tell why there is no stream. A few bytes: they are sent whether or not they are read."""
    problem = {"code": error.code, "detail": error.message, "hint": error.hint}
    try:
        await client.send(frame(Channel.END, json.dumps(problem).encode()))
    except ConnectionClosed:
        return
    await _close(client)


async def _close(
    connection: Connection, code: int = CloseCode.NORMAL_CLOSURE, reason: str = ""
) -> None:
    """End a connection in order; or at once where the other side does not read."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close(code, reason)
    except TimeoutError:
        _abort(connection)


def _abort(connection: Connection) -> None:
    """End a connection with a reset. Otherwise the kernel would keep what the other side does not
    read, and the other side would not hear of the end before it has read all that."""
    at_once = struct.pack("ii", 1, 0)  # struct linger: on, no seconds
    transport = connection.transport
    with suppress(OSError):  # it is closed already
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, at_once)
    transport.abort()


def _address(client: ServerConnection) -> str | None:
    peer = client.remote_address
    return str(peer[0]) if peer else None
