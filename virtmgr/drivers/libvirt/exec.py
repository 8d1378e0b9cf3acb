"""Commands run inside a VM by its guest agent.

The agent has no streams: input is put into a file in the guest before the command starts, output
goes to files that are read as they grow. They lie in a directory that only root may enter, and
are removed when the command has ended.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from contextlib import suppress
from typing import BinaryIO, cast

from virtmgr.domain.errors import DriverError, Unsupported
from virtmgr.domain.values import format_bytes
from virtmgr.domain.workload import MIB
from virtmgr.drivers.libvirt.agent import GuestAgent, Pace
from virtmgr.ports.driver import ExecRequest

_LARGEST = 64 * MIB  # of a command's input, and of its output and errors
_CHUNK = 65536
_POLL = 500  # milliseconds
_DIRECTORY = "/tmp/virtmgr-"  # in the guest; made anew, so that no link is followed
# Scripts are constants, what varies are their arguments.
_MAKE = 'mkdir -m 700 "$0" && : >"$0/in" && : >"$0/out" && : >"$0/err"'
_RUN = 'exec <"$0/in" >"$0/out" 2>"$0/err" && cd "$1" && shift && exec "$@"'
_KILL = 'kill -9 "$0"'
_REMOVE = 'rm -rf "$0"'
_NOT_RUN = 126


class AgentExecSession:
    """A command in a VM. It starts once its input is complete."""

    def __init__(
        self, agent: GuestAgent, command: tuple[str, ...], workdir: str, *, stdin: bool, limit: int
    ) -> None:
        self._agent = agent
        self._command = command
        self._workdir = workdir
        self._limit = limit
        self._directory = _DIRECTORY + secrets.token_hex(8)
        self._killed = threading.Event()
        self._code = _NOT_RUN
        self._failure: DriverError | None = None
        if agent.run("sh", "-c", _MAKE, self._directory) != 0:
            raise DriverError(f"cannot run {command[0]} in the guest: its /tmp is not writable")
        self._input, input_end = os.pipe()
        output, self._output = os.pipe()
        errors, self._errors = os.pipe()
        for end in (self._output, self._errors):
            os.set_blocking(end, False)
        self.stdin: BinaryIO | None = None
        self.stdout = cast(BinaryIO, os.fdopen(output, "rb", buffering=0))
        self.stderr: BinaryIO | None = cast(BinaryIO, os.fdopen(errors, "rb", buffering=0))
        if stdin:
            self.stdin = cast(BinaryIO, os.fdopen(input_end, "wb", buffering=0))
        else:
            os.close(input_end)
        self._thread = threading.Thread(target=self._carry, name="vm-exec", daemon=True)
        self._thread.start()

    def resize(self, rows: int, columns: int) -> None:
        """Nothing: there is no terminal."""

    def wait(self) -> int:
        """The exit code.

        :raises DriverError: the guest agent was lost, or there was too much input or output.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._code

    def kill(self) -> None:
        """End the command by force; no error if it has ended."""
        self._killed.set()
        self._thread.join()

    def _carry(self) -> None:
        try:
            try:
                self._upload()
                if not self._killed.is_set():
                    self._run()
            finally:
                with suppress(DriverError):  # the guest is gone, and its /tmp with it
                    self._agent.run("sh", "-c", _REMOVE, self._directory)
        except DriverError as error:
            self._failure = error
        finally:
            for end in (self._input, self._output, self._errors):
                os.close(end)

    def _upload(self) -> None:
        """Put the input into its file, until it ends."""
        if self.stdin is None:
            return
        handle = self._agent.open(f"{self._directory}/in", "w")
        size = 0
        while (piece := self._next_input()) and size <= self._limit:
            self._agent.write(handle, piece)
            size += len(piece)
        self._agent.close(handle)
        if size > self._limit:
            raise self._too_much("input")

    def _next_input(self) -> bytes:
        poll = select.poll()
        poll.register(self._input, select.POLLIN)
        while not poll.poll(_POLL):
            if self._killed.is_set():
                return b""
        return os.read(self._input, _CHUNK)

    def _run(self) -> None:
        outputs = {
            self._agent.open(f"{self._directory}/{name}", "r"): end
            for name, end in (("out", self._output), ("err", self._errors))
        }
        pid = self._agent.spawn("sh", "-c", _RUN, self._directory, self._workdir, *self._command)
        size, pace = 0, Pace()
        while True:
            code = self._agent.exit_code(pid)  # asked first: what came before the end is read
            read = sum(self._drain(handle, end) for handle, end in outputs.items())
            size += read
            if code is None and (size > self._limit or self._killed.is_set()):
                self._agent.run("sh", "-c", _KILL, str(pid))
                code = self._agent.wait(pid)
            if code is not None:
                break
            if read:
                pace.hurry()
            pace.wait()
        for handle in outputs:
            self._agent.close(handle)
        if size > self._limit:
            raise self._too_much("output")
        self._code = code

    def _drain(self, handle: int, end: int) -> int:
        """Pass on what is in an output file by now; how many bytes."""
        size = 0
        while size <= self._limit and not self._killed.is_set():
            content = self._agent.read(handle)
            if not content:
                break
            size += len(content)
            self._pass_on(end, content)
        return size

    def _pass_on(self, end: int, content: bytes) -> None:
        """Write to who reads, at its pace; nobody reads any more once it was killed."""
        poll = select.poll()
        poll.register(end, select.POLLOUT)
        left = memoryview(content)
        while left and not self._killed.is_set():
            if poll.poll(_POLL):
                try:
                    left = left[os.write(end, left) :]
                except BlockingIOError:
                    continue  # less room than wanted: wait again
                except BrokenPipeError:
                    return

    def _too_much(self, what: str) -> DriverError:
        return DriverError(
            f"cannot go on with {self._command[0]} in the guest: its {what} is more than "
            f"{format_bytes(self._limit)}",
            code="too_much_data",
            hint="use a volume, or SSH",
        )


def run(agent: GuestAgent, request: ExecRequest) -> AgentExecSession:
    """Start a command in a VM, as root.

    :raises Unsupported: it needs a terminal or another user.
    :raises DriverError: no agent answers.
    """
    if request.tty:
        raise Unsupported(
            "cannot give a command in a VM a terminal: its guest agent has none",
            hint="leave -t out, or use 'virtmgr console' or SSH",
        )
    if request.user is not None:
        raise Unsupported(
            "cannot run a command in a VM as another user: its guest agent runs as root",
            hint="use su or runuser in the command",
        )
    environment = [f"{name}={value}" for name, value in request.env.items()]
    command = ("env", *environment, *request.command) if environment else request.command
    return start(agent, command, workdir=request.workdir or "/", stdin=request.stdin)


def start(
    agent: GuestAgent,
    command: tuple[str, ...],
    *,
    workdir: str = "/",
    stdin: bool = False,
    limit: int = _LARGEST,
) -> AgentExecSession:
    """Start a command in a VM, as root; ``limit``: bytes that it may read, and that it may write.

    :raises DriverError: no agent answers.
    """
    agent.connect()
    return AgentExecSession(agent, command, workdir, stdin=stdin, limit=limit)
