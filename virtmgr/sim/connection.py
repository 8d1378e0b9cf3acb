"""Keep-alive connections of a simulated host: HTTP/1.1 by h11, over TLS of asyncio.

The agent's own client (``agent/control_plane.py``) costs some ten times as much CPU for a request:
too much for thousands of hosts in one process.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from virtmgr.domain.errors import Forbidden, Unavailable
from virtmgr.domain.sync_order import OVERTAKEN

_PIECE = 64 * 1024
_CONNECT_SECONDS = 15.0  # in which a connection is made
_IDLE_SECONDS = 5.0  # that one is kept which nothing is asked by


@dataclass(frozen=True)
class Where:
    """The control plane's agents' listener, and the address that a host calls from."""

    server: str  # https://ADDRESS:PORT
    source: str | None = None  # of this machine; None: whichever

    @property
    def host(self) -> str:
        return urlsplit(self.server).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.server).port or 443


class Connection:
    """Made at its first request, and again after one that failed."""

    def __init__(self, where: Where, context: ssl.SSLContext) -> None:
        self._where = where
        self._context = context
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._http = h11.Connection(h11.CLIENT)

    @property
    def is_open(self) -> bool:
        return self._streams is not None

    async def ask(self, method: str, target: str, body: bytes = b"", patience: float = 30) -> bytes:
        """Send a request; the answer's body.

        :param patience: seconds without an answer, once there is a connection.
        :raises Unavailable: the control plane does not answer, or cannot just now.
        :raises Forbidden: it refuses this host.
        """
        try:
            streams = self._streams or await self._connect()
            async with asyncio.timeout(patience):
                status, content = await self._exchange(*streams, method, target, body)
        except (OSError, TimeoutError, h11.ProtocolError, EOFError) as error:
            self.close()
            raise Unavailable(
                f"asking the control plane for {target.partition('?')[0]} failed: {error!r}",
                hint="it is tried again",
            ) from error
        except BaseException:  # the answer, should it come, is to nobody any more
            self.close()
            raise
        if status >= 400:
            refused = status in (401, 403, 404, 422)
            text = content.decode(errors="replace")[:300]
            raise (Forbidden if refused else Unavailable)(
                f"the control plane answers {status} to {target.partition('?')[0]}: {text}",
                code="refused" if refused else OVERTAKEN if status == HTTPStatus.CONFLICT else None,
            )
        return content

    def close(self) -> None:
        """Without waiting for the other side."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        body: bytes,
    ) -> tuple[int, bytes]:
        http = self._http
        headers = [("Host", self._where.host), ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        request = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
        if body:
            request += http.send(h11.Data(data=body)) or b""
        http.send(h11.EndOfMessage())
        writer.write(request)
        status, content = 0, []
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(_PIECE))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("it closed the connection")
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
        else:
            self.close()
        return status, b"".join(content)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = self._where
        async with asyncio.timeout(_CONNECT_SECONDS):
            streams = await asyncio.open_connection(
                where.host,
                where.port,
                ssl=self._context,
                local_addr=(where.source, 0) if where.source else None,
            )
        self._http = h11.Connection(h11.CLIENT)
        self._streams = streams
        return streams


class Connections:
    """All of a host: what is asked takes an open one that is free, as the agent's client does."""

    def __init__(self, where: Where, context: ssl.SSLContext) -> None:
        self._where = where
        self._context = context
        self._busy: set[Connection] = set()
        self._free: dict[Connection, float] = {}  # open ones, since when by the monotonic clock

    async def ask(self, method: str, target: str, body: bytes = b"", patience: float = 30) -> bytes:
        """As ``Connection.ask``."""
        taken = self._free.popitem()[0] if self._free else Connection(self._where, self._context)
        self._busy.add(taken)
        try:
            return await taken.ask(method, target, body, patience)
        finally:
            if taken in self._busy:  # else all were closed meanwhile
                self._busy.remove(taken)
                if taken.is_open:
                    self._free[taken] = time.monotonic()

    def close(self) -> None:
        """All, without waiting for the other side."""
        for one in (*self._busy, *self._free):
            one.close()
        self._busy.clear()
        self._free.clear()

    def close_idle(self, clock: float) -> float:
        """Close those that nothing was asked by for a while; seconds until the next one is due."""
        for one in [one for one, since in self._free.items() if clock >= since + _IDLE_SECONDS]:
            del self._free[one]
            one.close()
        return min(
            (since + _IDLE_SECONDS - clock for since in self._free.values()), default=math.inf
        )
