"""Stops a host's highly available workloads when its lease has ended. A process of its own.

python -m virtmgr.agent.watchdog DIRECTORY    (started by the agent when there is one to guard)

It needs nothing of the agent, libvirtd or conmon: they may be stopped, killed or hung. It reads a
deadline from a file; past that it kills every process that belongs to a guarded workload, by
workload id in its control group or command line, and goes on looking for more until the lease is
renewed. It holds the gate meanwhile, so that the agent begins no start; an agent that is in the
middle of one is killed. Times are CLOCK_BOOTTIME, which no one steps and which counts suspends.

It imports the standard library only, and allocates little: it must work when the host does not.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

LOOK: Final = 0.25  # seconds between beats at most
_KILL_AGAIN: Final = 0.1  # seconds between looks for processes, when some were there just now
_QUIET: Final = 1.0  # seconds between such looks when there were none for long
_SETTLED: Final = 100  # looks without any process
_NUMBER: Final = struct.Struct("<q")
_IS_ID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUNS_WORKLOADS: Final = re.compile(rb"(?:[^\0]*/)?(?:conmon|crun|runc|qemu)[^/\0]*\0")
_LOCK_EVERYTHING: Final = 3  # MCL_CURRENT | MCL_FUTURE


def _check(id: str) -> None:
    if not _IS_ID.fullmatch(id):
        raise ValueError(f"guarding {id!r}: it is no id of a workload")


def boottime() -> float:
    """Seconds since the host booted, suspends included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FenceFiles:
    """What agent and watchdog say to each other. All of it is gone after a boot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def write_time(self, name: str, seconds: float) -> None:
        """Keep a moment; readers see the old one or the new one."""
        file = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(file, _NUMBER.pack(int(seconds * 1e9)), 0)
        finally:
            os.close(file)

    def read_time(self, name: str) -> float:
        """The moment that was kept; long ago if there is none."""
        try:
            return float(_NUMBER.unpack((self.directory / name).read_bytes())[0]) / 1e9
        except (OSError, struct.error):
            return 0.0

    def write_ids(self, name: str, ids: Collection[str]) -> None:
        """Replace a list of workloads.

        :raises ValueError: one is no id. Processes are known by it: a short one would hit anybody.
        """
        for id in ids:
            _check(id)
        temporary = self.directory / f"{name}.new"
        temporary.write_text(json.dumps(sorted(ids)))
        temporary.replace(self.directory / name)

    def read_ids(self, name: str) -> frozenset[str]:
        """A list of workloads; empty if there is none."""
        try:
            found = json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return frozenset()
        return frozenset(id for id in found if _IS_ID.fullmatch(id))

    def open_lock(self, name: str) -> int:
        """A file to ``flock``."""
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


DEADLINE: Final = "deadline"
BEAT: Final = "beat"
GUARDED: Final = "guarded.json"
STOPPED: Final = "stopped.json"
AGENT: Final = "agent"
GATE: Final = "gate"
ALIVE: Final = "watchdog"


def try_lock(file: int, how: int) -> bool:
    """``flock`` without waiting; whether it was had."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class Watchdog:
    """Looks at the deadline, and acts."""

    def __init__(self, directory: Path) -> None:
        self._files = FenceFiles(directory)
        self._gate = self._files.open_lock(GATE)
        self._quiet = 0

    def run(self) -> None:
        """Until there is no agent any more, and nothing to guard or nothing left of it."""
        while self._files.directory.is_dir() and not self._is_idle():
            time.sleep(self.look())

    def look(self) -> float:
        """Beat, act if the lease has ended; seconds until the next look."""
        self._files.write_time(BEAT, boottime())
        left = self._files.read_time(DEADLINE) - boottime()
        if left > 0:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
            self._quiet = 0
            return min(left, LOOK)
        if not try_lock(self._gate, fcntl.LOCK_EX):
            self._kill_agent()
        found = self._kill()
        self._quiet = 0 if found else self._quiet + 1
        return _KILL_AGAIN if self._quiet < _SETTLED else _QUIET

    def _kill(self) -> bool:
        """Kill what runs of guarded workloads; whether there was anything."""
        found = dict(belonging(self._files.read_ids(GUARDED)))
        if not found:
            return False
        known = self._files.read_ids(STOPPED)
        stopped = known | set(found.values())
        if stopped != known:
            self._files.write_ids(STOPPED, stopped)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        sys.stderr.write(f"watchdog: the lease has ended, killed {len(found)} processes\n")
        return True

    def _kill_agent(self) -> None:
        pid, _, start = self._agent()
        if pid and start_of(pid) == start:
            sys.stderr.write(f"watchdog: the lease ended during a start, killing agent {pid}\n")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _agent(self) -> tuple[int, str, str]:
        try:
            pid, space, start = (self._files.directory / AGENT).read_text().partition(" ")
            return int(pid), space, start
        except (OSError, ValueError):
            return 0, "", ""

    def _is_idle(self) -> bool:
        pid, _, start = self._agent()
        there = bool(pid) and start_of(pid) == start
        done = self._quiet >= _SETTLED or not self._files.read_ids(GUARDED)
        return not there and done  # an agent that comes starts another before it has a lease


def belonging(ids: Collection[str]) -> Iterator[tuple[int, str]]:
    """(process, workload) of every process that belongs to one of these workloads.

    A container's processes have its id in their control group; conmon, the OCI runtime and QEMU
    in their command lines. Others that name it there, such as an operator's, are left alone.
    """
    for id in ids:
        _check(id)
    wanted = [(id.encode(), id) for id in ids]
    if not wanted:
        return
    me = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208  many of them, and often
        if not name.isdigit() or int(name) == me:
            continue
        text, command = _read(f"/proc/{name}/cgroup"), _read(f"/proc/{name}/cmdline")
        if _RUNS_WORKLOADS.match(command):
            text += command
        for needle, id in wanted:
            if needle in text and not _has_ended(name):
                yield int(name), id
                break


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _has_ended(pid: str) -> bool:
    state = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return not state or state[0] in (b"Z", b"X")


def _harden() -> None:
    """Be there when memory and CPU are short; what the host does not allow is left out."""
    ctypes.CDLL(None).mlockall(_LOCK_EVERYTHING)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def main() -> None:
    directory = Path(sys.argv[1])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a shutdown kills it last
    lock = FenceFiles(directory).open_lock(ALIVE)
    if not try_lock(lock, fcntl.LOCK_EX):
        return  # there is one
    os.pwrite(lock, f"{os.getpid()} {start_of(os.getpid())}".encode(), 0)
    os.chdir("/")
    _harden()
    Watchdog(directory).run()


if __name__ == "__main__":
    main()
