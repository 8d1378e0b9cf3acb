"""Streams of browsers on the console's own port, carried on to the hub.

A browser that trusts the console's certificate, and a load balancer that knows one port, need no
second one. The request for an upgrade is checked and written anew; all that follows is carried both
ways without being looked at. Nothing is kept: who does not read holds up the other side, and the
hub ends streams that are not read.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import gevent
import structlog
from gevent import Timeout

from virtmgr.bootstrap.serving import refusal

PREFIX: Final = "/streams/v1/"
MOST: Final = 1000  # at a time, so that half of the connections are left for requests
DIAL_SECONDS: Final = 10  # for the hub's answer; it asks the database and the agent later
_PIECE: Final = 64 * 1024
_PATH: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==", re.ASCII)
_ONCE: Final = ("HOST", "UPGRADE", "SEC-WEBSOCKET-KEY", "SEC-WEBSOCKET-VERSION")

log = structlog.get_logger(__name__)


class Refused(Exception):
    """No stream is opened; the status of the answer, and why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request: its fields' names are in capitals, as gunicorn gives them."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value.strip() for field, value in self.fields if field == name]


def is_stream(path: str) -> bool:
    """Whether a request is for a stream."""
    return path.startswith(PREFIX)


def head_for_hub(asked: Asked) -> bytes:
    """What to ask the hub. Pure.

    :raises Refused: it is no proper request for a WebSocket, or comes from another site's page.
    """
    if asked.method != "GET" or "websocket" not in "".join(asked.all("UPGRADE")).lower():
        raise Refused(HTTPStatus.UPGRADE_REQUIRED, "streams are opened as WebSockets")
    if _PATH.fullmatch(asked.path) is None:
        raise Refused(HTTPStatus.NOT_FOUND, "streams are opened with a ticket")
    if asked.all("CONTENT-LENGTH") or asked.all("TRANSFER-ENCODING"):
        raise Refused(HTTPStatus.BAD_REQUEST, "a request for a stream has no body")
    if any(len(asked.all(name)) != 1 for name in _ONCE) or len(asked.all("ORIGIN")) > 1:
        raise Refused(HTTPStatus.BAD_REQUEST, "a field is missing, or there more than once")
    host, key = asked.all("HOST")[0], asked.all("SEC-WEBSOCKET-KEY")[0]
    for origin in asked.all("ORIGIN"):  # programs send none
        if origin.lower() != f"https://{host.lower()}":
            raise Refused(HTTPStatus.FORBIDDEN, "streams are opened by this console's pages only")
    if _KEY.fullmatch(key) is None or asked.all("SEC-WEBSOCKET-VERSION") != ["13"]:
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no WebSocket of version 13")
    lines = (
        f"GET {asked.path} HTTP/1.1",
        "Host: hub",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class StreamRelay:
    """Carries streams of one process."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._open = 0

    def serve(self, client: socket.socket, asked: Asked) -> None:
        """Carry a stream until either side ends; then the client's connection is used up."""
        try:
            head = head_for_hub(asked)
            if self._open >= MOST:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE, f"there are {MOST} streams open already"
                )
        except Refused as refused:
            _answer(client, refused)
            return
        self._open += 1
        try:
            self._carry(client, head)
        finally:
            self._open -= 1

    def _carry(self, client: socket.socket, head: bytes) -> None:
        try:
            with Timeout(DIAL_SECONDS, TimeoutError("no connection in time")):
                hub = self._connect()
        except OSError as error:
            log.warning("hub_unreachable", error=str(error))
            reason = "the process that serves streams does not answer: try again in a moment"
            _answer(client, Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason))
            return
        with hub:
            hub.sendall(head)
            pumps = [gevent.spawn(_pump, client, hub), gevent.spawn(_pump, hub, client)]
            try:
                gevent.wait(pumps, count=1)
            finally:
                gevent.killall(pumps)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side is gone: both are closed by then
        while piece := source.recv(_PIECE):
            target.sendall(piece)


def _answer(client: socket.socket, refused: Refused) -> None:
    log.info("stream_refused", status=refused.status.value, reason=str(refused))
    upgrade = ["Upgrade: websocket"] if refused.status is HTTPStatus.UPGRADE_REQUIRED else []
    with suppress(OSError):  # it is gone
        client.sendall(refusal(refused.status, str(refused), *upgrade))
