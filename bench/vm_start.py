"""How long from a prepared image to a running QEMU, against bare ``virsh`` on the same XML.

Run as root on a host with libvirtd: ``python bench/vm_start.py [--rounds 10]``. Both sides start
a VM without a boot medium; they take turns, so that the machine's noise falls on both alike.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Blob, Disk, ImageManifest, ImageType
from virtmgr.domain.sync import DesiredImage, DesiredWorkload
from virtmgr.domain.workload import Kind, PowerState, Resources, RootDisk, WorkloadSpec
from virtmgr.drivers.libvirt.accelerator import probe_accelerator
from virtmgr.drivers.libvirt.driver import LibvirtDriver
from virtmgr.ports.driver import LocalImage, Provision

_MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--uri", default="qemu:///system")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="virtmgr-bench-", dir="/var/tmp") as name:
        root = Path(name)
        root.chmod(0o711)
        driver = LibvirtDriver(
            uri=arguments.uri,
            state_directory=root / "vms",
            accelerator=probe_accelerator(root / "accelerator.json"),
        )
        try:
            driver.recover(lambda _: None)
            provision = Provision(image=_image(root))
            ours, bare = [], []
            for _ in range(arguments.rounds):
                ours.append(_ours(driver, provision))
                bare.append(_bare(driver, provision, arguments.uri))
        finally:
            driver.close()
    _show("virtmgr prepare + start", ours)
    _show("virsh define + start", bare)
    print(f"ratio of medians: {statistics.median(ours) / statistics.median(bare):.2f}")


def _ours(driver: LibvirtDriver, provision: Provision) -> float:
    workload = _workload()
    try:
        began = time.perf_counter()
        driver.prepare(workload, provision)
        driver.start(workload, provision)
        return time.perf_counter() - began
    finally:
        driver.destroy(workload.id)


def _bare(driver: LibvirtDriver, provision: Provision, uri: str) -> float:
    """The same domain, its files made beforehand, defined and started by virsh."""
    workload = _workload()
    virsh = ["virsh", "-q", "-c", uri]
    try:
        driver.prepare(workload, provision)
        shown = subprocess.run(
            [*virsh, "dumpxml", workload.id], check=True, capture_output=True, text=True
        )
        subprocess.run([*virsh, "undefine", "--nvram", workload.id], check=True)
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(shown.stdout)
            file.flush()
            began = time.perf_counter()
            subprocess.run([*virsh, "define", file.name], check=True, stdout=subprocess.DEVNULL)
            subprocess.run([*virsh, "start", workload.id], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - began
    finally:
        driver.destroy(workload.id)


def _image(root: Path) -> LocalImage:
    disk = root / "image.raw"
    disk.write_bytes(bytes(4 * _MIB))
    disk.chmod(0o644)
    return LocalImage(disk=disk, disk_format="raw")


def _workload() -> DesiredWorkload:
    blob = Blob(digest="sha256:" + "0" * 64, size=4 * _MIB)
    disk = Disk(blob=blob, format="raw", virtual_size=4 * _MIB)
    manifest = ImageManifest(type=ImageType.DISK, disk=disk)
    spec = WorkloadSpec(
        name="bench",
        kind=Kind.VM,
        image="bench",
        nics=(),
        root_disk=RootDisk(size=64 * _MIB),
        resources=Resources(vcpus=1, memory=128 * _MIB),
    )
    return DesiredWorkload(
        id=new_id(),
        project="bench",
        name="bench",
        kind=Kind.VM,
        init=None,
        generation=1,
        revision=1,
        spec=spec,
        state=PowerState.RUNNING,
        image=DesiredImage(id=new_id(), name="bench", manifest=manifest),
    )


def _show(what: str, seconds: list[float]) -> None:
    milliseconds = [1000 * each for each in seconds]
    print(f"{what}: median {statistics.median(milliseconds):.0f} ms, max {max(milliseconds):.0f}")


if __name__ == "__main__":
    main()
