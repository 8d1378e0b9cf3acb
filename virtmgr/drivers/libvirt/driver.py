"""The libvirt driver: virtual machines behind ``virtmgr.ports.driver``."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import libvirt

from virtmgr.domain.errors import DriverError
from virtmgr.domain.host import DriverFacts
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import bridge_name
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.domain.workload import Kind, Reason, Usage
from virtmgr.drivers.libvirt import (
    disks,
    display,
    domain_xml,
    exec,
    files,
    leftovers,
    live,
    logs,
    power,
    run,
    seed,
    shape,
    stats,
)
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.agent import GuestAgent
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.console import Consoles
from virtmgr.drivers.libvirt.definitions import Definitions
from virtmgr.drivers.libvirt.domain_xml import Blueprint
from virtmgr.drivers.libvirt.errors import NO_DOMAIN, UNAVAILABLE, attempt
from virtmgr.drivers.libvirt.events import Events
from virtmgr.drivers.libvirt.facts import (
    HostFacts,
    Owner,
    find_firmware,
    host_cpus,
    is_closed,
    owner_of,
)
from virtmgr.drivers.libvirt.layout import Layout, Layouts, replacing
from virtmgr.drivers.libvirt.locks import Locks
from virtmgr.ports.driver import (
    Capabilities,
    ExecRequest,
    ExecSession,
    Feature,
    Inspection,
    OnChange,
    Provision,
    RuntimeState,
    UpdateResult,
)

_log = logging.getLogger(__name__)

_CAPABILITIES = Capabilities(
    kinds=frozenset({Kind.VM}),
    features=frozenset(
        {
            Feature.PAUSE,
            Feature.RESIZE_VCPUS_LIVE,
            Feature.RESIZE_MEMORY_LIVE,
            Feature.ATTACH_VOLUME_LIVE,
            Feature.ATTACH_NIC_LIVE,
            Feature.EXEC,
            Feature.CONSOLE,
            Feature.DISPLAY,
            Feature.LOGS,
            Feature.FILES,
            Feature.CLONE,
            Feature.PUBLISH,
        }
    ),
    within={
        Feature.RESIZE_VCPUS_LIVE: "up to the CPUs of its host",
        Feature.RESIZE_MEMORY_LIVE: "down, and up to what it was started with",
        Feature.EXEC: "through the guest agent, without a terminal",
        Feature.FILES: "through the guest agent",
    },
    why_not={
        Feature.SHRINK_VCPUS_LIVE: "taking a vCPU from a running guest can hang or crash it",
    },
)
_KVM = Path("/dev/kvm")
_PIECE = 1024**2
_INACTIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class LibvirtDriver:
    """Runs VMs through the libvirtd at ``uri``. Implements WorkloadDriver, CanExec, HasConsole,
    HasDisplay, HasLogs, HasFiles, CanClone and CanPublish.

    Each VM is a persistent domain whose UUID is the workload's id, marked by metadata of ours;
    other domains on the host are never touched, those of another state directory included. Its
    files lie in ``state_directory``/ID.
    """

    name = "libvirt"

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
        self._uri = uri
        self._layouts = Layouts(state_directory)
        self._accelerator = accelerator
        self._bridge_of = bridge_of
        self._on_change: OnChange | None = None
        self._consoles = Consoles()
        self._runs = Locks()
        self._definitions = Definitions()
        self._owner: tuple[Any, Owner | None] = (None, None)  # of the connection beside it
        self._events = Events(self._changed)
        self._connection = Connection(uri, self._events.register)
        self._sweeper = leftovers.Sweeper(self._connection.get, uri)

    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def facts(self) -> DriverFacts:
        if self._accelerator.name == "none":
            return _unhealthy(Reason(code="no_qemu", message=self._accelerator.reason))
        try:
            connection = self._connection.get()
            with attempt(f"ask libvirt at {self._uri} for its version"):
                version = (
                    f"libvirt {_dotted(connection.getLibVersion())}, "
                    f"QEMU {_dotted(connection.getVersion())}"
                )
                reason = self._reduced(owner_of(connection.getCapabilities()))
        except DriverError as error:
            return _unhealthy(Reason(code=error.code, message=error.message, hint=error.hint))
        return DriverFacts(
            name=self.name,
            healthy=True,
            version=version,
            kinds=(Kind.VM,),
            features=tuple(sorted(_CAPABILITIES.features)),
            reason=reason,
        )

    def recover(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._layouts.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._layouts.root.chmod(0o711)
        self._layouts.remove_partial()
        self._connection.watch(self._rescan)

    def prepare(self, workload: DesiredWorkload, provision: Provision) -> None:
        domain = self._find(workload.id)
        if domain is not None and power.is_active(domain):
            return
        self._define(workload, provision, domain)

    def clone(self, source_id: str, workload: DesiredWorkload, provision: Provision) -> None:
        source, owner = self._require(source_id), self._host().owner
        if self._find(workload.id) is None:
            layout = self._layout(workload.id)
            with self._runs.hold(source_id):  # it cannot be started meanwhile
                _check_rest(source, source_id)
                layout.make()
                for file, copy in self._layout(source_id).disks(layout):
                    disks.copy(file, copy, owner)
        self.prepare(workload, provision)

    def start(self, workload: DesiredWorkload, provision: Provision) -> None:
        domain = self._find(workload.id)
        if domain is not None and power.is_active(domain):
            with attempt(f"resume VM {workload.name}"):
                power.resume(domain)
            return
        domain = self._define(workload, provision, domain)
        path = self._layouts.of(workload.id).run
        with self._runs.hold(workload.id):  # nobody may see the new run beside the old state
            before = run.load(path)
            run.save(path, run.begin())
            try:
                with attempt(f"start VM {workload.name}"):
                    power.start(domain)
            except DriverError:
                run.save(path, before)
                raise

    def stop(self, workload_id: str, *, timeout: float, force: bool) -> None:
        domain = self._find(workload_id)
        if domain is None:
            return
        with attempt(f"stop VM {workload_id}"):
            power.stop(domain, self._events, timeout=0 if force else timeout)
        self.inspect(workload_id)

    def pause(self, workload_id: str) -> None:
        with attempt(f"pause VM {workload_id}"):
            power.pause(self._require(workload_id))

    def resume(self, workload_id: str) -> None:
        with attempt(f"resume VM {workload_id}"):
            power.resume(self._require(workload_id))

    def update(self, workload: DesiredWorkload, provision: Provision) -> UpdateResult:
        domain = self._find(workload.id)
        if domain is None or not power.is_active(domain):
            self._define(workload, provision, domain)
            return UpdateResult()
        with attempt(f"change VM {workload.name}"):
            running = live.shape_of(domain)
            blueprint = self._blueprint(workload, provision, domain, running.slots)
            wanted = domain_xml.build(blueprint)
            self._grant(blueprint)
            changes = shape.compare(running, shape.read(wanted))
            refused = live.apply(domain, running, changes, wanted, self._events)
            live.grow_disks(domain, blueprint)
            self._connection.get().defineXML(domain_xml.to_text(wanted))
        return UpdateResult(needs_restart=tuple(dict.fromkeys((*changes.needs_restart, *refused))))

    def destroy(self, workload_id: str) -> None:
        domain = self._find(workload_id)
        if domain is not None:
            with attempt(f"remove VM {workload_id}"):
                power.stop(domain, self._events, timeout=0)
                domain.undefineFlags(_UNDEFINE)
        self._definitions.forget(workload_id)
        try:
            self._sweeper.sweep()
            with self._runs.hold(workload_id):
                self._layout(workload_id).remove()  # last: until then the VM is listed
        except OSError as error:
            raise DriverError(f"cannot remove the files of VM {workload_id}: {error}") from error

    def inspect(self, workload_id: str) -> Inspection:
        layout = self._layouts.of(workload_id)
        domain = self._find(workload_id)
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
        return inspection

    def list(self) -> tuple[str, ...]:
        with attempt("list VMs"):
            ours = {
                domain.UUIDString()
                for domain in self._connection.get().listAllDomains()
                if self._is_ours(domain)
            }
        return tuple(sorted(ours | self._layouts.ids()))

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
        self._require_running(workload_id)
        return self._consoles.attach(self._layout(workload_id).console)

    def display(self, workload_id: str) -> socket.socket:
        return display.connect(self._require(workload_id), workload_id)

    def logs(self, workload_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        path = self._layout(workload_id).log
        return logs.read(path, follow=follow, tail=tail, gone=lambda: self._has_ended(workload_id))

    def pull(self, workload_id: str, path: str) -> Iterator[bytes]:
        return files.pull(self._agent(workload_id), path)

    def push(self, workload_id: str, path: str, tar: BinaryIO) -> None:
        files.push(self._agent(workload_id), path, tar)

    def export(self, workload_id: str) -> Generator[bytes, None, None]:
        _check_rest(self._require(workload_id), workload_id)
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

    def _find(self, workload_id: str) -> Any:
        """The domain of ``workload_id``, None if there is none.

        :raises DriverError: libvirt does not answer, or the domain is not ours.
        """
        try:
            with attempt(f"look for VM {workload_id}"):
                domain = self._connection.get().lookupByUUIDString(workload_id)
                ours = self._is_ours(domain)
        except DriverError as error:
            if error.code == NO_DOMAIN:
                return None
            raise
        if not ours:
            raise DriverError(
                f"cannot use domain {workload_id}: it was not made by this agent",
                hint="remove it, or leave it; virtmgr does not touch it",
            )
        return domain

    def _is_ours(self, domain: Any) -> bool:
        if not domain.name().startswith(domain_xml.NAME_PREFIX):
            return False
        try:
            text = domain.metadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE, _INACTIVE
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() in (
                libvirt.VIR_ERR_NO_DOMAIN_METADATA,
                libvirt.VIR_ERR_NO_DOMAIN,
            ):
                return False
            raise
        return ElementTree.fromstring(text).get("state") == str(self._layouts.root)

    def _require(self, workload_id: str) -> Any:
        domain = self._find(workload_id)
        if domain is None:
            raise DriverError(
                f"cannot use VM {workload_id}: this host has none of that id",
                code=NO_DOMAIN,
                hint="prepare it first",
            )
        return domain

    def _require_running(self, workload_id: str) -> Any:
        domain = self._require(workload_id)
        if not power.is_active(domain):
            raise DriverError(
                f"cannot reach into VM {workload_id}: it does not run", hint="start it"
            )
        return domain

    def _agent(self, workload_id: str) -> GuestAgent:
        return GuestAgent(self._require_running(workload_id), workload_id)

    def _has_ended(self, workload_id: str) -> bool:
        """Whether it is known not to run; while libvirt is away, it may."""
        try:
            domain = self._find(workload_id)
            with attempt(f"inspect VM {workload_id}"):
                return domain is None or not power.is_active(domain)
        except DriverError as error:
            return error.code != UNAVAILABLE

    def _host(self) -> HostFacts:
        return HostFacts(
            accelerator=self._accelerator,
            owner=self._find_owner(),
            cpus=host_cpus(),
            firmware=find_firmware(),
            bridge_of=self._bridge_of,
        )

    def _find_owner(self) -> Owner | None:
        """QEMU's user, asked once of each connection: it is libvirtd's configuration."""
        connection = self._connection.get()
        if self._owner[0] is not connection:
            self._owner = (connection, owner_of(connection.getCapabilities()))
        return self._owner[1]

    def _blueprint(
        self,
        workload: DesiredWorkload,
        provision: Provision,
        domain: Any,
        slots: Mapping[str, int] | None = None,
    ) -> Blueprint:
        if domain is not None and slots is None:
            slots = shape.read(ElementTree.fromstring(domain.XMLDesc())).slots
        return Blueprint(
            workload=workload,
            provision=provision,
            host=self._host(),
            layout=self._layout(workload.id),
            root=disks.root_disk(workload, provision),
            slots=slots or {},
            name=domain.name() if domain is not None else None,
        )

    def _define(self, workload: DesiredWorkload, provision: Provision, domain: Any) -> Any:
        """Make every file and the definition as the spec is now; the domain does not run."""
        with attempt(f"define VM {workload.name}"):
            if domain is not None and domain.name() != domain_xml.domain_name(workload):
                domain.rename(domain_xml.domain_name(workload))
                domain = self._find(workload.id)
            blueprint = self._blueprint(workload, provision, domain)
            _check_firmware(blueprint)
            self._make_files(blueprint)
            self._grant(blueprint)
            text = domain_xml.to_text(domain_xml.build(blueprint))
            return self._definitions.define(self._connection.get(), domain, workload.id, text)

    def _make_files(self, blueprint: Blueprint) -> None:
        layout, owner = blueprint.layout, blueprint.host.owner
        layout.make()
        if blueprint.root is not None:
            disks.make(blueprint.root, layout.root_disk, owner)
            disks.grow(layout.root_disk, blueprint.root.size)
        if seed.wanted(blueprint.workload):
            seed.make(blueprint.workload, layout.seed, owner)
        firmware = blueprint.host.firmware
        if blueprint.workload.spec.firmware == "uefi" and firmware and not layout.nvram.exists():
            with replacing(layout.nvram) as partial:
                shutil.copyfile(firmware.variables, partial)
                disks.grant(partial, owner)

    def _grant(self, blueprint: Blueprint) -> None:
        """Let QEMU's user at what the storage keeps: volumes are its own, images only read."""
        provision, owner = blueprint.provision, blueprint.host.owner
        for volume in blueprint.workload.volumes:
            if volume.id not in provision.volumes:
                raise DriverError(
                    f"cannot attach volume {volume.name} to VM {blueprint.workload.name}: "
                    "it is not on this host"
                )
            disks.grant(provision.volumes[volume.id], owner)
        image = provision.image
        shared = (image.disk, image.kernel, image.initrd) if image is not None else ()
        for path in (*shared, provision.cdrom):
            if path is not None:
                disks.check_readable(path, owner)

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

    def _reduced(self, owner: Owner | None) -> Reason | None:
        if owner is not None and is_closed(_KVM, owner):
            return Reason(
                code="kvm_closed",
                message=f"{_KVM} is closed to QEMU's user {owner.uid}: libvirt then examines QEMU "
                "anew at each call, which takes seconds",
                hint=f"chgrp kvm {_KVM} && chmod 660 {_KVM} (udev does that by default)",
            )
        if self._accelerator.name == "kvm":
            return None
        return Reason(
            code="no_kvm",
            message=f"VMs are emulated, which is slow: {self._accelerator.reason}",
            hint="enable virtualisation in the firmware, or nested virtualisation",
        )


def _check_rest(domain: Any, workload_id: str) -> None:
    if power.is_active(domain):
        raise DriverError(f"VM {workload_id} runs", code="in_use", hint="stop it first")


def _check_firmware(blueprint: Blueprint) -> None:
    if blueprint.workload.spec.firmware == "uefi" and blueprint.host.firmware is None:
        raise DriverError(
            f"cannot define VM {blueprint.workload.name} with UEFI: no firmware is on this host",
            hint="install ovmf (or edk2-ovmf) on the host",
        )


def _allocated(layout: Layout) -> int:
    try:
        return layout.root_disk.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _dotted(version: int) -> str:
    """libvirt's 1,000,000 × major + 1,000 × minor + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def _unhealthy(reason: Reason) -> DriverFacts:
    return DriverFacts(name=LibvirtDriver.name, healthy=False, reason=reason)
