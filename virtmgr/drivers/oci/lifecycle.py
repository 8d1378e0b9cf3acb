"""The life of a container: made, started, stopped, settled after its end, destroyed.

A crash at any point leaves something that the next verb, or ``recover``, completes or removes:
``record.json`` is written last in ``prepare`` and removed first in ``destroy``; ``run.json`` exists
from creation on; the runtime tells created from started.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, RLock

from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import Init
from virtmgr.drivers.oci import (
    bundle,
    console,
    guest,
    lxcfs,
    mounts,
    places,
    processes,
    rootfs,
    users,
    volumes,
)
from virtmgr.drivers.oci.cgroups import CONTROLLERS, Cgroups
from virtmgr.drivers.oci.conmon import Conmon
from virtmgr.drivers.oci.places import Exit, Place, Places, Record, Run
from virtmgr.drivers.oci.runtime import Runtime
from virtmgr.ports.driver import Luggage, NicConnector, Provision

DISK, ID_BASE = "disk.img", "id_base"  # names in the luggage of one that moves
_KILL_TIMEOUT = 20.0
_EXEC_TIMEOUT = 5.0  # seconds
_CONMON_TIMEOUT = 5.0
_OPEN_FILES = 1048576


def _now() -> str:
    return datetime.now(UTC).isoformat()


class Lifecycle:
    """Carries out what the driver is asked, one container at a time."""

    def __init__(
        self,
        places_: Places,
        runtime: Runtime,
        conmon: Conmon,
        cgroups: Cgroups,
        roots: rootfs.RootFilesystems,
        network: NicConnector,
    ) -> None:
        self.places = places_
        self.runtime = runtime
        self.conmon = conmon
        self.cgroups = cgroups
        self.roots = roots
        self.network = network
        self._locks: defaultdict[str, RLock] = defaultdict(RLock)
        self._locks_lock = Lock()

    @contextmanager
    def locked(self, workload_id: str) -> Iterator[Place]:
        """Nobody else makes or removes things of this workload inside the block."""
        with self._locks_lock:
            lock = self._locks[workload_id]
        with lock:
            yield self.places.of(workload_id)

    # -- what is there ---------------------------------------------------------------------

    def run_of(self, workload_id: str) -> Run | None:
        return places.load_run(self.places.of(workload_id))

    def is_alive(self, run: Run) -> bool:
        return run.exit is None and processes.is_alive(run.pid, run.pid_ticks)

    def running(self, workload_id: str) -> Run:
        """The run of a workload whose container runs.

        :raises DriverError: it does not.
        """
        run = self.run_of(workload_id)
        if run is None or not self.is_alive(run) or self.runtime.is_created_only(workload_id):
            raise DriverError(
                f"workload {workload_id} is not running on this host",
                code="not_running",
                hint="start it first",
            )
        return run

    @contextmanager
    def at_rest(self, workload_id: str) -> Iterator[tuple[Place, Record]]:
        """A container that does not run, and cannot be started inside the block.

        :raises DriverError: it runs, or is not on this host.
        """
        with self.locked(workload_id) as place:
            record, run = places.load_record(place), places.load_run(place)
            if record is None:
                raise DriverError(
                    f"workload {workload_id} is not on this host", code="not_prepared"
                )
            if run is not None and self.is_alive(run):
                raise DriverError(
                    f"workload {workload_id} runs", code="in_use", hint="stop it first"
                )
            yield place, record

    # -- prepare ---------------------------------------------------------------------------

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> Record:
        with self.locked(workload.id) as place:
            known = places.load_record(place)
            run = places.load_run(place)
            if known is not None and run is not None and self.is_alive(run):
                return known
            record = _record(workload, provision, known)
            place.make()
            self.roots.make(place, record.disk_size)
            layers = [Path(layer) for layer in record.layers]
            self.roots.mount(place, layers, record.id_base)
            if record != known:
                places.save_record(place, record)
            return record

    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        """``prepare``, on a copy of the private disk of a container that has ended."""
        with self.at_rest(source_id) as (source, record), self.locked(workload.id) as place:
            if places.load_record(place) is None:
                place.make()
                self.roots.copy(
                    source, place, id_base=record.id_base, new_id_base=provision.id_base
                )
            self.prepare(workload, provision)

    def arrive(self, workload: DesiredWorkload, provision: Provision, luggage: Luggage) -> None:
        """``prepare``, with the private disk that it had on another host.

        :raises DriverError: that did not come.
        """
        disk, id_base = luggage.files.get(DISK), luggage.facts.get(ID_BASE)
        if disk is None or id_base is None:
            raise DriverError(
                f"the disk of workload {workload.name!r} did not come with it",
                code="arrival_incomplete",
                hint="it is still on the host that it came from",
            )
        with self.locked(workload.id) as place:
            if places.load_record(place) is None:
                place.make()
                self.roots.take_up(disk, place, id_base=id_base, new_id_base=provision.id_base)
            self.prepare(workload, provision)

    @contextmanager
    def leave(self, workload_id: str) -> Iterator[Luggage]:
        """What a container that has ended needs elsewhere.

        :raises DriverError: it runs, or is not on this host.
        """
        with self.at_rest(workload_id) as (place, record):
            self.roots.release(place)
            yield Luggage({DISK: place.disk}, {ID_BASE: record.id_base})

    # -- start -----------------------------------------------------------------------------

    def start(self, workload: DesiredWorkload, provision: Provision) -> Run:
        """Start it, unless it runs; the run either way."""
        with self.locked(workload.id) as place:
            run = places.load_run(place)
            if run is not None and self.is_alive(run):
                if not self.runtime.is_created_only(workload.id):
                    return run
                self._abandon(place, run)
            self.settle(workload.id)
            record = self.prepare(workload, provision)
            try:
                return self._start(place, workload, provision, record)
            except BaseException:
                self._abandon(place, places.load_run(place))
                raise

    def _start(
        self, place: Place, workload: DesiredWorkload, provision: Provision, record: Record
    ) -> Run:
        binds = self._mount_volumes(place, workload, provision, record)
        user, stop_signal = self._set_up_root(place, workload, record)
        io = workload.spec.resources.io
        system = bundle.effective_init(workload) is Init.SYSTEM
        facts = bundle.BundleFacts(
            rootfs=place.rootfs,
            etc=place.etc,
            id_base=record.id_base,
            cgroup_path=self.cgroups.runtime_path(workload.id),
            user=user,
            volumes=binds,
            proc_files=lxcfs.proc_files(self.runtime) if system else (),
            limit_swap=self.cgroups.can_limit_swap(),
            controllers=frozenset(name for name in CONTROLLERS if self.cgroups.has(name)),
            disks=() if io.is_unlimited() else device_numbers(place, workload),
            open_files=open_files(),
            architecture=platform.machine(),
        )
        config = bundle.build(workload, facts)
        place.config.write_text(json.dumps(config))
        created = self.conmon.create(place, tty=system)
        run = Run(
            boot_id=places.boot_id(),
            pid=created.pid,
            pid_ticks=processes.start_ticks(created.pid) or -1,
            conmon_pid=created.conmon_pid,
            conmon_ticks=processes.start_ticks(created.conmon_pid) or -1,
            started_at=_now(),
            stop_signal=stop_signal,
            id_base=record.id_base,
            tty=system,
            system=system,
            applied=workload.model_dump(mode="json"),
            nics=tuple(nic.id for nic in workload.nics),
            volumes=tuple(volume.id for volume in workload.volumes),
        )
        places.save_run(place, run)
        if system:
            self.cgroups.delegate(workload.id, record.id_base)
            console.let_go(created.pid)
        for nic in workload.nics:
            self.network.connect(nic, created.pid)
        program = processes.program(created.pid)
        self.runtime.start(workload.id)
        # The runtime only gives the word; until its process has become the workload's, another
        # command cannot join its namespaces.
        processes.wait_for_other_program(run.pid, run.pid_ticks, program, _EXEC_TIMEOUT)
        return run

    def _mount_volumes(
        self, place: Place, workload: DesiredWorkload, provision: Provision, record: Record
    ) -> tuple[bundle.VolumeBind, ...]:
        found = []
        for volume in workload.volumes:
            target = place.volume(volume.id)
            disk = disk_of(volume, provision)
            volumes.mount(disk, target, record.id_base, read_only=volume.read_only)
            if volume.path is None:
                raise DriverError(f"volume {volume.name} has no path to be mounted at")
            found.append(bundle.VolumeBind(target, volume.path, volume.read_only))
        return tuple(found)

    def _set_up_root(
        self, place: Place, workload: DesiredWorkload, record: Record
    ) -> tuple[users.User, int]:
        """Write the guest's files; who it runs as, and what signal asks it to end."""
        root = os.open(place.rootfs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stop = guest.stop_signal(workload, root, bundle.command_line(workload))
            if bundle.effective_init(workload) is Init.SYSTEM:
                guest.write_into_root(workload, root, record.id_base)
                return users.User(home="/root"), stop
            guest.mount_bind_files(place.etc)
            guest.write_bind_files(workload, place.etc, record.id_base)
            asked = workload.spec.user
            name = bundle.image_config(workload).user if asked is None else asked
            return users.resolve(root, name), stop
        finally:
            os.close(root)

    # -- the end ---------------------------------------------------------------------------

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        """Ask it to end, then make it; returns when it has ended and is settled."""
        run = self.run_of(workload_id)
        if run is not None and self.is_alive(run):
            if not force:
                self._thaw(workload_id)
                processes.send_signal(run.pid, run.pid_ticks, run.stop_signal)
                processes.wait_gone(run.pid, run.pid_ticks, timeout)
            self.kill(run, workload_id)
        self.settle(workload_id)

    def kill(self, run: Run, workload_id: str) -> None:
        """End it by force, and with its first process all others of it.

        :raises DriverError: it does not end (a process hangs in the kernel).
        """
        processes.send_signal(run.pid, run.pid_ticks, signal.SIGKILL)
        self._thaw(workload_id)
        if not processes.wait_gone(run.pid, run.pid_ticks, _KILL_TIMEOUT):
            raise DriverError(
                f"workload {workload_id} does not end: process {run.pid} survives SIGKILL",
                hint="a process hangs in the kernel, often on storage; dmesg may say which",
            )

    def _thaw(self, workload_id: str) -> None:
        if self.cgroups.is_frozen(workload_id):
            self.cgroups.freeze(workload_id, frozen=False)

    def settle(self, workload_id: str) -> None:
        """After its end: keep how it ended, remove what only a running one needs."""
        with self.locked(workload_id) as place:
            run = places.load_run(place)
            if run is not None and self.is_alive(run):
                return
            if run is not None and run.exit is None:
                run = replace(run, exit=self._exit(place, run))
                places.save_run(place, run)
            self._clear(place, run)

    def _exit(self, place: Place, run: Run) -> Exit:
        """How the run ended. Waits for conmon, whose last act is to write it down."""
        processes.wait_gone(run.conmon_pid, run.conmon_ticks, _CONMON_TIMEOUT)
        try:
            status: int | None = int(self.places.exit_file(place.workload_id).read_text())
        except (FileNotFoundError, ValueError):
            status = None  # conmon was killed
        killed = self.cgroups.oom_kills(place.workload_id) > 0 or (place.run / "oom").exists()
        return interpret_exit(status, system=run.system, oom=killed, finished_at=_now())

    def _clear(self, place: Place, run: Run | None) -> None:
        self.runtime.delete(place.workload_id)
        for nic_id in run.nics if run is not None else ():
            self.network.disconnect(nic_id)
        if place.volumes.exists():
            for target in place.volumes.iterdir():
                volumes.unmount(target)
        self.cgroups.remove(place.workload_id)

    def abandon(self, workload_id: str) -> None:
        """Remove a container that was created and never started; it is prepared again."""
        with self.locked(workload_id) as place:
            self._abandon(place, places.load_run(place))

    def mount_root(self, workload_id: str) -> None:
        """Mount the root of a prepared workload, as after a reboot of the host."""
        with self.locked(workload_id) as place:
            record = places.load_record(place)
            if record is not None:
                place.run.mkdir(mode=0o711, exist_ok=True)
                layers = [Path(layer) for layer in record.layers]
                self.roots.mount(place, layers, record.id_base)

    def forget_boot(self, workload_id: str) -> None:
        """Leave of a container that has ended what a reboot of the host leaves: nothing mounted.

        :raises DriverError: it runs.
        """
        with self.locked(workload_id) as place:
            run = places.load_run(place)
            if run is not None and self.is_alive(run):
                raise DriverError(
                    f"cannot unmount the root of workload {workload_id}: it runs",
                    hint="stop it first",
                )
            self.roots.unmount(place)
            rootfs.remove_tree(place.run)

    def _abandon(self, place: Place, run: Run | None) -> None:
        """Remove a container that was created but never ran, or not as it should."""
        if run is not None and self.is_alive(run):
            self.kill(run, place.workload_id)
        self._clear(place, run)
        place.run_record.unlink(missing_ok=True)

    def destroy(self, workload_id: str) -> None:
        with self.locked(workload_id) as place:
            place.record.unlink(missing_ok=True)
            run = places.load_run(place)
            if run is not None and self.is_alive(run):
                self.kill(run, workload_id)
            self._clear(place, run)
            if run is not None:
                self._end_conmon(run)
            self.roots.unmount(place)
            rootfs.remove_tree(place.run)
            rootfs.remove_tree(place.state)
            self.places.exit_file(workload_id).unlink(missing_ok=True)
        with self._locks_lock:
            self._locks.pop(workload_id, None)

    def _end_conmon(self, run: Run) -> None:
        if not processes.wait_gone(run.conmon_pid, run.conmon_ticks, _CONMON_TIMEOUT):
            processes.send_signal(run.conmon_pid, run.conmon_ticks, signal.SIGKILL)


def _record(workload: DesiredWorkload, provision: Provision, known: Record | None) -> Record:
    if known is not None and known.id_base != provision.id_base:
        raise DriverError(
            f"cannot prepare workload {workload.name}: its files belong to the ids from "
            f"{known.id_base} on, not from {provision.id_base}",
            hint="a workload keeps its id range for life; destroy it to give it another",
        )
    layers = () if provision.image is None else provision.image.layers
    if not layers and known is None:
        raise DriverError(
            f"cannot prepare workload {workload.name}: its image has no layers",
            hint="containers need an image of type container",
        )
    size = workload.spec.model_copy(
        update={"init": bundle.effective_init(workload)}
    ).root_disk_size()
    return Record(
        workload_id=workload.id,
        id_base=provision.id_base,
        layers=tuple(str(layer) for layer in layers) or (known.layers if known else ()),
        disk_size=max(size, known.disk_size if known else 0),
    )


def disk_of(volume: DesiredVolume, provision: Provision) -> Path:
    """The volume's file on this host.

    :raises DriverError: it was not provisioned.
    """
    if volume.id not in provision.volumes:
        raise DriverError(
            f"cannot attach volume {volume.name}: this host has no disk for it",
            hint="the agent provides it before the driver is called; its log says what failed",
        )
    return provision.volumes[volume.id]


def device_numbers(place: Place, workload: DesiredWorkload) -> tuple[int, ...]:
    """The block devices of its root disk and volumes, which are mounted."""
    targets = (place.disk_mount, *(place.volume(volume.id) for volume in workload.volumes))
    return tuple(mounts.device_number(target) for target in targets)


def interpret_exit(status: int | None, *, system: bool, oom: bool, finished_at: str) -> Exit:
    """What conmon's exit status means: above 128 it is a signal's number plus 128.

    An init that powers off ends by SIGINT, for so the kernel carries reboot(2) out in a pid
    namespace: that is a clean end. SIGHUP (it asked to be rebooted) stays what it is.
    """
    number = status - 128 if status is not None and 128 < status <= 192 else None
    if system and number == signal.SIGINT:
        return Exit(0, None, False, finished_at)
    return Exit(status, number, oom and status != 0, finished_at)


def open_files() -> tuple[int, int]:
    """Soft and hard limit of open files: many, but no more than this process may give."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    return min(1024, most), most
