"""What is remembered of a VM's last run: libvirt forgets it when libvirtd restarts.

Decided here as well: what libvirt's states mean for virtmgr.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import libvirt
from pydantic import ValidationError

from virtmgr.domain.values import Message
from virtmgr.drivers.libvirt.layout import replacing
from virtmgr.ports.driver import Inspection, RuntimeState

_FAILED = {
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED,
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON,
}
_PAUSED = {libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED}
_ENDED = {libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}


class Run(Message):
    """One run of a VM on this host: from its start to its end, once it has ended."""

    boot_id: str  # of the host; a run of an earlier boot says nothing any more
    started_at: datetime
    finished_at: datetime | None = None
    exit_code: int | None = None


@cache
def boot_id() -> str:
    """The host's boot, random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load(path: Path) -> Run | None:
    """The last run since the host booted; None if there was none."""
    try:
        run = Run.read(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return run if run.boot_id == boot_id() else None


def save(path: Path, run: Run | None) -> None:
    """Remember ``run``; forget it where it is None."""
    if run is None:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as partial:
        partial.write_text(run.model_dump_json())


def begin() -> Run:
    return Run(boot_id=boot_id(), started_at=datetime.now(UTC))


def taken_over(run: Run) -> Run:
    """A run that goes on on this host."""
    return run.model_copy(update={"boot_id": boot_id()})


def end(run: Run, reason: int) -> Run:
    """``run``, ended for libvirt's shut-off ``reason``; unchanged if it has ended before.

    Exit codes: 1 where QEMU or the guest crashed, 0 where it shut down or was told to, None where
    libvirt does not know any more.
    """
    if run.finished_at is not None:
        return run
    known = reason != libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN
    exit_code = int(reason in _FAILED) if known else None
    return run.model_copy(update={"finished_at": datetime.now(UTC), "exit_code": exit_code})


def judge(
    state: int, reason: int, run: Run | None, pid: int | None
) -> tuple[Inspection, Run | None]:
    """What libvirt's ``state`` and ``reason`` mean, and the run as it is to be remembered."""
    if state not in _ENDED:
        if run is None or run.finished_at is not None:  # started by hand
            run = begin()
        seen = RuntimeState.PAUSED if state in _PAUSED else RuntimeState.RUNNING
        return Inspection(seen, started_at=run.started_at, pid=pid), run
    if run is None:  # also after a start that failed
        return Inspection(RuntimeState.PREPARED), None
    crashed = state == libvirt.VIR_DOMAIN_CRASHED
    ended = end(run, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED if crashed else reason)
    return (
        Inspection(
            RuntimeState.EXITED,
            exit_code=ended.exit_code,
            started_at=ended.started_at,
            finished_at=ended.finished_at,
        ),
        ended,
    )
