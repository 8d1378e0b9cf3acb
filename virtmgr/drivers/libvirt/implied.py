"""CPU features that follow from how many cores a guest sees, and who names them. Pure.

With several threads in a package every QEMU shows ``ht`` to the guest and, unless the CPU is
Intel's, ``cmp_legacy``. Since 10.0 QEMU says so of its CPUs, and libvirt before 11.6 compares names
only: what comes from an older QEMU is refused ("extra features: ht"), what goes to one as well
("missing features"), although the guest sees the same on both. No definition of the source avoids
it, since the older QEMU takes neither from ``<cpu>``. So the host that a guest comes to writes the
CPU as its own QEMU would name it; everything else is compared as exactly as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element, SubElement

_NAMED_SINCE: Final = 10_000_000  # QEMU 10.0, in libvirt's numbers
_ALL: Final = "ht"
_UNLESS_INTEL: Final = "cmp_legacy"
IMPLIED: Final = frozenset({_ALL, _UNLESS_INTEL})
_LIKE_INTEL: Final = frozenset({"Intel", "Zhaoxin"})  # libvirt's names of makers (cpu_map)
_UNMADE: Final = {"kvm32": "Intel", "kvm64": "Intel", "qemu32": "Intel", "qemu64": "AMD"}
"""QEMU's own models, of which libvirt knows no maker (target/i386/cpu.c)."""


@dataclass(frozen=True)
class Words:
    """How a host names a guest's CPU."""

    qemu: int  # its version, in libvirt's numbers
    vendor: str = ""  # the maker that all guests' CPUs show: the host's; empty: the model's
    vendors: Mapping[str, str] = field(default_factory=dict)  # of the models

    def put(self, cpu: Element) -> None:
        """Name the implied features of a ``<cpu>`` of a guest that runs as this host would.

        One that is not checked feature by feature is left as it is, and so is one that comes from
        a host which names them as well.
        """
        if cpu.get("check") != "full" or _threads(cpu) < 2:
            return
        named = {each.get("name"): each for each in cpu.iterfind("feature")}
        if self.qemu < _NAMED_SINCE:
            for name in IMPLIED & set(named):
                cpu.remove(named[name])
        elif _ALL not in named:
            for name in self._added(cpu.findtext("model", "")):
                if name not in named:
                    SubElement(cpu, "feature", policy="require", name=name)

    def _added(self, model: str) -> tuple[str, ...]:
        vendor = self.vendor or _UNMADE.get(model) or self.vendors.get(model, "")
        return (_ALL,) if vendor in _LIKE_INTEL else (_ALL, _UNLESS_INTEL)


def words(version: int, capabilities: Element, offered: Element, *, is_kvm: bool) -> Words:
    """This host's.

    :param version: of its QEMU, in libvirt's numbers.
    :param capabilities: libvirt's of the host (formatcaps).
    :param offered: libvirt's of VMs (formatdomaincaps).
    """
    models = offered.iterfind("cpu/mode[@name='custom']/model")
    return Words(
        qemu=version,
        vendor=capabilities.findtext("host/cpu/vendor", "") if is_kvm else "",
        vendors={model.text or "": model.get("vendor", "") for model in models},
    )


def _threads(cpu: Element) -> int:
    """In a package."""
    topology = cpu.find("topology")
    if topology is None:
        return 1
    threads = 1
    for level in ("dies", "clusters", "cores", "threads"):
        threads *= int(topology.get(level, "1"))
    return threads
