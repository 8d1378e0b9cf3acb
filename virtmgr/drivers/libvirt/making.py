"""Makes VMs out of their specs: the files of each, and its definition in libvirt."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from virtmgr.domain.errors import DriverError
from virtmgr.domain.sync import DesiredWorkload
from virtmgr.drivers.libvirt import disks, domain_xml, seed, shape
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.definitions import Definitions
from virtmgr.drivers.libvirt.domain_xml import Blueprint
from virtmgr.drivers.libvirt.domains import Domains
from virtmgr.drivers.libvirt.errors import attempt
from virtmgr.drivers.libvirt.facts import HostFacts, Owner, find_firmware, host_cpus, owner_of
from virtmgr.drivers.libvirt.layout import Layouts, replacing
from virtmgr.ports.driver import Provision


class Maker:
    """Nothing that it makes runs yet."""

    def __init__(
        self,
        connection: Connection,
        domains: Domains,
        layouts: Layouts,
        accelerator: Accelerator,
        bridge_of: Callable[[str], str],
    ) -> None:
        self._connection = connection
        self._domains = domains
        self._layouts = layouts
        self._accelerator = accelerator
        self._bridge_of = bridge_of
        self._definitions = Definitions()
        self._owner: tuple[Any, Owner | None] = (None, None)  # of the connection beside it

    def forget(self, workload_id: str) -> None:
        """The VM is removed: what is remembered of its definition goes."""
        self._definitions.forget(workload_id)

    def _host(self) -> HostFacts:
        return HostFacts(
            accelerator=self._accelerator,
            owner=self.owner(),
            cpus=host_cpus(),
            firmware=find_firmware(),
            bridge_of=self._bridge_of,
        )

    def owner(self) -> Owner | None:
        """QEMU's user, asked once of each connection: it is libvirtd's configuration."""
        connection = self._connection.get()
        if self._owner[0] is not connection:
            self._owner = (connection, owner_of(connection.getCapabilities()))
        return self._owner[1]

    def blueprint(
        self,
        workload: DesiredWorkload,
        provision: Provision,
        domain: Any,
        slots: Mapping[str, int] | None = None,
    ) -> Blueprint:
        """All that its definition is made of.

        :param domain: as it is now, or None.
        :param slots: where its devices are now; None: as ``domain`` says.
        """
        if domain is not None and slots is None:
            slots = shape.read(ElementTree.fromstring(domain.XMLDesc())).slots
        return Blueprint(
            workload=workload,
            provision=provision,
            host=self._host(),
            layout=self._layouts.of(workload.id),
            root=disks.root_disk(workload, provision),
            slots=slots or {},
            name=domain.name() if domain is not None else None,
        )

    def define(self, workload: DesiredWorkload, provision: Provision, domain: Any) -> Any:
        """Make every file and the definition as the spec is now; the domain does not run."""
        with attempt(f"define VM {workload.name}"):
            if domain is not None and domain.name() != domain_xml.domain_name(workload):
                domain.rename(domain_xml.domain_name(workload))
                domain = self._domains.find(workload.id)
            blueprint = self.blueprint(workload, provision, domain)
            _check_firmware(blueprint)
            self._make_files(blueprint)
            self.grant(blueprint)
            text = domain_xml.to_text(domain_xml.build(blueprint))
            return self._definitions.define(self._connection.get(), domain, workload.id, text)

    def make_files(self, workload: DesiredWorkload, provision: Provision) -> None:
        """Make every file: the definition comes with the guest, and has to be like this one."""
        with attempt(f"make the files of VM {workload.name}"):
            blueprint = self.blueprint(workload, provision, None)
            _check_firmware(blueprint)
            self._make_files(blueprint)
            self.grant(blueprint)
            with replacing(blueprint.layout.expected) as partial:
                partial.write_text(domain_xml.to_text(domain_xml.build(blueprint)))

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

    def grant(self, blueprint: Blueprint) -> None:
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


def _check_firmware(blueprint: Blueprint) -> None:
    if blueprint.workload.spec.firmware == "uefi" and blueprint.host.firmware is None:
        raise DriverError(
            f"cannot define VM {blueprint.workload.name} with UEFI: no firmware is on this host",
            hint="install ovmf (or edk2-ovmf) on the host",
        )
