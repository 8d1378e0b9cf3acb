"""What a VM that comes while it runs is, and whether this host can take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import libvirt

from virtmgr.domain.errors import DriverError
from virtmgr.drivers.libvirt.errors import attempt
from virtmgr.drivers.libvirt.implied import IMPLIED

_AS_THE_HOST = ("host-passthrough", "maximum")
_FITS = (
    libvirt.VIR_CPU_COMPARE_IDENTICAL,
    libvirt.VIR_CPU_COMPARE_SUPERSET,
)
_COLD = "move it with --cold, or to another host"


def host_side(connection: Any) -> Mapping[str, str]:
    """What of a host matters to guests that see its own CPU."""
    cpu = ElementTree.fromstring(connection.getCapabilities()).find("host/cpu")
    features = [] if cpu is None else sorted(e.get("name", "") for e in cpu.iterfind("feature"))
    model = "" if cpu is None else cpu.findtext("model", "")
    return {
        "qemu": str(connection.getVersion()),
        "host_cpu": " ".join([model, *features]),
    }


def write(connection: Any, domain: Any) -> dict[str, Any]:
    """The papers of a domain that runs."""
    root = ElementTree.fromstring(domain.XMLDesc())
    cpu, type_ = root.find("cpu"), root.find("os/type")
    return {
        "type": root.get("type", ""),
        "machine": "" if type_ is None else type_.get("machine", ""),
        "architecture": "" if type_ is None else type_.get("arch", ""),
        "cpu": "" if cpu is None else ElementTree.tostring(cpu, encoding="unicode"),
        **host_side(connection),
    }


def check(connection: Any, name: str, facts: Mapping[str, Any]) -> None:
    """Refuse a guest that could not run here as it does there.

    :raises DriverError: why.
    """
    machine, kind = str(facts.get("machine", "")), str(facts.get("type", ""))
    architecture = str(facts.get("architecture", ""))
    with attempt(f"take VM {name} in: machine type {machine} under {kind}"):
        connection.getDomainCapabilities(None, architecture, machine, kind)
    cpu = ElementTree.fromstring(str(facts.get("cpu") or "<cpu/>"))
    if cpu.get("mode") in _AS_THE_HOST:
        _check_same_host(connection, name, facts)
        return
    with attempt(f"compare the CPU of VM {name} with this host's"):
        found = connection.compareHypervisorCPU(None, architecture, machine, kind, _bare(cpu), 0)
    if found not in _FITS:
        raise DriverError(
            f"cannot take VM {name} in: its CPU ({cpu.findtext('model') or 'as it is'}) has what "
            "this host's has not",
            code="cpu_differs",
            hint=f"set the cluster's cpu to auto and restart the VM, or {_COLD}",
        )


def _check_same_host(connection: Any, name: str, facts: Mapping[str, Any]) -> None:
    here = host_side(connection)
    differs = [key for key in ("host_cpu", "qemu") if facts.get(key) != here[key]]
    if differs:
        what = {"host_cpu": "another CPU", "qemu": "another version of QEMU"}
        raise DriverError(
            f"cannot take VM {name} in: it sees its host's own CPU, and this host has "
            + " and ".join(what[key] for key in differs),
            code="cpu_differs",
            hint=f"set the cluster's cpu to auto and restart the VM, or {_COLD}",
        )


def _bare(cpu: Element) -> str:
    """Model and features only, as they are compared; not what every QEMU shows anyway."""
    kept = Element("cpu", {"mode": "custom", "match": "exact"})
    for child in cpu:
        if child.tag in ("model", "feature", "vendor") and child.get("name") not in IMPLIED:
            kept.append(child)
    return ElementTree.tostring(kept, encoding="unicode")
