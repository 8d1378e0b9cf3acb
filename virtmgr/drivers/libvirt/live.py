"""Changes to a running domain, one function each. They wait until the guest has taken part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import libvirt

from virtmgr.drivers.libvirt import domain_xml
from virtmgr.drivers.libvirt.disks import shrink_refused
from virtmgr.drivers.libvirt.domain_xml import Blueprint
from virtmgr.drivers.libvirt.events import Events
from virtmgr.drivers.libvirt.shape import Changes, Shape, read

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_BALLOON_PATIENCE = 5.0  # seconds for the guest's balloon driver to start to move
_DETACH_PATIENCE = 15.0  # seconds for the guest to let go of a device


def shape_of(domain: Any) -> Shape:
    """The shape of the domain as it runs."""
    return read(ElementTree.fromstring(domain.XMLDesc()))


def apply(
    domain: Any, running: Shape, changes: Changes, wanted: Element, events: Events
) -> tuple[str, ...]:
    """Carry out ``changes``; the fields that the guest or its free slots did not allow."""
    devices = _by_alias(wanted)
    refused: list[str] = []
    if changes.vcpus is not None:
        domain.setVcpusFlags(changes.vcpus, _LIVE)
    if changes.memory is not None and not _balloon(domain, changes.memory, events):
        refused.append("resources.memory")
    for alias in changes.detach:
        if not _detach(domain, alias, events):
            refused.append(_field(alias))
    present = read_aliases(domain) if changes.attach else set()
    for alias in changes.attach:
        if alias in present or not _fits(devices[alias], running):
            refused.append(_field(alias))
        else:
            domain.attachDeviceFlags(domain_xml.to_text(devices[alias]), _LIVE)
    for alias in changes.cdroms:
        domain.updateDeviceFlags(
            domain_xml.to_text(devices[alias]), _LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
        )
    targets = _targets(domain) if changes.throttles else {}
    for alias, rates in changes.throttles.items():
        if alias in targets:  # else the guest has just let go of it
            domain.setBlockIoTune(targets[alias], rates, _LIVE)
    return tuple(dict.fromkeys(refused))


def read_aliases(domain: Any) -> set[str]:
    """The aliases of all devices of the running domain."""
    return set(_by_alias(ElementTree.fromstring(domain.XMLDesc())))


def _by_alias(domain: Element) -> Mapping[str, Element]:
    found = {}
    for device in domain.iterfind("devices/*"):
        alias = device.find("alias")
        if alias is not None:
            found[alias.get("name", "")] = device
    return found


def _field(alias: str) -> str:
    return "nics" if alias.startswith(domain_xml.NIC) else "volumes"


def _fits(device: Element, running: Shape) -> bool:
    """Whether the device's root port is there: ports cannot be plugged while it runs."""
    address = device.find("address")
    return address is not None and int(address.get("bus", "0"), 16) <= running.ports


def _balloon(domain: Any, memory: int, events: Events) -> bool:
    """Ask the guest for memory; False if its driver does not react at all."""
    before = int(domain.memoryStats().get("actual", 0))
    domain.setMemoryFlags(memory, _LIVE)

    def moved() -> bool:
        actual = int(domain.memoryStats().get("actual", before))
        return actual not in (0, before) or actual == memory

    return events.wait_until(moved, _BALLOON_PATIENCE, poll=0.2)


def _detach(domain: Any, alias: str, events: Events) -> bool:
    """Ask the guest to let go of a device; False if it has not after a while."""
    device = _by_alias(ElementTree.fromstring(domain.XMLDesc())).get(alias)
    if device is None:
        return True
    try:
        domain.detachDeviceFlags(domain_xml.to_text(device), _LIVE)
    except libvirt.libvirtError as error:
        pending = "is already in the process of unplug" in str(error)
        if not pending and error.get_error_code() != libvirt.VIR_ERR_DEVICE_MISSING:
            raise
    return events.wait_until(lambda: alias not in read_aliases(domain), _DETACH_PATIENCE)


def grow_disks(domain: Any, blueprint: Blueprint) -> None:
    """Tell the guest of disks that have become larger.

    :raises StorageError: the root disk would become smaller.
    """
    targets = _targets(domain)
    root = blueprint.root
    if root is not None and domain_xml.ROOT in targets:
        present = domain.blockInfo(targets[domain_xml.ROOT])[0]
        if root.size < present:
            raise shrink_refused(blueprint.layout.root_disk, present, root.size)
        _grow(domain, targets[domain_xml.ROOT], root.size)
    for volume in blueprint.workload.volumes:
        target = targets.get(domain_xml.VOLUME + volume.id)
        if target is not None and not volume.read_only:
            _grow(domain, target, volume.size)


def _grow(domain: Any, target: str, size: int) -> None:
    if domain.blockInfo(target)[0] < size:
        domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def _targets(domain: Any) -> Mapping[str, str]:
    """The target name of each disk of the running domain, by alias."""
    devices = _by_alias(ElementTree.fromstring(domain.XMLDesc()))
    targets = {alias: device.find("target") for alias, device in devices.items()}
    return {alias: target.get("dev", "") for alias, target in targets.items() if target is not None}
