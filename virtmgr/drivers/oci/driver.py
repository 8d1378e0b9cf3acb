"""The container driver: the driver port on top of an OCI runtime and conmon."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import BinaryIO

import structlog

from virtmgr.domain.errors import DriverError, HostError
from virtmgr.domain.host import DriverFacts
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Init, Kind, Reason, Usage
from virtmgr.drivers.oci import (
    bundle,
    cgroups,
    console,
    exec,
    export,
    files,
    guest,
    idmap,
    logs,
    mounts,
    nested,
    places,
    processes,
    stats,
    update,
    users,
    volumes,
)
from virtmgr.drivers.oci.conmon import Conmon
from virtmgr.drivers.oci.lifecycle import Lifecycle, device_numbers, disk_of, open_files
from virtmgr.drivers.oci.places import Places, Run
from virtmgr.drivers.oci.rootfs import RootFilesystems
from virtmgr.drivers.oci.runtime import Runtime
from virtmgr.drivers.oci.watch import Watcher
from virtmgr.drivers.storage.files import open_directory, storage_error
from virtmgr.ports.driver import (
    Capabilities,
    ExecRequest,
    ExecSession,
    Feature,
    Inspection,
    Luggage,
    NicConnector,
    OnChange,
    Provision,
    RuntimeState,
    UpdateResult,
)

_log = structlog.get_logger(__name__)

_FEATURES = frozenset(Feature) - {Feature.DISPLAY, Feature.LIVE_MIGRATION, Feature.POST_COPY}
_NEEDED = ("conmon", "mkfs.ext4")


class OciDriver:
    """Runs app and system containers under crun (or runc) and conmon."""

    name = "oci"

    def __init__(
        self,
        *,
        state_directory: Path,
        run_directory: Path,
        network: NicConnector,
        runtime: str = "crun",
        cgroup_parent: str = "virtmgr",
        mapped_mounts: bool = True,
    ) -> None:
        """Make a driver; it touches nothing before :meth:`recover`.

        :param state_directory: durable: private disks, logs, records.
        :param run_directory: of this boot (a tmpfs such as /run); becomes a shared mount. Every
            directory above it must be searchable by others: containers reach their roots by it.
        :param runtime: name or path of the OCI runtime.
        :param cgroup_parent: all containers' control groups lie below it.
        :param mapped_mounts: False shifts owners on disk even where the kernel could map them.
        """
        self.places = Places(state_directory.resolve(), run_directory.resolve())
        hierarchies = cgroups.detect(mounts.mounts())
        self._cgroups = cgroups.Cgroups(hierarchies, cgroup_parent)
        self._runtime = Runtime(runtime, self.places.runtime_root, hierarchies)
        self._life = Lifecycle(
            self.places,
            self._runtime,
            Conmon(self._runtime, self._cgroups, self.places.exits),
            self._cgroups,
            RootFilesystems(self.places.templates, mapped=mapped_mounts),
            network,
        )
        self._network = network
        self._watcher: Watcher | None = None
        self._on_change: OnChange | None = None

    # -- about itself ----------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kinds=frozenset({Kind.CONTAINER}),
            inits=frozenset(Init),
            features=_FEATURES,
            why_not={
                Feature.DISPLAY: "containers have no display; use the console",
                Feature.LIVE_MIGRATION: "CRIU does not take processes in a user namespace",
                Feature.POST_COPY: "it does not move while it runs",
            },
        )

    def facts(self) -> DriverFacts:
        offered = self.capabilities()
        healthy, version, reason = True, "", None
        try:
            version = " ".join(self._probe())
            reason = self._reductions()
        except HostError as error:
            healthy = False
            reason = Reason.of(error)
        return DriverFacts(
            name=self.name,
            healthy=healthy,
            version=version,
            kinds=tuple(sorted(offered.kinds)),
            inits=tuple(sorted(offered.inits)),
            features=tuple(sorted(offered.features)),
            reason=reason,
        )

    def _probe(self) -> tuple[str, str]:
        for name in _NEEDED:
            if shutil.which(name) is None:
                raise DriverError(f"{name} is not installed", hint=f"install {name}")
        if "overlay" not in Path("/proc/filesystems").read_text():
            raise DriverError("the kernel has no overlayfs", hint="load the overlay module")
        if self._cgroups.hierarchies.layout is cgroups.Layout.NONE:
            raise DriverError("no cgroup hierarchy is mounted", hint="mount /sys/fs/cgroup")
        version = self._runtime.version()
        return version.name, version.version

    def _reductions(self) -> Reason | None:
        missing = [name for name in cgroups.CONTROLLERS if not self._cgroups.has(name)]
        if missing:
            return Reason(
                code="limits_missing",
                message=f"no limits on {', '.join(missing)}: cgroup controllers are missing",
                hint="enable the controllers on the kernel command line",
            )
        self.places.state_directory.mkdir(parents=True, exist_ok=True)
        if not idmap.is_supported(self.places.state_directory):
            return Reason(
                code="no_idmapped_mounts",
                message="the kernel cannot map ids of mounts: first starts take longer",
                hint="use Linux 5.12 or newer",
            )
        return None

    # -- the agent's start and end ---------------------------------------------------------

    def recover(self, on_change: OnChange) -> None:
        """Adopt what runs, settle what ended meanwhile, remove what is half-made."""
        self._on_change = on_change
        self.places.state_directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.places.run_directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        mounts.share(self.places.run_directory)
        for directory in (self.places.exits, self.places.runtime_root, self.places.sockets):
            directory.mkdir(mode=0o700, exist_ok=True)
        self._watcher = Watcher(self._ended)
        for workload_id in self.places.all():
            try:
                self._recover(workload_id)
            except (HostError, OSError):
                # One that cannot be recovered must not keep the others from it; the next verb on
                # it meets the cause again and reports it.
                _log.exception("cannot recover a container", workload=workload_id)

    def _recover(self, workload_id: str) -> None:
        place = self.places.of(workload_id)
        if places.load_record(place) is None:
            self._life.destroy(workload_id)
            return
        run = places.load_run(place)
        if run is not None and self._life.is_alive(run):
            if self._runtime.is_created_only(workload_id):
                self._life.abandon(workload_id)
            else:
                self._watch(workload_id, run)
            return
        self._life.settle(workload_id)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        self._runtime.close()

    def remove_all(self) -> None:
        """Destroy every container and remove the shared mount and the parent control groups."""
        for workload_id in self.places.all():
            self.destroy(workload_id)
        mounts.unshare(self.places.run_directory)
        self._cgroups.remove_parent()

    def shut_down(self) -> None:
        """Unmount everything, as a shutdown of the host does; all containers have ended.

        :raises DriverError: one runs.
        """
        for workload_id in self.places.all():
            self._life.forget_boot(workload_id)
        mounts.unshare(self.places.run_directory)

    def _watch(self, workload_id: str, run: Run) -> None:
        if self._watcher is None:
            raise DriverError("the container driver is used before recover()")
        self._watcher.watch(workload_id, run.pid, run.pid_ticks)

    def _ended(self, workload_id: str) -> None:
        if places.load_record(self.places.of(workload_id)) is not None:
            self._life.settle(workload_id)
        if self._on_change is not None:
            self._on_change(workload_id)

    # -- verbs -----------------------------------------------------------------------------

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> None:
        with _explained("prepare", workload.id):
            self._life.prepare(workload, provision)

    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        with _explained(f"copy workload {source_id} to", workload.id):
            self._life.clone(source_id, workload, provision)

    @contextmanager
    def leave(self, workload_id: str) -> Iterator[Luggage]:
        with _explained("read the disk of", workload_id), self._life.leave(workload_id) as luggage:
            yield luggage

    def arrive(self, workload: DesiredWorkload, provision: Provision, luggage: Luggage) -> None:
        with _explained("take up from another host", workload.id):
            self._life.arrive(workload, provision, luggage)

    def start(self, workload: DesiredWorkload, provision: Provision) -> None:
        with _explained("start", workload.id):
            known = self._life.run_of(workload.id)
            run = self._life.start(workload, provision)
            if known != run:
                self._watch(workload.id, run)

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        with _explained("stop", workload_id):
            self._life.stop(workload_id, timeout=timeout, force=force)

    def pause(self, workload_id: str) -> None:
        with _explained("pause", workload_id):
            self._life.running(workload_id)
            self._cgroups.freeze(workload_id, frozen=True)

    def resume(self, workload_id: str) -> None:
        with _explained("resume", workload_id):
            self._life.running(workload_id)
            self._cgroups.freeze(workload_id, frozen=False)

    def destroy(self, workload_id: str) -> None:
        with _explained("destroy", workload_id):
            self._life.destroy(workload_id)

    def update(self, workload: DesiredWorkload, provision: Provision) -> UpdateResult:
        with _explained("update", workload.id):
            run = self._life.run_of(workload.id)
            if run is None or not self._life.is_alive(run):
                self._life.prepare(workload, provision)
                return UpdateResult()
            return self._update(workload, provision, run)

    def _update(self, workload: DesiredWorkload, provision: Provision, run: Run) -> UpdateResult:
        applied = DesiredWorkload.read_from(run.applied)
        wanted = update.changes(applied, workload)
        waiting = wanted.needs_restart
        if wanted.resources:
            waiting += self._cgroups.apply(workload.id, workload.spec.resources)
        place, io = self.places.of(workload.id), workload.spec.resources.io
        if not self._life.roots.grow_live(place, workload.spec.root_disk_size()):
            waiting += ("root_disk",)
        for nic in wanted.detach_nics:
            self._network.disconnect(nic.id)
        for nic in wanted.attach_nics:
            self._network.connect(nic, run.pid)
        for volume in wanted.detach_volumes:
            target = place.volume(volume.id)
            if mounts.is_mounted(target) and volume.path is not None:
                nested.detach(run.pid, target, volume.path)
            volumes.unmount(target)
        for volume in wanted.attach_volumes:
            target, disk = place.volume(volume.id), disk_of(volume, provision)
            volumes.mount(disk, target, run.id_base, read_only=volume.read_only)
            self._cgroups.throttle(workload.id, io, [mounts.device_number(target)])
            if volume.path is not None:
                nested.attach(run.pid, target, volume.path, run.id_base)
        if wanted.resources:
            self._cgroups.throttle(workload.id, io, device_numbers(place, workload))
        if not run.system and (wanted.attach_nics or wanted.detach_nics):
            guest.write_bind_files(workload, place.etc, run.id_base)
        now = update.in_effect(applied, workload, waiting)
        changed = replace(
            run,
            applied=now.model_dump(mode="json"),
            nics=tuple(nic.id for nic in workload.nics),
            volumes=tuple(volume.id for volume in workload.volumes),
        )
        places.save_run(place, changed)
        return UpdateResult(needs_restart=waiting)

    # -- what is there ---------------------------------------------------------------------

    def inspect(self, workload_id: str) -> Inspection:
        place = self.places.of(workload_id)
        run = places.load_run(place)
        if run is not None and run.exit is None and not self._life.is_alive(run):
            self._life.settle(workload_id)
            run = places.load_run(place)
        if places.load_record(place) is None:
            return Inspection(RuntimeState.ABSENT)
        if run is None:
            return Inspection(RuntimeState.PREPARED)
        if run.exit is not None:
            return Inspection(
                RuntimeState.EXITED,
                exit_code=run.exit.code,
                signal=run.exit.signal,
                oom_killed=run.exit.oom_killed,
                started_at=run.started,
                finished_at=datetime.fromisoformat(run.exit.finished_at),
            )
        if self._runtime.is_created_only(workload_id):
            return Inspection(RuntimeState.PREPARED)
        frozen = self._cgroups.is_frozen(workload_id)
        state = RuntimeState.PAUSED if frozen else RuntimeState.RUNNING
        return Inspection(state, started_at=run.started, pid=run.pid)

    def list(self) -> tuple[str, ...]:
        return self.places.all()

    def stats(self, workload_ids: Iterable[str]) -> Mapping[str, Usage]:
        found = {}
        for workload_id in workload_ids:
            run = self._life.run_of(workload_id)
            if run is not None and self._life.is_alive(run):
                place = self.places.of(workload_id)
                found[workload_id] = stats.usage(self._cgroups, place, run, datetime.now(UTC))
        return found

    # -- streams and files -----------------------------------------------------------------

    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession:
        with _explained("run a command in", workload_id):
            run = self._life.running(workload_id)
            if self._cgroups.is_frozen(workload_id):
                raise DriverError(
                    f"cannot run a command in workload {workload_id}: it is paused",
                    code="paused",
                    hint="resume it first",
                )
            workload = DesiredWorkload.read_from(run.applied)
            root = os.open(f"/proc/{run.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                process = _exec_process(workload, root, request)
                code = exec.code_if_not_begun(root, process)
            finally:
                os.close(root)
            return exec.run(self._runtime, self.places.sockets, workload_id, process, request, code)

    def console(self, workload_id: str) -> socket:
        self._life.running(workload_id)
        return console.attach(self.places.of(workload_id).run)

    def logs(self, workload_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        place = self.places.of(workload_id)
        output, position = logs.read(place.log, tail)
        if output:
            yield output
        if follow:

            def is_running() -> bool:
                run = places.load_run(place)
                return run is not None and self._life.is_alive(run)

            yield from logs.follow(place.log, position, is_running)

    def pull(self, workload_id: str, path: str) -> Iterator[bytes]:
        root, id_base = self._open_root(workload_id)
        return files.pull(root, path, id_base)

    def push(self, workload_id: str, path: str, tar: BinaryIO) -> None:
        root, id_base = self._open_root(workload_id)
        files.push(root, path, tar, id_base)

    def export(self, workload_id: str) -> Generator[bytes, None, None]:
        with _explained("read the files of", workload_id), ExitStack() as undo:
            place, record = undo.enter_context(self._life.at_rest(workload_id))
            self._life.mount_root(workload_id)
            upper, root = (
                undo.enter_context(open_directory(path)) for path in (place.upper, place.rootfs)
            )
            yield from export.layer(upper, root, record.id_base)

    def _open_root(self, workload_id: str) -> tuple[int, int]:
        """The container's root as it sees it; of one that does not run, without volumes."""
        place = self.places.of(workload_id)
        record = places.load_record(place)
        if record is None:
            raise DriverError(f"workload {workload_id} is not on this host", code="not_prepared")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        run = places.load_run(place)
        if run is not None and self._life.is_alive(run):
            root = os.open(f"/proc/{run.pid}/root", flags)
            if processes.is_alive(run.pid, run.pid_ticks):
                return root, record.id_base
            os.close(root)
        self._life.mount_root(workload_id)
        return os.open(place.rootfs, flags), record.id_base


def _exec_process(workload: DesiredWorkload, root: int, request: ExecRequest) -> dict[str, object]:
    """The OCI ``process`` of a command: the container's environment, user and limits, changed
    where the request says so."""
    config = bundle.image_config(workload)
    system = bundle.effective_init(workload) is Init.SYSTEM
    default = "" if system else workload.spec.user or config.user
    user = users.resolve(root, default if request.user is None else request.user)
    workdir = request.workdir or (user.home if system else workload.spec.workdir or config.workdir)
    return bundle.process(
        bundle.effective_init(workload),
        arguments=request.command,
        env=bundle.environment(workload, tty=request.tty, more=request.env),
        workdir=workdir,
        user=user,
        tty=request.tty,
        open_files=open_files(),
    )


class _explained:
    """Turns what the kernel refuses into a DriverError that says what was attempted."""

    def __init__(self, verb: str, workload_id: str) -> None:
        self._what = f"{verb} workload {workload_id}"

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise storage_error(self._what, error) from error
        if isinstance(error, OSError):
            where = f" ({error.filename})" if error.filename else ""
            raise DriverError(
                f"cannot {self._what}{where}: {error.strerror or error}",
                hint="the agent's log has the details; the verb may be repeated",
            ) from error
