"""What the libvirt driver says of itself: what it can, and whether it works on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from virtmgr.domain.errors import DriverError
from virtmgr.domain.host import DriverFacts
from virtmgr.domain.machine_type import versioned
from virtmgr.domain.workload import Kind, Reason
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.connection import Connection
from virtmgr.drivers.libvirt.errors import attempt
from virtmgr.drivers.libvirt.facts import Owner, is_closed, owner_of
from virtmgr.ports.driver import Capabilities, Feature

NAME: Final = "libvirt"
CAPABILITIES: Final = Capabilities(
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
            Feature.MOVE,
            Feature.LIVE_MIGRATION,
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
        Feature.POST_COPY: "libvirt offers it to no guest that arrives paused, and one that does "
        "not could run on both hosts",
    },
)
_KVM = Path("/dev/kvm")


def facts(connection: Connection, accelerator: Accelerator) -> DriverFacts:
    """Health and version now, and what is reduced."""
    if accelerator.name == "none":
        return _unhealthy(Reason(code="no_qemu", message=accelerator.reason))
    try:
        opened = connection.get()
        with attempt(f"ask libvirt at {connection.uri} for its version"):
            version = (
                f"libvirt {_dotted(opened.getLibVersion())}, QEMU {_dotted(opened.getVersion())}"
            )
            reason = _reduced(accelerator, owner_of(opened.getCapabilities()))
            models = _cpu_models(opened, accelerator)
            machines = _machine_types(opened)
    except DriverError as error:
        return _unhealthy(Reason.of(error))
    return DriverFacts(
        name=NAME,
        healthy=True,
        version=version,
        kinds=(Kind.VM,),
        features=tuple(sorted(CAPABILITIES.features)),
        cpu_models=models,
        machine_types=machines,
        reason=reason,
    )


def _cpu_models(opened: Any, accelerator: Accelerator) -> tuple[str, ...]:
    """The named models that lack nothing here (formatdomaincaps, ``cpu``)."""
    kind = "kvm" if accelerator.name == "kvm" else "qemu"
    found = ElementTree.fromstring(opened.getDomainCapabilities(None, None, "q35", kind))
    models = found.iterfind("cpu/mode[@name='custom']/model[@usable='yes']")
    return tuple(sorted(model.text or "" for model in models))


def _machine_types(opened: Any) -> tuple[str, ...]:
    """Those that say their version (formatcaps, ``guest``); an alias has none of its own."""
    found = ElementTree.fromstring(opened.getCapabilities())
    machines = found.iterfind("guest/arch[@name='x86_64']/machine")
    return versioned(machine.text or "" for machine in machines)


def _reduced(accelerator: Accelerator, owner: Owner | None) -> Reason | None:
    if owner is not None and is_closed(_KVM, owner):
        return Reason(
            code="kvm_closed",
            message=f"{_KVM} is closed to QEMU's user {owner.uid}: libvirt then examines QEMU "
            "anew at each call, which takes seconds",
            hint=f"chgrp kvm {_KVM} && chmod 660 {_KVM} (udev does that by default)",
        )
    if accelerator.name == "kvm":
        return None
    return Reason(
        code="no_kvm",
        message=f"VMs are emulated, which is slow: {accelerator.reason}",
        hint="enable virtualisation in the firmware, or nested virtualisation",
    )


def _dotted(version: int) -> str:
    """libvirt's 1,000,000 × major + 1,000 × minor + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def _unhealthy(reason: Reason) -> DriverFacts:
    return DriverFacts(name=NAME, healthy=False, reason=reason)
