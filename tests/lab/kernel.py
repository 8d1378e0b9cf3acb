"""Processes and control groups of the lab: thin effects."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_END_SECONDS = 20.0
# With $0…: puts itself into control groups, one file a word up to "--", and becomes the rest.
_JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done; shift; exec "$@"'


# By the file that freezes a group (v1, v2): what to write for "no" and "yes".
_FREEZERS = {"freezer.state": ("THAWED", "FROZEN"), "cgroup.freeze": ("0", "1")}


class LabError(Exception):
    """The lab could not do what was asked; the message says what, and why."""


@dataclass(frozen=True)
class Process:
    """A process; ``started`` (clock ticks since boot) tells it from a later one of the same id."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """:raises LabError: it has ended."""
        started = _started(pid)
        if started is None:
            raise LabError(f"process {pid} has ended")
        return cls(pid, started)

    @property
    def is_alive(self) -> bool:
        return self.pid > 0 and _started(self.pid) == self.started

    def namespace(self, kind: str) -> str:
        """The file of one of its namespaces: ``net``, ``mnt`` …"""
        return f"/proc/{self.pid}/ns/{kind}"


def _started(pid: int) -> int | None:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def hierarchies() -> tuple[tuple[str, str, str], ...]:
    """Control group mounts of the machine: directory, file system type, options to mount it.

    A v2 mount beside v1 ones (hybrid) is left out: crun refuses the mix, and the controllers are
    with v1.
    """
    found = []
    for line in (_PROC / "self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if not target.startswith(str(_CGROUPS)):
            continue
        if kind == "cgroup":
            named = [each for each in options.split(",") if each.startswith("name=")]
            wanted = f"none,{named[0]}" if named else _controllers(options)
            found.append((target, kind, wanted))
        elif kind == "cgroup2" and target == str(_CGROUPS):
            return ((target, kind, ""),)
    return tuple(found)


def _controllers(options: str) -> str:
    general = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr", "clone_children"}
    return ",".join(
        each
        for each in options.split(",")
        if each not in general and not each.startswith("release_agent=")
    )


@dataclass(frozen=True)
class ControlGroup:
    """The same group in every hierarchy; ``path`` is below each one's root."""

    path: str

    def _directories(self) -> list[Path]:
        return [Path(target) / self.path for target, _, _ in hierarchies()]

    def make(self) -> None:
        """Safe to repeat."""
        for directory in self._directories():
            directory.mkdir(parents=True, exist_ok=True)
            for group in (directory.parent, directory):
                _inherit(group)

    def join_files(self) -> list[str]:
        """The files by which a process joins."""
        # Where v2 shares controllers out to children, processes may only be in leaves.
        leaves = [directory / "init.scope" for directory in self._directories()]
        return [str((leaf if leaf.is_dir() else leaf.parent) / "cgroup.procs") for leaf in leaves]

    def freeze(self, frozen: bool) -> None:
        """Stop every process of it where it stands, or let them go on."""
        for directory in self._directories():
            for name, words in _FREEZERS.items():
                if (directory / name).exists():
                    (directory / name).write_text(words[frozen])

    @property
    def is_frozen(self) -> bool:
        for directory in self._directories():
            for name, words in _FREEZERS.items():
                if (directory / name).exists():
                    return (directory / name).read_text().strip() == words[True]
        return False

    def pids(self) -> set[int]:
        """Of every process in it and below."""
        found: set[int] = set()
        for directory in self._directories():
            for file in directory.glob("**/cgroup.procs"):
                try:
                    found.update(int(word) for word in file.read_text().split())
                except OSError:  # the group, or its last process, has just gone
                    continue
        return found - {0}

    def kill(self) -> None:
        """Kill all in it, frozen or not, and wait until they are gone.

        :raises LabError: something does not die.
        """
        deadline = time.monotonic() + _END_SECONDS
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._thaw_all()
            if time.monotonic() > deadline:
                raise LabError(f"processes {sorted(pids)} of {self.path} do not die")
            time.sleep(0.005)

    def _thaw_all(self) -> None:
        # In v1 what is frozen does not even die, and a host may have frozen a container of its own.
        for directory in self._directories():
            for file in directory.glob("**/freezer.state"):
                with suppress(OSError):  # the group may go at any moment
                    file.write_text("THAWED")

    def remove(self) -> None:
        """With all groups below it; it must have no process."""
        deadline = time.monotonic() + _END_SECONDS
        for directory in self._directories():
            while directory.is_dir():
                below = sorted(directory.glob("**/"), reverse=True)
                try:
                    for group in below:
                        group.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:  # the kernel still counts a process that has ended
                    if time.monotonic() > deadline:
                        raise LabError(f"cannot remove {directory}: {error}") from error
                    time.sleep(0.005)


def _inherit(group: Path) -> None:
    """What a group needs before processes may enter (v1), or to share controllers out (v2)."""
    if (group / "cpuset.cpus").exists() and (group / "tasks").exists():
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (group / name).read_text().strip():
                (group / name).write_text((group.parent / name).read_text())
    elif (group.parent / "cgroup.subtree_control").exists():
        offered = (group.parent / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in offered)
        (group.parent / "cgroup.subtree_control").write_text(wanted)


def in_group(group: ControlGroup, command: Sequence[str]) -> list[str]:
    """``command``, so that it runs in ``group``."""
    return ["/bin/sh", "-c", _JOIN, "sh", *group.join_files(), "--", *command]


def in_network(process: Process, command: Sequence[str]) -> list[str]:
    """``command``, so that it runs in the network namespace of ``process``."""
    return ["nsenter", f"--net={process.namespace('net')}", "--", *command]


def checked(command: Sequence[str], input: str | None = None) -> str:
    """Run it to its end; its output.

    :raises LabError: it failed, with what it said.
    """
    done = subprocess.run(
        command, input=input, stdin=None if input else subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)} failed ({done.returncode}): {said}")
    return done.stdout


def wait_until(what: str, ready: Callable[[], bool], seconds: float) -> None:
    """Ask ``ready`` again and again until it says yes.

    :raises LabError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.01)
