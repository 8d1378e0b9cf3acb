"""A domain's XML from data (https://libvirt.org/formatdomain.html). Pure; pinned by golden files.

Every device that can come and go has an alias of ours and a PCI slot that stays, so that it can be
found again and keeps its name in the guest. Bus 0 of q35 holds the fixed devices; disks and NICs
have a root port each, because only those can be hot-plugged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from virtmgr.domain.image import ImageType
from virtmgr.domain.network import port_name
from virtmgr.domain.sync import DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import IoLimits
from virtmgr.drivers.libvirt import seed, slots
from virtmgr.drivers.libvirt.disks import RootDisk
from virtmgr.drivers.libvirt.facts import HostFacts
from virtmgr.drivers.libvirt.layout import Layout
from virtmgr.ports.driver import Provision

NAMESPACE = "urn:virtmgr:workload:1"
NAME_PREFIX = "virtmgr-"
ROOT, SEED, CDROM, ISO = "ua-root", "ua-seed", "ua-cdrom", "ua-iso"
VOLUME, NIC = "ua-volume-", "ua-nic-"  # + id
MOST_VCPUS = 240  # above, q35 needs an emulated IOMMU
THROTTLES = {  # libvirt's names, in <iotune> and in calls
    "read_bytes_sec": "read_bytes_per_second",
    "write_bytes_sec": "write_bytes_per_second",
    "read_iops_sec": "read_operations_per_second",
    "write_iops_sec": "write_operations_per_second",
}
_DEFAULT_BOOT = ("disk", "cdrom")
_VGA, _ROOT_PORTS, _SCSI, _SERIAL, _BALLOON, _RNG, _USB = 0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x14

ElementTree.register_namespace("virtmgr", NAMESPACE)


@dataclass(frozen=True)
class Blueprint:
    """All that goes into a domain's XML."""

    workload: DesiredWorkload
    provision: Provision
    host: HostFacts
    layout: Layout
    root: RootDisk | None
    slots: Mapping[str, int] = field(default_factory=dict)  # as they were before
    name: str | None = None  # of the domain, if there is one: one that runs keeps its name


def domain_name(workload: DesiredWorkload) -> str:
    """A unique name that people can read: the end of a UUIDv7 is random."""
    return f"{NAME_PREFIX}{workload.name}-{workload.id[-12:]}"


def most_vcpus(vcpus: int, host_cpus: int) -> int:
    """Up to how many vCPUs a VM can grow while it runs."""
    return max(vcpus, min(host_cpus, MOST_VCPUS))


def build(blueprint: Blueprint) -> Element:
    """The whole domain."""
    workload, host = blueprint.workload, blueprint.host
    kvm = host.accelerator.name == "kvm"
    domain = Element("domain", type="kvm" if kvm else "qemu")
    _text(domain, "name", blueprint.name or domain_name(workload))
    _text(domain, "uuid", workload.id)
    _text(domain, "title", f"{workload.project}/{workload.name}")
    _metadata(domain, blueprint)
    _resources(domain, workload, host)
    _boot(domain, blueprint)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    SubElement(features, "vmport", state="off")
    _cpu(domain, workload, host)
    SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    power = SubElement(domain, "pm")
    SubElement(power, "suspend-to-mem", enabled="no")
    SubElement(power, "suspend-to-disk", enabled="no")
    _devices(SubElement(domain, "devices"), blueprint)
    if host.owner is not None:  # we own the files' permissions: images are shared, never chowned
        label = SubElement(domain, "seclabel", type="static", model="dac", relabel="no")
        _text(label, "label", host.owner.label)
    return domain


def volume_disk(volume: DesiredVolume, path: Path, slot: int, io: IoLimits) -> Element:
    """A volume as a virtio disk."""
    disk = _disk(VOLUME + volume.id, path, "raw", _target(slot), "virtio")
    if volume.read_only:
        SubElement(disk, "readonly")
    _throttle(disk, io)
    _text(disk, "serial", _serial(volume))
    _slot(disk, slot)
    return disk


def interface(nic: DesiredNic, bridge: str, slot: int) -> Element:
    """A NIC as a tap device on the host's ``bridge``."""
    device = Element("interface", type="bridge")
    SubElement(device, "mac", address=nic.mac)
    SubElement(device, "source", bridge=bridge)
    SubElement(device, "target", dev=port_name(nic.id))
    SubElement(device, "model", type="virtio")
    SubElement(device, "mtu", size=str(nic.mtu))
    SubElement(device, "alias", name=NIC + nic.id)
    _slot(device, slot)
    return device


def cdrom(alias: str, path: Path | None, target: str) -> Element:
    """A SATA CD drive, which every firmware and installer knows; ``path`` None: it is empty."""
    bus = "scsi" if alias == SEED else "sata"  # cloud kernels have no SATA driver
    disk = _disk(alias, path, "raw", target, bus, device="cdrom")
    SubElement(disk, "readonly")
    return disk


def to_text(element: Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode")


def _metadata(domain: Element, blueprint: Blueprint) -> None:
    workload = blueprint.workload
    SubElement(
        SubElement(domain, "metadata"),
        f"{{{NAMESPACE}}}workload",
        {
            "id": workload.id,
            "name": workload.name,
            "project": workload.project,
            "generation": str(workload.generation),
            "seed": seed.digest(workload),
            "state": str(blueprint.layout.directory.parent),
        },
    )


def _resources(domain: Element, workload: DesiredWorkload, host: HostFacts) -> None:
    memory = str(workload.spec.resources.memory // 1024)
    _text(domain, "memory", memory, unit="KiB")
    _text(domain, "currentMemory", memory, unit="KiB")
    vcpus = int(workload.spec.resources.vcpus)
    _text(
        domain,
        "vcpu",
        str(most_vcpus(vcpus, host.cpus)),
        placement="static",
        current=str(vcpus),
    )


def _boot(domain: Element, blueprint: Blueprint) -> None:
    os = SubElement(domain, "os")
    _text(os, "type", "hvm", arch="x86_64", machine=blueprint.workload.machine or "q35")
    firmware = blueprint.host.firmware
    if blueprint.workload.spec.firmware == "uefi" and firmware is not None:
        _text(os, "loader", str(firmware.code), readonly="yes", type="pflash")
        _text(os, "nvram", str(blueprint.layout.nvram))
    image, local = blueprint.workload.image, blueprint.provision.image
    if image is not None and image.manifest.kernel is not None and local is not None:
        _text(os, "kernel", str(local.kernel))
        if local.initrd is not None:
            _text(os, "initrd", str(local.initrd))
        _text(os, "cmdline", image.manifest.kernel.command_line)


def _cpu(domain: Element, workload: DesiredWorkload, host: HostFacts) -> None:
    kvm = host.accelerator.name == "kvm"
    if workload.cpu is not None:
        cpu = SubElement(domain, "cpu", mode="custom", match="exact", check="partial")
        _text(cpu, "model", workload.cpu, fallback="forbid")
    else:
        cpu = SubElement(domain, "cpu", mode="host-passthrough" if kvm else "maximum")
    cores = most_vcpus(int(workload.spec.resources.vcpus), host.cpus)
    SubElement(cpu, "topology", sockets="1", dies="1", cores=str(cores), threads="1")


def _devices(devices: Element, blueprint: Blueprint) -> None:
    workload, layout = blueprint.workload, blueprint.layout
    ports = slots.assign(blueprint.slots, _hotplug_aliases(blueprint))
    _controllers(devices, slots.ports(ports))
    _disks(devices, blueprint, ports)
    for nic in sorted(workload.nics, key=lambda nic: nic.index):
        bridge = blueprint.host.bridge_of(nic.network_id)
        devices.append(interface(nic, bridge, ports[NIC + nic.id]))
    _boot_order(devices, workload.spec.boot or _DEFAULT_BOOT)
    _serial_port(devices, layout)
    agent = SubElement(devices, "channel", type="unix")
    SubElement(agent, "target", type="virtio", name="org.qemu.guest_agent.0")
    _display(devices, vnc=workload.spec.vnc is not False)
    balloon = SubElement(devices, "memballoon", model="virtio")
    SubElement(balloon, "stats", period="10")
    _address(balloon, 0, _BALLOON)
    rng = SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    _address(rng, 0, _RNG)
    SubElement(devices, "panic", model="isa")


def _hotplug_aliases(blueprint: Blueprint) -> list[str]:
    root = [ROOT] if blueprint.root is not None else []
    nics = [NIC + nic.id for nic in sorted(blueprint.workload.nics, key=lambda nic: nic.index)]
    volumes = [VOLUME + volume.id for volume in blueprint.workload.volumes]
    return [*root, *nics, *volumes]


def _controllers(devices: Element, root_ports: int) -> None:
    SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for port in range(1, root_ports + 1):
        controller = SubElement(
            devices, "controller", type="pci", index=str(port), model="pcie-root-port"
        )
        device, function = divmod(port - 1, 8)
        _address(controller, 0, _ROOT_PORTS + device, function, several=function == 0)
    scsi = SubElement(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    _address(scsi, 0, _SCSI)
    serial = SubElement(devices, "controller", type="virtio-serial", index="0")
    _address(serial, 0, _SERIAL)
    usb = SubElement(devices, "controller", type="usb", index="0", model="qemu-xhci")
    _address(usb, 0, _USB)


def _disks(devices: Element, blueprint: Blueprint, ports: Mapping[str, int]) -> None:
    workload, provision, layout = blueprint.workload, blueprint.provision, blueprint.layout
    io = workload.spec.resources.io
    if blueprint.root is not None:
        devices.append(_root_disk(blueprint.root, layout.root_disk, ports[ROOT], io))
    for volume in workload.volumes:
        path = provision.volumes[volume.id]
        devices.append(volume_disk(volume, path, ports[VOLUME + volume.id], io))
    image = workload.image
    if image is not None and image.manifest.type is ImageType.ISO and provision.image is not None:
        devices.append(cdrom(ISO, provision.image.disk, "sdb"))
    devices.append(cdrom(CDROM, provision.cdrom, "sda"))
    if seed.wanted(workload):
        devices.append(cdrom(SEED, layout.seed, "sdc"))


def _root_disk(root: RootDisk, path: Path, slot: int, io: IoLimits) -> Element:
    disk = _disk(ROOT, path, "qcow2", _target(slot), "virtio")
    if root.backing is not None:
        chain = disk.find("backingStore")
        assert chain is not None
        chain.set("type", "file")
        SubElement(chain, "format", type=root.backing_format)
        SubElement(chain, "source", file=str(root.backing))
        SubElement(chain, "backingStore")  # the chain ends here, whatever the image says
    _throttle(disk, io)
    _text(disk, "serial", "root")
    _slot(disk, slot)
    return disk


def _disk(
    alias: str, path: Path | None, format: str, target: str, bus: str, *, device: str = "disk"
) -> Element:
    disk = Element("disk", type="file", device=device)
    driver = SubElement(disk, "driver", name="qemu", type=format)
    if device == "disk":
        driver.set("discard", "unmap")
    if path is not None:
        SubElement(disk, "source", file=str(path))
        SubElement(disk, "backingStore")
    SubElement(disk, "target", dev=target, bus=bus)
    SubElement(disk, "alias", name=alias)
    return disk


def _throttle(disk: Element, io: IoLimits) -> None:
    if io.is_unlimited():
        return
    tune = SubElement(disk, "iotune")
    for tag, name in THROTTLES.items():
        if (rate := getattr(io, name)) is not None:
            _text(tune, tag, str(rate))


def _boot_order(devices: Element, order: tuple[str, ...]) -> None:
    found: dict[str, list[Element]] = {"disk": [], "cdrom": [], "network": []}
    for disk in devices.iterfind("disk"):
        alias = disk.find("alias")
        name = alias.get("name") if alias is not None else None
        if name == ROOT:
            found["disk"].append(disk)
        elif name in (ISO, CDROM):
            found["cdrom"].append(disk)
    found["network"] = devices.findall("interface")
    bootable = [device for kind in order for device in found[kind]]
    for number, device in enumerate(bootable, start=1):
        SubElement(device, "boot", order=str(number))


def _serial_port(devices: Element, layout: Layout) -> None:
    serial = SubElement(devices, "serial", type="unix")
    SubElement(serial, "source", mode="bind", path=str(layout.console))
    SubElement(serial, "log", file=str(layout.log), append="on")
    SubElement(serial, "target", type="isa-serial", port="0")


def _display(devices: Element, *, vnc: bool) -> None:
    video = SubElement(devices, "video")
    if not vnc:
        SubElement(video, "model", type="none")
        return
    SubElement(video, "model", type="vga", vram="16384", heads="1", primary="yes")
    _address(video, 0, _VGA)
    SubElement(devices, "input", type="tablet", bus="usb")
    graphics = SubElement(devices, "graphics", type="vnc")
    SubElement(graphics, "listen", type="socket")  # libvirt puts it where only QEMU's user can go


def _target(slot: int) -> str:
    """A disk name that is unique because its slot is: 1 is vda, 26 vdz, 27 vdaa."""
    text = ""
    while slot > 0:
        slot, rest = divmod(slot - 1, 26)
        text = chr(ord("a") + rest) + text
    return "vd" + text


def _serial(volume: DesiredVolume) -> str:
    """Names the disk in /dev/disk/by-id: the volume's name if it fits virtio's 20 bytes."""
    if len(volume.name) <= 20:
        return volume.name
    return f"{volume.name[:11]}-{volume.id[-8:]}"


def _slot(device: Element, port: int) -> None:
    _address(device, port, 0)


def _address(
    device: Element, bus: int, slot: int, function: int = 0, *, several: bool = False
) -> None:
    address = SubElement(
        device,
        "address",
        type="pci",
        domain="0x0000",
        bus=f"0x{bus:02x}",
        slot=f"0x{slot:02x}",
        function=f"0x{function:x}",
    )
    if several:
        address.set("multifunction", "on")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
