"""conmon, one small process per container: it keeps the log, the terminal and the exit code.

Source: conmon(8), and libpod/oci_conmon_common.go for the two pipes.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.oci.cgroups import Cgroups
from virtmgr.drivers.oci.places import Place
from virtmgr.drivers.oci.runtime import Runtime, complaint

_CREATE_TIMEOUT = 60.0
_NO_COMMAND = re.compile(r"executable file .*not found|exec: .*no such file")  # crun; runc
LOG_LIMIT = 16 * 1024**2  # bytes; conmon starts the log anew when it is full


@dataclass(frozen=True)
class Created:
    """Process ids in the host's namespace."""

    pid: int
    conmon_pid: int


class Conmon:
    """Starts containers under conmon."""

    def __init__(self, runtime: Runtime, cgroups: Cgroups, exits: Path) -> None:
        self.binary = shutil.which("conmon") or "conmon"
        self._runtime = runtime
        self._cgroups = cgroups
        self._exits = exits

    def _command(self, place: Place, *, tty: bool) -> list[str]:
        command = [self.binary, "--api-version", "1", "-c", place.workload_id]
        command += ["-u", place.workload_id, "-n", place.workload_id]
        command += ["-r", self._runtime.binary, "--runtime-arg", "--root"]
        command += ["--runtime-arg", str(self._runtime.root)]
        command += ["-b", str(place.run), "-p", str(place.container_pid)]
        command += ["-P", str(place.conmon_pid), "--exit-dir", str(self._exits)]
        command += ["--persist-dir", str(place.run), "--full-attach", "--no-sync-log"]
        command += ["-l", f"k8s-file:{place.log}", "--log-size-max", str(LOG_LIMIT)]
        if tty:
            command.append("-t")
        return command

    def create(self, place: Place, *, tty: bool) -> Created:
        """Create the container of the bundle in ``place.run``; it waits for ``start``.

        :raises DriverError: with the runtime's complaint.
        """
        for leftover in ("attach", "ctl", "winsz", "oom"):
            (place.run / leftover).unlink(missing_ok=True)
        (self._exits / place.workload_id).unlink(missing_ok=True)
        sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
        start_read, start_write = os.pipe2(os.O_CLOEXEC)
        try:
            process = self._runtime.spawn(
                self._command(place, tty=tty),
                cwd=place.run,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "_OCI_SYNCPIPE": str(sync_write),
                    "_OCI_STARTPIPE": str(start_read),
                },
                pass_fds=(sync_write, start_read),
                stderr=subprocess.PIPE,
            )
            os.close(sync_write)
            sync_write = -1
            # conmon waits for a byte before it forks: what it starts is then in its new group.
            self._cgroups.enter_supervisors(process.pid)
            os.write(start_write, b"\0")
            answer = _read_answer(sync_read)
        finally:
            for fd in (sync_read, sync_write, start_read, start_write):
                if fd >= 0:
                    os.close(fd)
        said = _end(process)
        if answer is None or answer.get("data", -1) <= 0:
            why = str((answer or {}).get("message") or said)
            raise _not_created(place.workload_id, complaint(why))
        return Created(int(answer["data"]), int(place.conmon_pid.read_text()))


def _not_created(workload_id: str, why: str) -> DriverError:
    what = f"cannot create container {workload_id}: {why}"
    if _NO_COMMAND.search(why):
        return DriverError(
            what,
            code="command_not_found",
            hint=f"correct the command with 'virtmgr edit {workload_id}', or create it from an "
            "image that has it",
        )
    return DriverError(what)


def _end(process: subprocess.Popen[bytes]) -> str:
    """Wait for the first conmon process, which leaves its work to a fork; what it said."""
    process.wait(_CREATE_TIMEOUT)
    assert process.stderr is not None
    with process.stderr as stream:
        os.set_blocking(stream.fileno(), False)
        return (stream.read() or b"").decode("utf-8", "replace")


def _read_answer(pipe: int) -> dict[str, Any] | None:
    """The line of JSON that conmon writes once the container is created, or could not be."""
    collected = b""
    deadline = time.monotonic() + _CREATE_TIMEOUT
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while not collected.endswith(b"\n"):
        if not poller.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            break
        piece = os.read(pipe, 65536)
        if not piece:
            break
        collected += piece
    try:
        answer: dict[str, Any] = json.loads(collected)
    except ValueError:
        return None
    return answer
