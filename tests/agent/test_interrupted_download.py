"""A blob on its way from the control plane to a host: cut half-way, it goes on from there.

The web process, mutual TLS and the agent's download are the real ones.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.fixtures.control_plane import Server, mortal, new_control_plane
from tests.fixtures.enrolled_host import enrol
from virtmgr.agent.identity import Identity
from virtmgr.bootstrap.agent import Connector
from virtmgr.config.settings import Endpoint
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import Blob
from virtmgr.drivers.storage.blobs import BlobCache
from virtmgr.images.blobs import BlobStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MIB = 1024**2
HALF_WAY = 16 * MIB


@dataclass
class Watched:
    """The agent's source of blobs; ``offsets`` are where it was asked to begin."""

    connector: Connector
    offsets: list[int] = field(default_factory=list)

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        return self.connector.fetch(digest, offset)


@dataclass
class Download:
    """One blob, larger than what is under way at a time, and a host that wants it."""

    server: Server
    blob: Blob
    content: bytes
    directory: Path

    def cache(self) -> BlobCache:
        for name in ("blobs", "parts", "locks"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        return BlobCache(
            directory=self.directory / "blobs",
            parts=self.directory / "parts",
            locks=self.directory / "locks",
        )

    def here(self) -> int:
        """Bytes of it that the host has by now."""
        return sum(path.stat().st_size for path in (self.directory / "parts").iterdir())

    def interrupted(self, source: Watched, interrupt: Callable[[], None]) -> int:
        """Fetch half of it; how much came."""
        came = 0
        done = threading.Event()

        def progress(size: int) -> None:
            nonlocal came
            came += size
            if came >= HALF_WAY and not done.is_set():
                done.set()
                interrupt()

        with pytest.raises(ImageError) as broken:
            self.cache().ensure(self.blob, source, progress)
        assert broken.value.code in ("blob_unreachable", "image_truncated")
        return self.here()

    def goes_on(self, source: Watched, have: int) -> None:
        """The rest comes, and only the rest."""
        assert HALF_WAY <= have < self.blob.size
        steps: list[int] = []
        path = self.cache().ensure(self.blob, source, steps.append)
        assert source.offsets[-1] == have
        assert sum(steps) == self.blob.size
        assert path.read_bytes() == self.content
        assert not self.here()


@pytest.fixture
def download(tmp_path: Path) -> Download:
    server = new_control_plane(tmp_path / "control-plane")
    content = random.Random(1).randbytes(64 * MIB)
    blob = BlobStore(server.settings.data_directory / "images").add([content])
    return Download(server, blob, content, tmp_path / "host" / "pool")


def test_the_control_plane_is_killed(download: Download, tmp_path: Path) -> None:
    with mortal(download.server) as pid:
        connector = Connector(enrol(download.server, tmp_path / "host"))
        source = Watched(connector)
        have = download.interrupted(source, lambda: os.kill(pid, signal.SIGKILL))
    with closing(connector):
        with pytest.raises(ImageError):  # it is away
            download.cache().ensure(download.blob, source, lambda _: None)
        assert download.here() == have
        with mortal(download.server):
            download.goes_on(source, have)


def test_the_connection_is_cut(download: Download, tmp_path: Path) -> None:
    with mortal(download.server):
        identity = enrol(download.server, tmp_path / "host")
        with (
            closing(Line(download.server.settings.agent_listen)) as line,
            closing(Connector(_by(identity, line))) as connector,
        ):
            source = Watched(connector)
            have = download.interrupted(source, line.cut)
            download.goes_on(source, have)


class Line:
    """Between host and control plane."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """End every connection that there is; new ones come through."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._target.host, self._target.port))
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _by(identity: Identity, line: Line) -> Identity:
    return replace(identity, server=f"https://127.0.0.1:{line.port}")
