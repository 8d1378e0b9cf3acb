"""What the driver needs to know of its host to write a domain's XML."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from virtmgr.domain.network import bridge_name
from virtmgr.drivers.libvirt.accelerator import Accelerator

_FIRMWARE = (  # Debian and Ubuntu, Fedora and RHEL, Arch, older Debian; code, variables
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
)


@dataclass(frozen=True)
class Firmware:
    """UEFI: read-only code, and the template of a VM's own variables."""

    code: Path
    variables: Path


@dataclass(frozen=True)
class Owner:
    """The user and group that QEMU runs as."""

    uid: int
    gid: int

    @property
    def label(self) -> str:
        """As libvirt's DAC security driver writes it."""
        return f"+{self.uid}:+{self.gid}"


@dataclass(frozen=True)
class HostFacts:
    """Everything about the host that a domain depends on."""

    accelerator: Accelerator
    owner: Owner | None  # None: libvirt has no DAC driver here, QEMU runs as libvirtd does
    cpus: int
    firmware: Firmware | None = None
    bridge_of: Callable[[str], str] = bridge_name


def find_firmware() -> Firmware | None:
    """The UEFI firmware that is installed; None if there is none."""
    for code, variables in _FIRMWARE:
        if Path(code).is_file() and Path(variables).is_file():
            return Firmware(Path(code), Path(variables))
    return None


def owner_of(capabilities: str) -> Owner | None:
    """QEMU's user, from libvirt's capabilities XML (formatcaps, ``host/secmodel``)."""
    for model in ElementTree.fromstring(capabilities).iterfind("host/secmodel"):
        if model.findtext("model") == "dac":
            label = model.findtext("baselabel")
            if label:
                uid, gid = label.replace("+", "").split(":")
                return Owner(int(uid), int(gid))
    return None


def is_closed(device: Path, owner: Owner) -> bool:
    """Whether ``device`` is there but QEMU's user may not open it."""
    try:
        status = device.stat()
        name = pwd.getpwuid(owner.uid).pw_name
    except (FileNotFoundError, KeyError):
        return False
    if owner.uid == 0:
        return False
    if status.st_uid == owner.uid:
        return not status.st_mode & stat.S_IRUSR
    if status.st_gid in os.getgrouplist(name, owner.gid):
        return not status.st_mode & stat.S_IRGRP
    return not status.st_mode & stat.S_IROTH


def host_cpus() -> int:
    return os.cpu_count() or 1
