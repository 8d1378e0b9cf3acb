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
from collections.abc import Mapping
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
    """Whether the VM gets a seed: disk images always, others when they are given user data."""
    is_disk = workload.image is not None and workload.image.manifest.type is ImageType.DISK
    return is_disk or workload.spec.user_data is not None


def files(workload: DesiredWorkload) -> Mapping[str, str]:
    """The seed's files by name.

    NICs are named eth0, eth1, … as in containers, and ask DHCP for the addresses that the
    inventory has given them; a NIC without any asks for IPv4, in case its network has a server.
    """
    meta_data = {"instance-id": workload.id, "local-hostname": workload.name}
    network = {
        "version": 2,
        "ethernets": {f"eth{nic.index}": _ethernet(nic) for nic in workload.nics},
    }
    return {
        "meta-data": json.dumps(meta_data, indent=1) + "\n",
        "user-data": workload.spec.user_data or _EMPTY_USER_DATA,
        "network-config": json.dumps(network, indent=1) + "\n",
    }


def digest(workload: DesiredWorkload) -> str:
    """Identifies the user data that the VM was given; empty where there is no seed."""
    if not wanted(workload):
        return ""
    return hashlib.sha256((workload.spec.user_data or "").encode()).hexdigest()[:16]


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


def _ethernet(nic: DesiredNic) -> dict[str, Any]:
    config: dict[str, Any] = {
        "match": {"macaddress": nic.mac},
        "set-name": f"eth{nic.index}",
        "dhcp4": nic.ipv4 is not None or nic.ipv6 is None,
    }
    if nic.ipv6 is not None:
        config["dhcp6"] = True
    if nic.mtu != 1500:
        config["mtu"] = nic.mtu
    return config
