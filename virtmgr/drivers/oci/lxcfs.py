"""lxcfs: files of /proc that show a container its own limits (lxcfs(1)).

Where the host runs it, system containers get them, and ``free``, ``top`` and ``uptime`` tell the
container's truth. An lxcfs that has died, or hangs, must hold up nobody: it is asked first, by a
process that can be killed, and what it does not answer is left out.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import structlog

from virtmgr.drivers.oci import mounts
from virtmgr.drivers.oci.runtime import Runtime

_PATIENCE = 2.0  # seconds
_log = structlog.get_logger(__name__)


def proc_files(runtime: Runtime) -> tuple[Path, ...]:
    """What lxcfs offers for /proc, where the runtime sees it; nothing where it does not answer."""
    targets = [mount.target for mount in mounts.mounts() if mount.type == "fuse.lxcfs"]
    if not targets:
        return ()
    directory = targets[-1] / "proc"
    asked = runtime.spawn(["ls", str(directory)], stdout=subprocess.PIPE)
    try:
        names = asked.communicate(timeout=_PATIENCE)[0].decode().split()
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        names = []
    if not names:
        _log.warning("lxcfs does not answer: a container starts without it", path=str(directory))
    return tuple(directory / name for name in names)
