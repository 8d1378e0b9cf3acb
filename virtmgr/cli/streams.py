"""Interactive streams: WebSocket messages whose first byte is the channel (docs/api.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from virtmgr.cli.client import Client
from virtmgr.cli.problems import UNREACHABLE, from_problem
from virtmgr.cli.transport import tls_context
from virtmgr.domain.errors import Unavailable

_LARGEST_MESSAGE = 16 * 1024 * 1024


class Channel(IntEnum):
    """As ``domain.streaming`` has them, without the schemas that it imports."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    END = 3
    RESIZE = 4
    CLOSE = 255


class Stream:
    """One connected stream. Sending and receiving may happen in different threads."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket

    def write(self, data: bytes) -> None:
        """Send input."""
        self._send(bytes((Channel.STDIN,)) + data)

    def close_input(self) -> None:
        """Say that no more input comes."""
        self._send(bytes((Channel.CLOSE, Channel.STDIN)))

    def resize(self, rows: int, columns: int) -> None:
        size = json.dumps({"rows": rows, "columns": columns}).encode()
        self._send(bytes((Channel.RESIZE,)) + size)

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Channel and content of every message, until the stream ends.

        :raises Unavailable: the connection is lost.
        """
        try:
            for message in self._websocket:
                data = message if isinstance(message, bytes) else message.encode()
                if data:
                    yield data[0], data[1:]
        except ConnectionClosed as error:
            raise Unavailable(
                f"the stream broke off: {error}",
                code=UNREACHABLE,
                hint="the workload goes on; connect again",
            ) from error

    def close(self) -> None:
        self._websocket.close()

    def _send(self, message: bytes) -> None:
        try:
            self._websocket.send(message)
        except ConnectionClosed:
            return  # whoever receives hears how it ended


@contextmanager
def open_stream(
    client: Client, path: str, body: Mapping[str, Any] | None = None
) -> Iterator[Stream]:
    """Ask for a ticket at ``path`` and connect with it.

    The ticket in the URL is the only authorisation: the token is not sent.

    :raises Unavailable: the stream cannot be reached.
    """
    ticket = client.post(path, dict(body or {}), repeatable=False)
    url = ticket["url"]
    where = urlsplit(url)
    try:
        websocket = connect(
            url,
            ssl=_trust(client) if where.scheme == "wss" else None,
            proxy=None,
            compression=None,
            max_size=_LARGEST_MESSAGE,
            close_timeout=2,
        )
    except (OSError, WebSocketException) as error:
        raise Unavailable(
            f"the stream at {where.scheme}://{where.netloc} cannot be reached: {error}",
            code=UNREACHABLE,
            hint="is the control plane's stream listener (--stream-listen) reachable from here?",
        ) from error
    with websocket:
        yield Stream(websocket)


def _trust(client: Client) -> SSLContext:
    """The same as for requests."""
    return client.transport.tls or tls_context(client.context.ca_file, client.context.ca)


def exit_code_of(end: bytes) -> int:
    """The command's exit code from the end message.

    :raises VirtmgrError: it tells of a problem instead.
    """
    told = json.loads(end) if end else {}
    if "exit_code" in told:
        return int(told["exit_code"])
    if told.get("code") or told.get("detail"):
        raise from_problem(told)
    return 0
