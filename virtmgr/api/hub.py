"""The stream hub: takes a client's WebSocket with its ticket, dials the agent, copies both ways.

A process of its own on asyncio, so that bytes of consoles never wait behind requests.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin

from virtmgr.api.dialling import DIAL_SECONDS, PATH, check_agent, unreachable
from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, frame
from virtmgr.services.container import Services
from virtmgr.services.streams import Route, redeem

PREFIX: Final = "/streams/v1/"
OPEN_SECONDS: Final = 10  # for the TLS handshake, and for the request after it

_log = structlog.get_logger()


@dataclass(frozen=True)
class Hub:
    """``origins``: pages that browsers may open streams from; programs send no Origin."""

    services: Services
    server_context: ssl.SSLContext
    agent_context: ssl.SSLContext
    origins: tuple[Origin, ...] = ()

    async def run(self, host: str, port: int, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set."""
        async with serve(
            self._serve,
            host,
            port,
            ssl=self.server_context,
            max_size=LARGEST_MESSAGE,
            compression=None,
            origins=[None, *self.origins],
            process_request=_check_path,
            open_timeout=OPEN_SECONDS,
            ssl_handshake_timeout=OPEN_SECONDS,
            server_header=None,
        ):
            _log.info("hub.listening", address=f"{host}:{port}")
            await stop.wait()

    async def _serve(self, client: ServerConnection) -> None:
        assert client.request is not None  # the handshake is done
        secret = client.request.path.removeprefix(PREFIX).partition("?")[0]
        try:
            route = await asyncio.to_thread(redeem, self.services, secret)
            agent = await self._dial(route)
        except VirtmgrError as error:
            await _end(client, error)
            return
        async with agent:
            await _relay(client, agent)

    async def _dial(self, route: Route) -> ClientConnection:
        try:
            agent = await connect(
                route.agent_url + PATH,
                ssl=self.agent_context,
                max_size=LARGEST_MESSAGE,
                compression=None,
                open_timeout=DIAL_SECONDS,
                proxy=None,
            )
        except (OSError, TimeoutError, ConnectionClosed) as error:
            raise unreachable(error) from error
        try:
            check_agent(agent.transport.get_extra_info("ssl_object"), route.host_id)
            await agent.send(route.request.model_dump_json())
        except VirtmgrError:
            await agent.close()
            raise
        return agent


def _check_path(connection: ServerConnection, request: Request) -> Response | None:
    if request.path.startswith(PREFIX):
        return None
    return connection.respond(HTTPStatus.NOT_FOUND, "Streams are opened with a ticket.\n")


async def _relay(client: ServerConnection, agent: ClientConnection) -> None:
    """Copy until either side ends; then end the other."""
    copies = [
        asyncio.create_task(_copy(client, agent)),
        asyncio.create_task(_copy(agent, client)),
    ]
    await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    await agent.close()
    await client.close()
    await asyncio.gather(*copies, return_exceptions=True)


async def _copy(source: Any, sink: Any) -> None:
    try:
        async for message in source:
            await sink.send(message)
    except ConnectionClosed:
        return


async def _end(client: ServerConnection, error: VirtmgrError) -> None:
    problem = {"code": error.code, "detail": error.message, "hint": error.hint}
    try:
        await client.send(frame(Channel.END, json.dumps(problem).encode()))
        await client.close()
    except ConnectionClosed:
        return
