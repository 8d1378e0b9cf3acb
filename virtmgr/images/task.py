"""One import or build under way: its progress, its cancellation, and the tools that it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from virtmgr.domain.errors import ImageError
from virtmgr.ports.images import Cancelled, ImageProgress

_TAIL = 12
_POLL = 0.2  # seconds between two looks at a tool
_KILL_LOOKS = 500


@dataclass(frozen=True)
class ToolLimits:
    """Bounds for a tool that reads what is not trusted (setrlimit(2))."""

    address_space: int = 2 * 1024**3
    cpu_seconds: int = 60
    file_size: int | None = None  # of each file that it writes

    def command(self) -> list[str]:
        command = ["prlimit", f"--as={self.address_space}", f"--cpu={self.cpu_seconds}", "--core=0"]
        return [*command, *([] if self.file_size is None else [f"--fsize={self.file_size}"])]


@dataclass
class Task:
    """Passed down to every step."""

    progress: ImageProgress
    cancelled: Cancelled
    message: str = ""
    done: int = 0
    total: int | None = None
    _reported: float = field(default=0.0, repr=False)

    def phase(self, message: str, total: int | None = None) -> None:
        """Begin something new, of ``total`` bytes if known."""
        self.message, self.done, self.total = message, 0, total
        self.check()
        self.progress(0, total, message)

    def check(self) -> None:
        """:raises ImageError: the task was cancelled."""
        if self.cancelled():
            raise ImageError("the work on the image was cancelled", code="image_cancelled")

    def advance(self, count: int) -> None:
        """Count bytes; reports a few times a second."""
        self.done += count
        now = time.monotonic()
        if now - self._reported > _POLL:
            self._reported = now
            self.check()
            self.progress(self.done, self.total, self.message)

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """``chunks`` themselves, counted as they pass."""
        for chunk in chunks:
            self.advance(len(chunk))
            yield chunk

    def run(
        self,
        arguments: Sequence[str],
        *,
        limits: ToolLimits | None = None,
        environment: Mapping[str, str] | None = None,
        accept: Sequence[int] = (0,),
        timeout: float = 3600,
        directory: Path | None = None,
        watch: Callable[[], None] | None = None,
        code: str | None = None,
        output: Path | None = None,
    ) -> bytes:
        """Run a tool to its end and return its standard output, or write it to file ``output``.

        It has a session of its own, which is killed as a whole on cancellation, after
        ``timeout`` seconds, or when ``watch``, called several times a second, raises.

        :raises ImageError: (``code``) it is missing, or ends with a code that is not in
            ``accept``; the message has its last lines.
        """
        require_tool(arguments[0])
        command = [*(limits.command() if limits else ()), *arguments]
        written = open(output, "xb+") if output else tempfile.TemporaryFile()  # noqa: SIM115
        with written as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=directory,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
                start_new_session=True,
            )
            try:
                self._wait(process, arguments[0], timeout, watch)
            finally:
                _kill_session(process)
            out.seek(0)
            err.seek(0)
            said, errors = b"" if output else out.read(), err.read()
        if process.returncode not in accept:
            raise ImageError(
                f"{Path(arguments[0]).name} failed ({process.returncode}) while {self.message}:\n"
                + _last_lines(errors.strip() or said),
                code=code,
            )
        return said

    def _wait(
        self,
        process: subprocess.Popen[bytes],
        name: str,
        timeout: float,
        watch: Callable[[], None] | None,
    ) -> None:
        deadline = time.monotonic() + timeout
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_POLL)
                return
            self.check()
            if watch is not None:
                watch()
            if time.monotonic() > deadline:
                raise ImageError(f"{name} did not end within {timeout:.0f} s, {self.message}")


def require_tool(name: str) -> None:
    """:raises ImageError: the tool is not installed."""
    if shutil.which(name) is None:
        raise ImageError(
            f"{name} is needed on the control plane and is not installed",
            code="tool_missing",
            hint=f"Install it: apt-get install {_PACKAGES.get(name, name)}",
        )


_PACKAGES = {
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "prlimit": "util-linux",
    "sqfs2tar": "squashfs-tools-ng",
}


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill the tool and all that it started, and wait until they are gone."""
    for _ in range(_KILL_LOOKS):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        process.poll()
        time.sleep(_POLL / 20)
    process.wait()


def _last_lines(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-_TAIL:])
