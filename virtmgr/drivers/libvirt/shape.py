"""What of a domain can change, read from its XML; and the changes from one shape to another.

The shape of the running domain is compared with that of the one that is wanted, so that what has
not taken effect yet is found again each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from virtmgr.drivers.libvirt import domain_xml


@dataclass(frozen=True)
class Shape:
    """The changeable parts of a domain. Devices by alias, each with what identifies it."""

    vcpus: int
    most_vcpus: int
    memory: int  # KiB, with the balloon
    most_memory: int  # KiB
    volumes: dict[str, tuple[str, bool]] = field(default_factory=dict)  # file, read-only
    nics: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # MAC, bridge, MTU
    cdroms: dict[str, str] = field(default_factory=dict)  # files; empty drives: ""
    root: str = ""
    throttles: dict[str, dict[str, int]] = field(default_factory=dict)  # by disk; 0: no limit
    slots: dict[str, int] = field(default_factory=dict)
    ports: int = 0
    firmware: str = "bios"
    boot: tuple[str, ...] = ()  # aliases in their order
    vnc: bool = False
    kernel: tuple[str, ...] = ()
    seed: str = ""
    name: str = ""  # of the workload, which is the guest's host name


@dataclass(frozen=True)
class Changes:
    """What to do to a running domain, and the fields that must wait for its next start."""

    vcpus: int | None = None
    memory: int | None = None  # KiB
    detach: tuple[str, ...] = ()  # aliases
    attach: tuple[str, ...] = ()
    cdroms: tuple[str, ...] = ()
    throttles: dict[str, dict[str, int]] = field(default_factory=dict)  # by alias of the disk
    needs_restart: tuple[str, ...] = ()


def read(domain: Element) -> Shape:
    """The shape of a domain."""
    devices = domain.find("devices")
    assert devices is not None, "a domain has devices"
    vcpu = domain.find("vcpu")
    assert vcpu is not None, "a domain has vCPUs"
    most_vcpus = int(vcpu.text or "1")
    most_memory = int(domain.findtext("memory", "0"))
    disks = {_alias(disk): disk for disk in devices.iterfind("disk")}
    nics = {_alias(nic): nic for nic in devices.iterfind("interface")}
    metadata = domain.find(f"metadata/{{{domain_xml.NAMESPACE}}}workload")
    return Shape(
        vcpus=int(vcpu.get("current", most_vcpus)),
        most_vcpus=most_vcpus,
        memory=int(domain.findtext("currentMemory", str(most_memory))),
        most_memory=most_memory,
        volumes={
            alias: (_file(disk), disk.find("readonly") is not None)
            for alias, disk in disks.items()
            if alias.startswith(domain_xml.VOLUME)
        },
        nics={alias: _nic(nic) for alias, nic in nics.items()},
        cdroms={
            alias: _file(disk)
            for alias, disk in disks.items()
            if alias in (domain_xml.CDROM, domain_xml.ISO)
        },
        root=_file(disks[domain_xml.ROOT]) if domain_xml.ROOT in disks else "",
        throttles={
            alias: _throttle(disk)
            for alias, disk in disks.items()
            if alias == domain_xml.ROOT or alias.startswith(domain_xml.VOLUME)
        },
        slots=_slots({**disks, **nics}),
        ports=len(devices.findall("controller[@model='pcie-root-port']")),
        firmware="uefi" if domain.find("os/loader") is not None else "bios",
        boot=_boot({**disks, **nics}),
        vnc=devices.find("graphics") is not None,
        kernel=tuple(domain.findtext(f"os/{tag}", "") for tag in ("kernel", "initrd", "cmdline")),
        seed=metadata.get("seed", "") if metadata is not None else "",
        name=metadata.get("name", "") if metadata is not None else "",
    )


def compare(running: Shape, wanted: Shape) -> Changes:
    """What brings the running domain to the wanted shape."""
    grow = wanted.vcpus if running.vcpus < wanted.vcpus <= running.most_vcpus else None
    fits = wanted.memory <= running.most_memory
    balloon = wanted.memory if fits and wanted.memory != running.memory else None
    detach, attach = _devices(running, wanted)
    same_drives = running.cdroms.keys() == wanted.cdroms.keys()
    return Changes(
        vcpus=grow,
        memory=balloon,
        detach=detach,
        attach=attach,
        cdroms=tuple(
            alias
            for alias, file in wanted.cdroms.items()
            if alias in running.cdroms and running.cdroms[alias] != file
        ),
        throttles={
            alias: rates
            for alias, rates in wanted.throttles.items()
            if running.throttles.get(alias, rates) != rates
        },
        needs_restart=_waiting(running, wanted, same_drives=same_drives),
    )


def _devices(running: Shape, wanted: Shape) -> tuple[tuple[str, ...], tuple[str, ...]]:
    have = {**running.volumes, **running.nics}
    want = {**wanted.volumes, **wanted.nics}
    changed = {alias for alias in have.keys() & want.keys() if have[alias] != want[alias]}
    detach = tuple(alias for alias in have if alias not in want or alias in changed)
    attach = tuple(alias for alias in want if alias not in have or alias in changed)
    return detach, attach


def _waiting(running: Shape, wanted: Shape, *, same_drives: bool) -> tuple[str, ...]:
    vcpus_wait = wanted.vcpus < running.vcpus or wanted.vcpus > running.most_vcpus
    tests = (
        ("resources.vcpus", vcpus_wait),
        ("resources.memory", wanted.memory > running.most_memory),
        ("image", running.kernel != wanted.kernel or not same_drives),
        ("root_disk", bool(running.root) != bool(wanted.root)),
        ("firmware", running.firmware != wanted.firmware),
        ("boot", _order(running) != _order(wanted)),
        ("vnc", running.vnc != wanted.vnc),
        ("user_data", running.seed != wanted.seed),
        ("name", running.name != wanted.name),
    )
    return tuple(name for name, waits in tests if waits)


def _order(shape: Shape) -> tuple[str, ...]:
    """The boot order by kind, so that a NIC that comes or goes alone does not change it."""
    kinds = ["nic" if alias.startswith(domain_xml.NIC) else alias for alias in shape.boot]
    return tuple(dict.fromkeys(kinds))


def _alias(device: Element) -> str:
    alias = device.find("alias")
    return alias.get("name", "") if alias is not None else ""


def _file(disk: Element) -> str:
    source = disk.find("source")
    return source.get("file", "") if source is not None else ""


def _throttle(disk: Element) -> dict[str, int]:
    return {tag: int(disk.findtext(f"iotune/{tag}", "0")) for tag in domain_xml.THROTTLES}


def _nic(nic: Element) -> tuple[str, str, str]:
    def attribute(tag: str, name: str) -> str:
        found = nic.find(tag)
        return found.get(name, "") if found is not None else ""

    return attribute("mac", "address"), attribute("source", "bridge"), attribute("mtu", "size")


def _slots(devices: dict[str, Element]) -> dict[str, int]:
    found = {}
    for alias, device in devices.items():
        address = device.find("address[@type='pci']")
        if alias and address is not None:
            found[alias] = int(address.get("bus", "0"), 16)
    return found


def _boot(devices: dict[str, Element]) -> tuple[str, ...]:
    orders = []
    for alias, device in devices.items():
        boot = device.find("boot")
        if boot is not None:
            orders.append((int(boot.get("order", "0")), alias))
    return tuple(alias for _, alias in sorted(orders))
