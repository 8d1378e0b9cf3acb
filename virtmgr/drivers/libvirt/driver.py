"""The libvirt driver: virtual machines behind ``virtmgr.ports.driver``."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import libvirt

from virtmgr.domain.errors import DriverError
from virtmgr.domain.host import DriverFacts
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import bridge_name
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Usage
from virtmgr.drivers.libvirt import (
    disks,
    display,
    domain_xml,
    exec,
    files,
    health,
    leftovers,
    live,
    logs,
    power,
    run,
    shape,
    stats,
)
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.agent import GuestAgent
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.console import Consoles
from virtmgr.drivers.libvirt.domains import Domains
from virtmgr.drivers.libvirt.errors import UNAVAILABLE, attempt
from virtmgr.drivers.libvirt.events import Events
from virtmgr.drivers.libvirt.hardware import Hardwares
from virtmgr.drivers.libvirt.layout import Layout, Layouts
from virtmgr.drivers.libvirt.locks import Locks
from virtmgr.drivers.libvirt.making import Maker
from virtmgr.drivers.libvirt.migrates import Migrates
from virtmgr.drivers.libvirt.taps import keep_without_addresses
from virtmgr.ports.driver import (
    Capabilities,
    ExecRequest,
    ExecSession,
    Inspection,
    Luggage,
    OnChange,
    Provision,
    RuntimeState,
    UpdateResult,
)

_log = logging.getLogger(__name__)

_PIECE = 1024**2
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtDriver(Migrates):
    """Runs VMs through the libvirtd at ``uri``. Implements WorkloadDriver, CanExec, HasConsole,
    HasDisplay, HasLogs, HasFiles, CanClone, CanPublish, CanMove and CanMigrate.

    Each VM is a persistent domain whose UUID is the workload's id, marked by metadata of ours;
    other domains on the host are never touched, those of another state directory included. Its
    files lie in ``state_directory``/ID.
    """

    name = health.NAME

    def __init__(
        self,
        *,
        uri: str = "qemu:///system",
        state_directory: Path,
        accelerator: Accelerator,
        bridge_of: Callable[[str], str] = bridge_name,
    ) -> None:
        """Make a driver; nothing is opened before it is needed.

        :param state_directory: holds disks and sockets; QEMU's user must be able to pass through.
        :param accelerator: what ``probe_accelerator`` found.
        :param bridge_of: the host's bridge device of a network id.
        """
        self._layouts = Layouts(state_directory)
        self._accelerator = accelerator
        self._on_change: OnChange | None = None
        self._consoles = Consoles()
        self._runs = Locks()
        self._events = Events(self._changed)
        self._hardwares = Hardwares()
        self._connection = Connection(uri, self._events.register)
        self._domains = Domains(self._connection, self._layouts.root)
        self._maker = Maker(self._connection, self._domains, self._layouts, accelerator, bridge_of)
        self._sweeper = leftovers.Sweeper(self._connection.get, uri)

    def capabilities(self) -> Capabilities:
        return health.CAPABILITIES

    def facts(self) -> DriverFacts:
        return health.facts(self._connection, self._accelerator)

    def recover(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._layouts.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._layouts.root.chmod(0o711)
        self._layouts.remove_partial()
        self._connection.watch(self._rescan)

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> None:
        domain = self._domains.find(workload.id)
        if domain is not None and power.is_active(domain):
            return
        self._maker.define(workload, provision, domain)

    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        source, owner = self._domains.require(source_id), self._maker.owner()
        if self._domains.find(workload.id) is None:
            layout = self._layout(workload.id)
            with self._runs.hold(source_id):  # it cannot be started meanwhile
                _check_rest(source, source_id)
                layout.make()
                for file, copy in self._layout(source_id).disks(layout):
                    disks.copy(file, copy, owner)
        self.prepare(workload, provision)

    @contextlib.contextmanager
    def leave(self, workload_id: str) -> Iterator[Luggage]:
        domain = self._domains.require(workload_id)
        with self._runs.hold(workload_id):  # it cannot be started meanwhile
            _check_rest(domain, workload_id)
            layout = self._layout(workload_id)
            yield Luggage({file.name: file for file, _ in layout.disks(layout)})

    def arrive(self, workload: DesiredWorkload, provision: Provision, luggage: Luggage) -> None:
        owner = self._maker.owner()
        if self._domains.find(workload.id) is None:
            layout = self._layout(workload.id)
            layout.make()
            if (nvram := luggage.files.get(layout.nvram.name)) is not None:
                disks.take_up(nvram, layout.nvram, owner)
            root = disks.root_disk(workload, provision)
            if root is not None:
                disk = luggage.files.get(layout.root_disk.name)
                if disk is None:
                    raise DriverError(
                        f"the disk of VM {workload.name} did not come with it",
                        code="arrival_incomplete",
                        hint="it is still on the host that it came from",
                    )
                disks.check_arrived(disk)
                disks.take_up(disk, layout.root_disk, owner)
                disks.rebase(root, layout.root_disk)
        self.prepare(workload, provision)

    def start(self, workload: DesiredWorkload, provision: Provision) -> None:
        domain = self._domains.find(workload.id)
        if domain is not None and power.is_active(domain):
            with attempt(f"resume VM {workload.name}"):
                power.resume(domain)
            return
        domain = self._maker.define(workload, provision, domain)
        path = self._layouts.of(workload.id).run
        with self._runs.hold(workload.id):  # nobody may see the new run beside the old state
            before = run.load(path)
            run.save(path, run.begin())
            try:
                with attempt(f"start VM {workload.name}"):
                    power.start(domain)
                keep_without_addresses(workload)
            except DriverError:
                run.save(path, before)
                raise

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        domain = self._domains.find(workload_id)
        if domain is None:
            return
        with attempt(f"stop VM {workload_id}"):
            power.stop(domain, self._events, timeout=0 if force else timeout)
        self.inspect(workload_id)

    def pause(self, workload_id: str) -> None:
        with attempt(f"pause VM {workload_id}"):
            power.pause(self._domains.require(workload_id))

    def resume(self, workload_id: str) -> None:
        with attempt(f"resume VM {workload_id}"):
            power.resume(self._domains.require(workload_id))

    def update(self, workload: DesiredWorkload, provision: Provision) -> UpdateResult:
        domain = self._domains.find(workload.id)
        if domain is None or not power.is_active(domain):
            self._maker.define(workload, provision, domain)
            return UpdateResult()
        with attempt(f"change VM {workload.name}"):
            running = live.shape_of(domain)
            blueprint = self._maker.blueprint(workload, provision, domain, running.slots)
            wanted = domain_xml.build(blueprint)
            self._maker.grant(blueprint)
            changes = shape.compare(running, shape.read(wanted))
            refused = live.apply(domain, running, changes, wanted, self._events)
            keep_without_addresses(workload)
            live.grow_disks(domain, blueprint)
            self._connection.get().defineXML(domain_xml.to_text(wanted))
        return UpdateResult(needs_restart=tuple(dict.fromkeys((*changes.needs_restart, *refused))))

    def destroy(self, workload_id: str) -> None:
        domain = self._domains.find(workload_id)
        if domain is not None:
            with attempt(f"remove VM {workload_id}"):
                power.stop(domain, self._events, timeout=0)
                domain.undefineFlags(_UNDEFINE)
        self._maker.forget(workload_id)
        self._hardwares.forget(workload_id)
        try:
            self._sweeper.sweep()
            with self._runs.hold(workload_id):
                self._layout(workload_id).remove()  # last: until then the VM is listed
        except OSError as error:
            raise DriverError(f"cannot remove the files of VM {workload_id}: {error}") from error

    def inspect(self, workload_id: str) -> Inspection:
        layout = self._layouts.of(workload_id)
        domain = self._domains.find(workload_id)
        if domain is None:
            half_made = layout.directory.exists()
            return Inspection(RuntimeState.PREPARED if half_made else RuntimeState.ABSENT)
        with self._runs.hold(workload_id):
            with attempt(f"inspect VM {workload_id}"):
                state, reason = domain.state()
                pid = power.pid(domain)
            before = run.load(layout.run)
            inspection, after = run.judge(state, reason, before, pid)
            if after != before and layout.directory.exists():
                run.save(layout.run, after)
        with attempt(f"see what VM {workload_id} runs on"):
            return self._hardwares.put(workload_id, inspection, domain.XMLDesc)

    def list(self) -> tuple[str, ...]:
        return tuple(sorted(self._domains.ids() | self._layouts.ids()))

    def stats(self, workload_ids: Iterable[str]) -> Mapping[str, Usage]:
        with attempt("read the usage of VMs"):
            found = stats.collect(self._connection.get())
        now = datetime.now(UTC)
        return {
            workload_id: stats.usage(found[workload_id], now, _allocated(self._layout(workload_id)))
            for workload_id in workload_ids
            if workload_id in found
        }

    def exec(self, workload_id: str, request: ExecRequest) -> ExecSession:
        return exec.run(self._agent(workload_id), request)

    def console(self, workload_id: str) -> socket.socket:
        self._domains.require_running(workload_id)
        return self._consoles.attach(self._layout(workload_id).console)

    def display(self, workload_id: str) -> socket.socket:
        return display.connect(self._domains.require(workload_id), workload_id)

    def logs(self, workload_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        path = self._layout(workload_id).log
        return logs.read(path, follow=follow, tail=tail, gone=lambda: self._has_ended(workload_id))

    def pull(self, workload_id: str, path: str) -> Iterator[bytes]:
        return files.pull(self._agent(workload_id), path)

    def push(self, workload_id: str, path: str, tar: BinaryIO) -> None:
        files.push(self._agent(workload_id), path, tar)

    def export(self, workload_id: str) -> Generator[bytes, None, None]:
        _check_rest(self._domains.require(workload_id), workload_id)
        layout = self._layout(workload_id)
        if not layout.root_disk.exists():
            raise DriverError(f"VM {workload_id} has no root disk", code="no_root_disk")
        flat = layout.export(new_id())
        try:
            # QEMU's own lock on the disk keeps the VM from starting meanwhile.
            with contextlib.closing(disks.flatten(layout.root_disk, flat)) as copying:
                for _ in copying:
                    yield b""
            file = flat.open("rb", buffering=0)
        finally:
            flat.unlink(missing_ok=True)
        with file:
            while piece := file.read(_PIECE):
                yield piece

    def close(self) -> None:
        self._consoles.close()
        self._sweeper.close()
        self._connection.close()
        self._events.close()

    def _layout(self, workload_id: str) -> Layout:
        return self._layouts.of(workload_id)

    def _agent(self, workload_id: str) -> GuestAgent:
        return GuestAgent(self._domains.require_running(workload_id), workload_id)

    def _has_ended(self, workload_id: str) -> bool:
        """Whether it is known not to run; while libvirt is away, it may."""
        try:
            domain = self._domains.find(workload_id)
            with attempt(f"inspect VM {workload_id}"):
                return domain is None or not power.is_active(domain)
        except DriverError as error:
            return error.code != UNAVAILABLE

    def _changed(self, uuid: str) -> None:
        """A domain's state may have changed: tell the agent, if the domain is ours."""
        if self._on_change is not None and self._layouts.has(uuid):
            self._on_change(uuid)

    def _rescan(self) -> None:
        """After a (re)connection: anything may have happened to any VM."""
        with contextlib.suppress(DriverError):  # lost again: the next connection rescans
            for workload_id in self.list():
                self._events.put(workload_id)
            try:
                self._sweeper.sweep()
            except OSError:
                _log.exception("removing what was left of VMs that are gone failed")


def _check_rest(domain: Any, workload_id: str) -> None:
    if power.is_active(domain):
        raise DriverError(f"VM {workload_id} runs", code="in_use", hint="stop it first")


def _allocated(layout: Layout) -> int:
    try:
        return layout.root_disk.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
