"""What libvirt leaves of domains that are gone: its log of each, cgroups, its notes of a run.

It never removes QEMU's log. The others stay where QEMU ended while libvirtd was away: a cgroup on
hosts without systemd (which removes its own scopes), with cgroup v1 one in each hierarchy.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt.errors import attempt

_log = logging.getLogger(__name__)

_LOGS = Path("/var/log/libvirt/qemu")  # of the system's libvirtd, as in every distribution
_NOTES = Path("/run/libvirt/qemu")
_MOUNTS = Path("/proc/self/mounts")
_PARTITION = "machine"  # libvirt's default, https://libvirt.org/cgroups.html
_GONE = (errno.ENOENT, errno.ENODEV)
_FILE = re.compile(r"(virtmgr-.+-[0-9a-f]{12})\.(?:log(?:\.\d+)?|pid|xml)")  # rotated: .0, .1 …
_CGROUP = re.compile(r"qemu-(\d+)-(virtmgr-.+)\.libvirt-qemu")
_LOOK_AGAIN = 5.0  # seconds


class Sweeper:
    """Sweeps, and again later while a process that ends is still in what is to be removed."""

    def __init__(self, connect: Callable[[], Any], uri: str) -> None:
        self._connect = connect
        self._uri = uri
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    def sweep(self) -> None:
        """Remove what can be removed now.

        :raises DriverError: libvirtd does not answer.
        :raises OSError: something cannot be removed.
        """
        with attempt("remove what is left of VMs that are gone"):
            if not sweep(self._connect(), self._uri):
                self._sweep_later()

    def close(self) -> None:
        with self._lock:
            if self._later is not None:
                self._later.cancel()

    def _sweep_later(self) -> None:
        with self._lock:
            if self._later is not None and self._later.is_alive():
                return
            self._later = threading.Timer(_LOOK_AGAIN, self._again)
            self._later.daemon = True
            self._later.start()

    def _again(self) -> None:
        with self._lock:
            self._later = None
        try:
            self.sweep()
        except (DriverError, OSError) as error:  # the next connection sweeps too
            _log.warning("what was left of VMs that are gone is still there: %s", error)


def sweep(connection: Any, uri: str) -> bool:
    """Remove what was left of domains of ours that ``connection`` does not know any more.

    Nothing is done where ``uri`` leads to another host or to a user's own libvirtd. False where
    processes are still in what is to be removed.

    :raises OSError: something cannot be removed.
    """
    if not is_local_system(uri):
        return True
    logs, notes, cgroups = _names(_LOGS), _names(_NOTES), _cgroups()
    domains = connection.listAllDomains()  # after the files: what is new has a domain
    defined = {domain.name() for domain in domains}
    running = {domain.ID(): domain.name() for domain in domains if domain.ID() >= 0}
    for name in orphans(logs, defined):
        (_LOGS / name).unlink(missing_ok=True)
    for name in orphans(notes, defined):
        if not _is_alive((_NOTES / name).with_suffix(".pid")):  # else libvirt may find it again
            (_NOTES / name).unlink(missing_ok=True)
    removed = [remove_cgroup(each) for each in cgroups if is_orphaned_cgroup(each.name, running)]
    return all(removed)


def is_local_system(uri: str) -> bool:
    """Whether ``uri`` (https://libvirt.org/uri.html) is this host's system-wide libvirtd."""
    parts = urlsplit(uri)
    local = parts.scheme in ("qemu", "qemu+unix") and not parts.netloc
    return local and parts.path == "/system" and "socket=" not in parts.query


def orphans(files: Iterable[str], defined: Iterable[str]) -> list[str]:
    """Those of ``files`` that are of our domains, but of none that is ``defined``."""
    known = set(defined)
    found = {file: _FILE.fullmatch(file) for file in files}
    return [file for file, match in found.items() if match and match[1] not in known]


def is_orphaned_cgroup(name: str, running: Mapping[int, str]) -> bool:
    """Whether a cgroup's ``name`` was made for a domain of ours that is not ``running``.

    :param running: names of the domains that run, by their number.
    """
    match = _CGROUP.fullmatch(name)
    if match is None:
        return False
    owner = running.get(int(match[1]), "")
    # libvirt shortens long names and runs of hyphens.
    return not owner.replace("-", "").startswith(match[2].replace("-", ""))


def remove_cgroup(cgroup: Path) -> bool:
    """Remove a cgroup and those below it; nothing if a process is in any of them.

    Others may remove them at the same time. Whether it is gone.
    """
    every = [Path(directory) for directory, _, _ in os.walk(cgroup, topdown=False)]
    if any(_has_processes(path) for path in every):
        return False
    for path in every:
        try:
            path.rmdir()
        except OSError as error:
            if error.errno not in (*_GONE, errno.EBUSY):  # busy: a process that ends is in it yet
                raise
    return not cgroup.exists()


def _has_processes(cgroup: Path) -> bool:
    try:
        return bool((cgroup / "cgroup.procs").read_text())
    except OSError as error:
        if error.errno in (*_GONE, errno.EOPNOTSUPP):  # threaded (cgroup v2): its parent tells
            return False
        raise


def _is_alive(pid_file: Path) -> bool:
    try:
        return Path(f"/proc/{int(pid_file.read_text())}").exists()
    except (FileNotFoundError, ValueError):
        return False


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []


def _cgroups() -> list[Path]:
    """Every cgroup in libvirt's partition, in all mounted hierarchies."""
    mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    roots = {Path(mount[1]) / _PARTITION for mount in mounts if mount[2] in ("cgroup", "cgroup2")}
    return [root / name for root in sorted(roots) for name in _names(root)]
