"""The fake driver: keeps the driver port's contract over imaginary guests."""

from __future__ import annotations

import contextlib
import io
import json
import posixpath
import socket
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import BinaryIO, cast

from virtmgr.domain.errors import DriverError, NotFound
from virtmgr.domain.host import DriverFacts
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Init, Kind, Usage
from virtmgr.drivers.fake.migrating import Migrates
from virtmgr.drivers.fake.world import FakeWorld, Guest
from virtmgr.ports.driver import (
    Capabilities,
    ExecRequest,
    ExecSession,
    Feature,
    Inspection,
    Luggage,
    OnChange,
    Provision,
    RuntimeState,
    UpdateResult,
)

_LIVE = (RuntimeState.RUNNING, RuntimeState.PAUSED)
_FILES = "files.json"  # in the luggage of one that moves
_AT_START = (
    *("name", "image", "command", "env", "workdir", "user", "firmware", "boot", "user_data"),
)


class FakeExecSession:
    """A finished command with what it said."""

    def __init__(self, code: int, output: bytes, errors: bytes, request: ExecRequest) -> None:
        self._code = code
        self.stdin: BinaryIO | None = io.BytesIO() if request.stdin or request.tty else None
        self.stdout: BinaryIO = io.BytesIO(output)
        self.stderr: BinaryIO | None = None if request.tty else io.BytesIO(errors)

    def resize(self, rows: int, columns: int) -> None:
        """Nothing to resize."""

    def wait(self) -> int:
        return self._code

    def kill(self) -> None:
        """It has ended."""


def run_command(request: ExecRequest) -> tuple[int, bytes]:
    """Exit code and output of ``echo TEXT…``, ``exit CODE``, ``true`` and ``false``."""
    name, *arguments = request.command
    if name == "echo":
        return 0, " ".join(arguments).encode() + b"\n"
    if name == "exit":
        return int(arguments[0]), b""
    known = {"true": 0, "false": 1}
    return known.get(name, 127), b""


class FakeDriver(Migrates):
    """Runs workloads of any kind in a :class:`FakeWorld`, as its script says."""

    def __init__(
        self,
        world: FakeWorld | None = None,
        *,
        name: str = "fake",
        kinds: Iterable[Kind] = tuple(Kind),
        features: Iterable[Feature] = tuple(set(Feature) - {Feature.DISPLAY, Feature.POST_COPY}),
    ) -> None:
        """Make a driver.

        :param world: its guests; the same one again after a restart of the agent.
        """
        self.name = name
        self.world = world or FakeWorld()
        self._kinds = frozenset(kinds)
        self._features = frozenset(features)
        self._stop_listening: Callable[[], None] | None = None

    def capabilities(self) -> Capabilities:
        missing = frozenset(Feature) - self._features
        return Capabilities(
            kinds=self._kinds,
            inits=frozenset(Init) if Kind.CONTAINER in self._kinds else frozenset(),
            features=self._features,
            why_not=dict.fromkeys(missing, "the fake driver was made without it"),
        )

    def facts(self) -> DriverFacts:
        offered = self.capabilities()
        return DriverFacts(
            name=self.name,
            healthy=True,
            version="1",
            kinds=tuple(sorted(offered.kinds)),
            inits=tuple(sorted(offered.inits)),
            features=tuple(sorted(offered.features)),
        )

    def recover(self, on_change: OnChange) -> None:
        self._stop_listening = self.world.listen(on_change)

    def close(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    # -- verbs -----------------------------------------------------------------------------

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> None:
        del provision
        with self.world.verb("prepare", workload.id):
            if self.world.guest(workload.id) is None:
                self.world.put(workload.id, Guest(workload=workload.model_dump(mode="json")))

    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        del provision
        with self.world.verb("clone", workload.id):
            source = self.world.guest(source_id)
            if source is None or source.state in _LIVE:
                raise DriverError(f"cannot clone workload {source_id}: it runs or is not here")
            copy = Guest(workload=workload.model_dump(mode="json"), files=source.files)
            self.world.put(workload.id, copy)

    @contextlib.contextmanager
    def leave(self, workload_id: str) -> Iterator[Luggage]:
        guest = self.world.guest(workload_id)
        if guest is None or guest.state in _LIVE:
            raise DriverError(f"workload {workload_id} runs or is not here", code="in_use")
        with tempfile.NamedTemporaryFile("w") as file:
            json.dump(guest.files, file)
            file.flush()
            yield Luggage({_FILES: Path(file.name)})

    def arrive(self, workload: DesiredWorkload, provision: Provision, luggage: Luggage) -> None:
        del provision
        with self.world.verb("arrive", workload.id):
            files = json.loads(luggage.files[_FILES].read_text())
            guest = Guest(workload=workload.model_dump(mode="json"), files=files)
            self.world.put(workload.id, guest)

    def start(self, workload: DesiredWorkload, provision: Provision) -> None:
        del provision
        with self.world.verb("start", workload.id):
            guest = self.world.guest(workload.id) or Guest()
            if guest.state in _LIVE:
                return
            started = Guest(
                state=RuntimeState.RUNNING,
                workload=workload.model_dump(mode="json"),
                pid=self.world.next_pid(),
                started_at=datetime.now(UTC).isoformat(),
                output=guest.output + f"{workload.name} started\n",
                files=guest.files,
            )
            self.world.put(workload.id, started)

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        del timeout
        with self.world.verb("stop", workload_id):
            guest = self.world.guest(workload_id)
            if guest is None or guest.state not in _LIVE:
                return
            ended = replace(
                guest,
                state=RuntimeState.EXITED,
                exit_code=137 if force else 0,
                signal=9 if force else None,
                finished_at=datetime.now(UTC).isoformat(),
            )
            self.world.put(workload_id, ended)

    def pause(self, workload_id: str) -> None:
        self._switch("pause", workload_id, RuntimeState.PAUSED)

    def resume(self, workload_id: str) -> None:
        self._switch("resume", workload_id, RuntimeState.RUNNING)

    def _switch(self, verb: str, workload_id: str, state: RuntimeState) -> None:
        with self.world.verb(verb, workload_id):
            self.world.put(workload_id, replace(self._live(verb, workload_id), state=state))

    def _live(self, verb: str, workload_id: str) -> Guest:
        guest = self.world.guest(workload_id)
        if guest is None or guest.state not in _LIVE:
            raise DriverError(
                f"cannot {verb} workload {workload_id}: it is not running", code="not_running"
            )
        return guest

    def update(self, workload: DesiredWorkload, provision: Provision) -> UpdateResult:
        del provision
        with self.world.verb("update", workload.id):
            guest = self.world.guest(workload.id)
            if guest is None or guest.state not in _LIVE:
                return UpdateResult()
            applied = DesiredWorkload.read_from(guest.workload)
            return UpdateResult(
                needs_restart=tuple(
                    name
                    for name in _AT_START
                    if getattr(applied.spec, name) != getattr(workload.spec, name)
                )
            )

    def destroy(self, workload_id: str) -> None:
        with self.world.verb("destroy", workload_id):
            self.world.remove(workload_id)

    # -- what is there ---------------------------------------------------------------------

    def inspect(self, workload_id: str) -> Inspection:
        with self.world.verb("inspect", workload_id):
            guest = self.world.guest(workload_id)
            return Inspection(RuntimeState.ABSENT) if guest is None else guest.inspect()

    def list(self) -> tuple[str, ...]:
        with self.world.verb("list", ""):
            return tuple(sorted(self.world.guests()))

    def stats(self, workload_ids: Iterable[str]) -> Mapping[str, Usage]:
        guests = self.world.guests()
        now = datetime.now(UTC)
        return {
            identity: Usage(at=now, cpu_seconds=1.0, memory=1 << 20, disk=1 << 20, pids=1)
            for identity in workload_ids
            if identity in guests and guests[identity].state in _LIVE
        }

    # -- streams and files -----------------------------------------------------------------

    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession:
        with self.world.verb("exec", workload_id):
            self._live("run a command in", workload_id)
            code, output = run_command(request)
            return FakeExecSession(code, output, b"", request)

    def console(self, workload_id: str) -> socket.socket:
        """A console that repeats what it is told."""
        with self.world.verb("console", workload_id):
            self._live("open the console of", workload_id)
        ours, theirs = socket.socketpair()
        Thread(target=_repeat, args=(ours,), name="fake-console", daemon=True).start()
        return theirs

    def logs(self, workload_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        guest = self.world.guest(workload_id)
        if guest is None:
            return
        lines = guest.output.splitlines(keepends=True)
        shown = lines if tail is None else lines[max(0, len(lines) - tail) :]
        if shown:
            yield "".join(shown).encode()
        position = len(guest.output)
        while follow:
            guest = self.world.guest(workload_id)
            if guest is None:
                return
            if len(guest.output) > position:
                yield guest.output[position:].encode()
                position = len(guest.output)
            elif guest.state in _LIVE:
                self.world.wait(1.0)
                yield b""
            else:
                return

    def pull(self, workload_id: str, path: str) -> Iterator[bytes]:
        guest = self.world.guest(workload_id)
        found = {} if guest is None else guest.files
        below = path.rstrip("/") + "/"
        names = [name for name in found if name == path or name.startswith(below)]
        if not names:
            raise NotFound(f"cannot read {path} in workload {workload_id}: there is no such file")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in names:
                content = found[name].encode("latin-1")
                member = tarfile.TarInfo(posixpath.relpath(name, posixpath.dirname(path)))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return iter([archive.getvalue()])

    def export(self, workload_id: str) -> Generator[bytes, None, None]:
        """Its files as a tar; of a VM, too."""
        guest = self.world.guest(workload_id)
        if guest is None or guest.state in _LIVE:
            raise DriverError(f"workload {workload_id} runs or is not here", code="in_use")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in sorted(guest.files.items()):
                member = tarfile.TarInfo(name.lstrip("/"))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content.encode("latin-1")))
        yield archive.getvalue()

    def push(self, workload_id: str, path: str, tar: BinaryIO) -> None:
        with self.world.verb("push", workload_id):
            guest = self.world.guest(workload_id)
            if guest is None:
                raise DriverError(f"workload {workload_id} is not on this host")
            files = dict(guest.files)
            with tarfile.open(fileobj=tar, mode="r|*") as archive:
                for member in archive:
                    if member.isreg():
                        content = cast(BinaryIO, archive.extractfile(member)).read()
                        name = posixpath.normpath(posixpath.join(path, member.name))
                        files[name] = content.decode("latin-1")
            self.world.put(workload_id, replace(guest, files=files))


def _repeat(console: socket.socket) -> None:
    with console, contextlib.suppress(ConnectionError):  # its reader may leave at any time
        while data := console.recv(4096):
            console.sendall(data)
