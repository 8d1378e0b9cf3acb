"""A load balancer as docs/scale-out.md wants one: it passes TCP on, to whichever answers."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

from virtmgr.config.settings import Endpoint

_PIECE = 1 << 16
_ANYWHERE = Endpoint("127.0.0.1", 0)


class Balancer:
    """One address for several; each connection goes to the next one that takes it."""

    def __init__(self, backends: Sequence[Endpoint], listen: Endpoint = _ANYWHERE) -> None:
        self._backends = backends
        self._next = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self.endpoint = listen

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        host = self.endpoint.host
        starting = asyncio.start_server(self._serve, host, self.endpoint.port)
        server = self._loop.run_until_complete(starting)
        self.endpoint = Endpoint(host, server.sockets[0].getsockname()[1])
        self._ready.set()
        self._loop.run_forever()
        server.close()
        open_still = asyncio.all_tasks(self._loop)
        for task in open_still:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*open_still, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close in the next turn
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self._backends:
            backend = self._backends[self._next % len(self._backends)]
            self._next += 1
            try:
                inner = await asyncio.open_connection(backend.host, backend.port)
            except OSError:
                continue
            try:
                await asyncio.gather(_copy(reader, inner[1]), _copy(inner[0], writer))
            finally:
                inner[1].close()
                writer.close()
            return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(_PIECE):
            writer.write(content)
            await writer.drain()
    writer.close()


def main(routes: Sequence[str]) -> None:
    """Pass on what comes, until this process is ended. A route: ``LISTEN=BACKEND,BACKEND``."""
    with ExitStack() as stack:
        for route in routes:
            own, _, backends = route.partition("=")
            behind = [Endpoint.parse(one) for one in backends.split(",")]
            stack.enter_context(Balancer(behind, Endpoint.parse(own)))
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
