"""The cloud-init seed: a small CD labelled ``cidata`` (NoCloud data source).

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. JSON is valid YAML,
so that nothing is quoted by hand.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from virtmgr.domain.errors import DriverError
from virtmgr.domain.image import ImageType
from virtmgr.domain.sync import DesiredNic, DesiredWorkload
from virtmgr.drivers.libvirt.disks import grant
from virtmgr.drivers.libvirt.facts import Owner
from virtmgr.drivers.libvirt.layout import replacing

_TOOLS = ("genisoimage", "mkisofs", "xorrisofs")  # one command line fits all, fastest first
_EMPTY_USER_DATA = "#cloud-config\n{}\n"


def wanted(workload: DesiredWorkload) -> bool:
    """Whether the VM gets a seed: disk images always, others when it has something to tell."""
    is_disk = workload.image is not None and workload.image.manifest.type is ImageType.DISK
    has_static = any(_is_static(nic) for nic in workload.nics)
    return is_disk or has_static or workload.spec.user_data is not None


def files(workload: DesiredWorkload) -> Mapping[str, str]:
    """The seed's files by name.

    NICs are named eth0, eth1, … as in containers. Where virtmgr answers DHCP they ask it for the
    addresses that the inventory has given them, elsewhere they are told; a NIC without any asks for
    IPv4, in case its network has a server.
    """
    meta_data = {"instance-id": workload.id, "local-hostname": workload.name}
    network = {
        "version": 2,
        "ethernets": {f"eth{nic.index}": _ethernet(nic, workload.nics) for nic in workload.nics},
    }
    return {
        "meta-data": json.dumps(meta_data, indent=1) + "\n",
        "user-data": workload.spec.user_data or _EMPTY_USER_DATA,
        "network-config": json.dumps(network, indent=1) + "\n",
    }


def digest(workload: DesiredWorkload) -> str:
    """Identifies the user data that the VM was given; empty where it was given none."""
    if workload.spec.user_data is None:
        return ""
    return hashlib.sha256(workload.spec.user_data.encode()).hexdigest()[:16]


def make(workload: DesiredWorkload, path: Path, owner: Owner | None) -> None:
    """Write the seed to ``path``, unless it is there with this content.

    :raises DriverError: no tool is there to make it, or the tool fails.
    """
    stamp = path.with_name(path.name + ".sha256")
    content = files(workload)
    content_digest = _digest(content)
    if path.exists() and stamp.exists() and stamp.read_text() == content_digest:
        return
    tool = next((found for name in _TOOLS if (found := shutil.which(name))), None)
    if tool is None:
        raise DriverError(
            f"cannot make the cloud-init seed of VM {workload.name}: no tool writes ISO images",
            hint="install xorriso (or genisoimage) on the host",
        )
    with tempfile.TemporaryDirectory(prefix="virtmgr-seed-") as name, replacing(path) as partial:
        directory = Path(name)
        for file, text in content.items():
            (directory / file).write_text(text)
        command = [tool, "-quiet", "-output", str(partial), "-volid", "cidata"]
        command += ["-joliet", "-rational-rock", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise DriverError(
                f"cannot make the cloud-init seed of VM {workload.name}: {done.stderr.strip()}"
            )
        stamp.unlink(missing_ok=True)
        grant(partial, owner)
    stamp.write_text(content_digest)


def _digest(content: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_static(nic: DesiredNic) -> bool:
    """Whether the guest must be told its addresses: no server of ours would."""
    return not nic.dhcp and (nic.ipv4 is not None or nic.ipv6 is not None)


def _ethernet(nic: DesiredNic, every: Sequence[DesiredNic]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "match": {"macaddress": nic.mac},
        "set-name": f"eth{nic.index}",
    }
    if nic.mtu != 1500:
        config["mtu"] = nic.mtu
    return config | (_static(nic, every) if _is_static(nic) else _dynamic(nic))


def _dynamic(nic: DesiredNic) -> dict[str, Any]:
    config = {"dhcp4": nic.ipv4 is not None or nic.ipv6 is None}
    return config | {"dhcp6": True} if nic.ipv6 is not None else config


def _static(nic: DesiredNic, every: Sequence[DesiredNic]) -> dict[str, Any]:
    """Addresses and gateways; router advertisements would add addresses that are not its own.

    Only the first NIC with a gateway leads to it, as a second default route fails in guests with
    ifupdown; so does a route to 0.0.0.0/0, which needs net-tools there.
    """
    config: dict[str, Any] = {
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": [address for address in (nic.ipv4, nic.ipv6) if address is not None],
    }
    earlier = [other for other in every if other.index < nic.index]
    if nic.gateway4 is not None and not any(other.gateway4 for other in earlier):
        config["gateway4"] = nic.gateway4
    if nic.gateway6 is not None and not any(other.gateway6 for other in earlier):
        config["gateway6"] = nic.gateway6
    if nic.dns:
        config["nameservers"] = {"addresses": list(nic.dns)}
    return config
