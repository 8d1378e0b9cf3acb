"""Commands run inside a container, with and without a terminal."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import termios
import tty
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, BinaryIO, cast

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.oci import processes, syscalls
from virtmgr.drivers.oci.runtime import Runtime, complaint
from virtmgr.ports.driver import ExecRequest

_TERMINAL_TIMEOUT = 30.0


class TerminalFile:
    """The master of a pseudo-terminal as a stream; a hang-up reads as the end."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "r+b", buffering=0)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(65536 if size < 0 else size) or b""
        except OSError:  # EIO: the last process has closed it
            return b""

    def write(self, data: bytes) -> int:
        return self._file.write(data) or 0

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def __enter__(self) -> TerminalFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OciExecSession:
    """A command that runs inside a container, under a ``runtime exec`` that reports its end."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        directory: Path,
        terminal: TerminalFile | None,
        code_if_not_begun: int,
        *,
        relayed: bool = False,
    ) -> None:
        """:param relayed: the runtime copies between ``terminal`` and the container's own."""
        self._process = process
        self._relayed = relayed
        self._code_if_not_begun = code_if_not_begun
        self._has_begun: bool | None = None  # known at its end
        self._directory = directory
        self._terminal = terminal
        if terminal is not None:
            stream = cast(BinaryIO, terminal)
            self.stdin: BinaryIO | None = stream
            self.stdout: BinaryIO = stream
            self.stderr: BinaryIO | None = None
        else:
            assert process.stdout is not None
            self.stdin = cast("BinaryIO | None", process.stdin)
            self.stdout = cast(BinaryIO, process.stdout)
            self.stderr = cast("BinaryIO | None", process.stderr)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing without a terminal."""
        if self._terminal is not None and not self._terminal.closed:
            _set_size(self._terminal.fileno(), rows, columns)
            if self._relayed and self._process.poll() is None:
                self._process.send_signal(signal.SIGWINCH)

    def wait(self) -> int:
        status = self._process.wait()
        self._forget()
        if status > 0 and not self._has_begun:
            return self._code_if_not_begun
        return 128 - status if status < 0 else status

    def kill(self) -> None:
        """End the command by force; no error if it has ended."""
        try:
            pid = int((self._directory / "pid").read_text())
        except (FileNotFoundError, ValueError):
            pid = 0
        ticks = processes.start_ticks(pid) if pid else None
        if ticks is not None and self._process.poll() is None:
            processes.send_signal(pid, ticks, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._has_begun is None:  # the runtime writes the pid when all went well
            self._has_begun = (self._directory / "pid").exists()
        for name in ("pid", "process.json", "console"):
            (self._directory / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._directory.rmdir()

    def __del__(self) -> None:
        if self._process.poll() is None:
            self.kill()


def code_if_not_begun(root: int, process: Mapping[str, Any]) -> int:
    """The exit code of a command that cannot be begun, as shells have it (POSIX sh, 2.8.2).

    127: there is no such program in the container's ``root``; 126: it cannot be executed.
    """
    name, env = process["args"][0], dict(entry.split("=", 1) for entry in process["env"])
    directories = [""] if "/" in name else env.get("PATH", "").split(":")
    found = (_exists(root, str(Path(process["cwd"], each, name))) for each in directories)
    return 126 if any(found) else 127


def _exists(root: int, path: str) -> bool:
    try:
        os.close(syscalls.open_in_root(root, path, os.O_PATH))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it is there, and more cannot be said
        return True
    return True


def run(
    runtime: Runtime,
    sockets: Path,
    workload_id: str,
    process: dict[str, Any],
    request: ExecRequest,
    code_if_not_begun: int,
) -> OciExecSession:
    """Start ``process`` (OCI runtime-spec) inside a running container.

    :param code_if_not_begun: what the session ends with if the program cannot be executed.
    :raises DriverError: the runtime cannot start it.
    """
    if request.tty:
        process = {**process, "consoleSize": {"height": request.rows, "width": request.columns}}
    directory = Path(mkdtemp(dir=sockets))
    (directory / "process.json").write_text(json.dumps(process))
    arguments = ["--process", str(directory / "process.json")]
    arguments += ["--pid-file", str(directory / "pid")]
    if not request.tty:
        started = runtime.spawn(
            runtime.command("exec", *arguments, workload_id),
            stdin=subprocess.PIPE if request.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return OciExecSession(started, directory, None, code_if_not_begun)
    if not runtime.sends_terminals:
        terminal, own = os.openpty()
        tty.setraw(own)  # the runtime will do so too, but what is typed before must not be echoed
        _set_size(terminal, request.rows, request.columns)
        try:
            started = runtime.spawn(
                runtime.command("exec", *arguments, "--tty", workload_id),
                stdin=own,
                stdout=own,
                stderr=own,
            )
        finally:
            os.close(own)
        file = TerminalFile(terminal)
        return OciExecSession(started, directory, file, code_if_not_begun, relayed=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / "console"))
        listener.listen(1)
        arguments += ["--tty", "--console-socket", str(directory / "console")]
        started = runtime.spawn(
            runtime.command("exec", *arguments, workload_id), stderr=subprocess.PIPE
        )
        assert started.stderr is not None
        terminal = _receive_terminal(listener, started, started.stderr)
    started.stderr.close()
    _set_size(terminal, request.rows, request.columns)
    return OciExecSession(started, directory, TerminalFile(terminal), code_if_not_begun)


def _receive_terminal(
    listener: socket.socket, process: subprocess.Popen[bytes], stderr: IO[bytes]
) -> int:
    """The terminal's master, which the runtime sends over the console socket."""
    listener.settimeout(0.05)
    for _ in range(int(_TERMINAL_TIMEOUT / 0.05)):
        try:
            connection, _address = listener.accept()
        except TimeoutError:
            if process.poll() is not None:
                break
            continue
        with connection:
            connection.settimeout(_TERMINAL_TIMEOUT)
            size = array.array("i").itemsize
            _data, ancillary, _flags, _from = connection.recvmsg(1024, socket.CMSG_SPACE(size))
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received: int = array.array("i", payload[:size])[0]
                    os.set_inheritable(received, False)
                    return received
        break
    process.kill()
    said = complaint(stderr.read().decode("utf-8", "replace"))
    process.wait()
    raise DriverError(f"cannot open a terminal in the container: {said}")


def _set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
