"""Live migration (https://libvirt.org/migration.html), peer to peer over Unix sockets.

The target's guest is left paused (``VIR_MIGRATE_PAUSED``): libvirt resumes the source's where the
answer to its last call is lost, although the target's may run by then. Here the target's runs only
after the source's agent has seen that its own is gone, and has that on its disk.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import libvirt

from virtmgr.domain.converging import Act, Sample, Tactics, begin, consider
from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import MigrationLimits
from virtmgr.domain.workload import Reason
from virtmgr.drivers.libvirt import power
from virtmgr.drivers.libvirt.errors import attempt, translate
from virtmgr.drivers.libvirt.facts import Owner
from virtmgr.drivers.libvirt.gate import Gate, Refused, expected
from virtmgr.drivers.libvirt.implied import Words
from virtmgr.ports.driver import Departure, Door, JobProgress, MigrationWatch, Passage

_log = logging.getLogger(__name__)

_LOOK: Final = 0.25  # seconds between looks at a job
_PIECE: Final = 65536
_PATIENCE: Final = 60.0  # seconds for a job to end that was asked to
_FLAGS: Final = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
_CONTROL_SOCKETS: Final = (
    Path("/run/libvirt/virtqemud-sock"),  # of the modular daemons, where they are used
    Path("/run/libvirt/libvirt-sock"),
)


def depart(
    domain: Any, workload_id: str, passage: Passage, limits: MigrationLimits, watch: MigrationWatch
) -> Departure:
    """Let a guest go; how that ended.

    :raises DriverError: that is not known.
    """
    done = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(domain, limits, watch, done), name="migration", daemon=True
    )
    watcher.start()
    failure: libvirt.libvirtError | None = None
    try:
        uri = f"qemu+unix:///system?socket={passage.door(Door.CONTROL)}"
        parameters, flags = _parameters(domain, passage, limits)
        domain.migrateToURI3(uri, parameters, flags)
    except libvirt.libvirtError as error:
        failure = error
    finally:
        done.set()
        watcher.join()
    departure = settle(domain, workload_id)
    if departure.departed or failure is None:
        return replace(departure, copied=_copied(domain))
    return Departure(departed=False, reason=_why(failure, workload_id, watch))


def _copied(domain: Any) -> int:
    """Bytes that went over, disks included; 0 where libvirt has forgotten it."""
    try:
        found = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError:
        return 0
    return int(found.get("data_processed", 0))


def _why(failure: libvirt.libvirtError, workload_id: str, watch: MigrationWatch) -> Reason:
    if watch.cancelled():
        return Reason(code="cancelled", message="the migration was cancelled")
    error = translate(f"migrate VM {workload_id} while it runs", failure)
    return Reason(
        code="migration_failed",
        message=error.message,
        hint="it runs on where it was; try again, or move it with --cold",
    )


def _parameters(
    domain: Any, passage: Passage, limits: MigrationLimits
) -> tuple[Mapping[str, Any], int]:
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{passage.door(Door.STATE)}"
    }
    flags = _FLAGS
    if limits.bandwidth:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = limits.bandwidth
    if disks := copied_disks(ElementTree.fromstring(domain.XMLDesc())):
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_INC  # the image below is at hand on the target
        parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{passage.door(Door.DISKS)}"
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = disks
    return parameters, flags


def copied_disks(domain: ElementTree.Element) -> list[str]:
    """The targets (vda …) of the disks that the guest can write to, all of which are copied."""
    found = []
    for disk in domain.iterfind("devices/disk"):
        target = disk.find("target")
        if disk.get("device") == "disk" and disk.find("readonly") is None and target is not None:
            found.append(target.get("dev", ""))
    return found


def settle(domain: Any, workload_id: str) -> Departure:
    """End what is under way, and see whether the guest is gone.

    :raises DriverError: libvirtd does not answer, or the job does not end.
    """
    with attempt(f"see how the migration of VM {workload_id} ended"):
        deadline = time.monotonic() + _PATIENCE
        while _has_job(domain):
            if time.monotonic() > deadline:
                raise DriverError(
                    f"the migration of VM {workload_id} was aborted and does not end",
                    code="migration_stuck",
                    hint=f"see 'virsh domjobinfo {workload_id}' on its host",
                )
            _abort(domain)
            time.sleep(_LOOK)
        state, reason = domain.state()
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason == libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED:
        return Departure(departed=True)
    broke = Reason(
        code="migration_failed",
        message="the migration was interrupted",
        hint="it is where it was; move it again",
    )
    return Departure(departed=False, reason=broke)


def _has_job(domain: Any) -> bool:
    if not power.is_active(domain):
        return False
    return bool(domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE)


def _abort(domain: Any) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError as error:  # it has just ended, or is past where it can be aborted
        if error.get_error_code() not in (
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_NO_DOMAIN,
        ):
            raise


def _watch(
    domain: Any, limits: MigrationLimits, watch: MigrationWatch, done: threading.Event
) -> None:
    """Tell how far it is, and help it along; until ``done``."""
    tactics = begin(limits)
    while not done.wait(_LOOK):
        try:
            if watch.cancelled():
                _abort(domain)
                continue
            found = domain.jobStats()
            if found.get("type", libvirt.VIR_DOMAIN_JOB_NONE) == libvirt.VIR_DOMAIN_JOB_NONE:
                continue
            sample = _sample(found)
            tactics, act = consider(tactics, sample)
            _help(domain, tactics, act)
            watch.progress(_progress(sample, tactics))
        except libvirt.libvirtError as error:  # it has just ended, or libvirtd has
            _log.debug("no look at a migration: %s", error)


def _help(domain: Any, tactics: Tactics, act: Act) -> None:
    if act is Act.ALLOW_DOWNTIME:
        domain.migrateSetMaxDowntime(tactics.downtime)
    elif act is Act.PAUSE:
        power.pause(domain)
    elif act is Act.GIVE_UP:
        _abort(domain)


def _sample(found: Mapping[str, Any]) -> Sample:
    return Sample(
        total=int(found.get("data_total", 0)),
        done=int(found.get("data_processed", 0)),
        remaining=int(found.get("data_remaining", 0)),
        disks_remaining=int(found.get("disk_remaining", 0)),
        iteration=int(found.get("memory_iteration", 0)),
        dirty_rate=int(found.get("memory_dirty_rate", 0)) * int(found.get("memory_page_size", 0)),
    )


def _progress(sample: Sample, tactics: Tactics) -> JobProgress:
    share = 1.0 - sample.remaining / sample.total if sample.total else 0.0
    return JobProgress(max(0.0, share), sample.done, tactics.words(sample))


# ---- the target's side


def enter(
    passage: Passage, door: Door, definition: Path, words: Callable[[], Words]
) -> socket.socket:
    """A connected socket to where a way ends on this host; to libvirtd through a gate.

    :param definition: of the guest, as this host would make it.
    :param words: this host's, for the guest's CPU.
    :raises DriverError: nobody listens there, or no guest is expected.
    """
    path = passage.door(door)
    if door is Door.CONTROL:
        path = next((one for one in _CONTROL_SOCKETS if one.exists()), _CONTROL_SOCKETS[-1])
    connected = socket.socket(socket.AF_UNIX)
    try:
        connected.connect(str(path))
    except OSError as error:
        connected.close()
        raise DriverError(
            f"cannot let a guest in at {path}: {error.strerror}",
            code="migration_failed",
            hint="is libvirtd running on the target?",
        ) from error
    if door is not Door.CONTROL:
        return connected
    try:
        return _gated(connected, passage, definition, words())
    except DriverError:
        connected.close()
        raise


def _gated(
    libvirtd: socket.socket, passage: Passage, definition: Path, words: Words
) -> socket.socket:
    try:
        own = ElementTree.parse(definition).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DriverError(
            f"no guest is expected here: {error}", code="not_expected", hint="move it again"
        ) from error
    outside, inside = socket.socketpair()
    gate = Gate(expected(own, passage, words))
    for pump in (partial(_let_in, inside, libvirtd, gate), partial(_let_out, libvirtd, inside)):
        threading.Thread(target=pump, name="gate", daemon=True).start()
    return outside


def _let_in(inside: socket.socket, libvirtd: socket.socket, gate: Gate) -> None:
    try:
        while content := inside.recv(_PIECE):
            libvirtd.sendall(gate.pass_on(content))
    except Refused as error:
        _log.warning("%s", error)
    except OSError:
        pass  # either side is gone: both end
    finally:
        _end(libvirtd, inside)


def _let_out(libvirtd: socket.socket, inside: socket.socket) -> None:
    with libvirtd, inside, suppress(OSError):
        while content := libvirtd.recv(_PIECE):
            inside.sendall(content)


def _end(*ends: socket.socket) -> None:
    for each in ends:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def take_over(domain: Any, workload_id: str, *, run: bool) -> None:
    """Let a whole guest run.

    :raises DriverError: it is not whole.
    """
    with attempt(f"let VM {workload_id} run here"):
        half_here = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
        if domain.state() == half_here or not power.is_active(domain):
            raise DriverError(f"VM {workload_id} is not whole here", code="not_whole")
        if run:
            power.resume(domain)


def open_passage(passage: Passage, owner: Owner | None) -> None:
    """Make the directory; QEMU's user gets at it, and root."""
    passage.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    passage.directory.mkdir(exist_ok=True, mode=0o700)
    give(passage.directory, owner)


def give(path: Path, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
