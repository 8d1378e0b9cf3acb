"""The domain's XML: pinned, valid, and what is read back from it. Nothing runs here.

After a change that is meant: ``VIRTMGR_GOLDEN=write pytest tests/drivers/libvirt/test_xml.py``,
then read the difference.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drivers.libvirt.kit import disk_image, iso_image, workload
from virtmgr.domain.image import Blob, ImageManifest, ImageType, Kernel
from virtmgr.domain.sync import DesiredImage, DesiredNic, DesiredVolume
from virtmgr.domain.workload import Hardware, IoLimits, Resources, RootDisk
from virtmgr.drivers.libvirt import disks, domain_xml, shape, slots
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.domain_xml import Blueprint
from virtmgr.drivers.libvirt.facts import Firmware, HostFacts, Owner
from virtmgr.drivers.libvirt.hardware import read
from virtmgr.drivers.libvirt.layout import Layout
from virtmgr.ports.driver import LocalImage, Provision

GOLDEN = Path(__file__).with_name("golden")
ID = "0198c0de-0000-7000-8000-00000000000a"
GIB = 1 << 30
HOST = HostFacts(
    accelerator=Accelerator(name="tcg", reason="no KVM"),
    owner=Owner(64055, 64055),
    cpus=4,
    firmware=Firmware(Path("/firmware/code.fd"), Path("/firmware/vars.fd")),
)
KVM = replace(HOST, accelerator=Accelerator(name="kvm"))
VOLUME = DesiredVolume(id="0198c0de-0000-7000-8000-0000000000d1", name="data", size=GIB)
LONG_VOLUME = DesiredVolume(
    id="0198c0de-0000-7000-8000-0000000000d2",
    name="a-name-that-is-too-long-for-virtio",
    size=GIB,
    read_only=True,
)
NICS = tuple(
    DesiredNic(
        id=f"0198c0de-0000-7000-8000-0000000000e{index}",
        index=index,
        network_id="0198c0de-0000-7000-8000-0000000000f1",
        mac=f"52:00:00:00:00:e{index}",
        ipv4=f"10.40.0.{index + 5}/16",
        mtu=1450,
    )
    for index in (0, 1)
)
PATHS = {VOLUME.id: Path("/pool/d1.raw"), LONG_VOLUME.id: Path("/pool/d2.raw")}


def disk_vm() -> Blueprint:
    desired = workload(
        disk_image(2 * GIB),
        id=ID,
        name="web1",
        firmware="uefi",
        boot=("network", "disk"),
        resources=Resources(
            vcpus=2,
            memory=GIB,
            io=IoLimits(read_bytes_per_second=50_000_000, write_operations_per_second=200),
        ),
        volume_list=(VOLUME, LONG_VOLUME),
        nic_list=NICS,
        user_data="#cloud-config\nhostname: web1\n",
    )
    image = LocalImage(disk=Path("/images/debian.qcow2"))
    provision = Provision(image=image, volumes=PATHS, cdrom=Path("/images/tools.iso"))
    return blueprint(desired, provision, KVM)


def kernel_vm() -> Blueprint:
    blob = Blob(digest="sha256:" + "0" * 64, size=1)
    kernel = Kernel(kernel=blob, initrd=blob, command_line="console=ttyS0 x=<&>")
    manifest = ImageManifest(type=ImageType.KERNEL, kernel=kernel)
    image = DesiredImage(id=ID, name="kernel", manifest=manifest)
    local = LocalImage(kernel=Path("/images/vmlinuz"), initrd=Path("/images/initrd"))
    return blueprint(workload(image, id=ID, vnc=False), Provision(image=local), HOST)


def iso_vm() -> Blueprint:
    desired = workload(iso_image(), id=ID, root_disk=RootDisk(size=GIB))
    provision = Provision(image=LocalImage(disk=Path("/images/installer.iso")))
    return blueprint(desired, provision, replace(HOST, owner=None))


def common_vm() -> Blueprint:
    """As in a cluster of different hosts: of a CPU and a machine type that all of them have."""
    built = kernel_vm()
    common = {"cpu": "Westmere", "machine": "pc-q35-7.2"}
    return replace(built, workload=built.workload.model_copy(update=common))


def blueprint(desired: object, provision: Provision, host: HostFacts) -> Blueprint:
    return Blueprint(
        workload=desired,  # type: ignore[arg-type]
        provision=provision,
        host=host,
        layout=Layout(Path("/state") / ID),
        root=disks.root_disk(desired, provision),  # type: ignore[arg-type]
    )


VMS = {"disk_vm": disk_vm, "kernel_vm": kernel_vm, "iso_vm": iso_vm, "common_vm": common_vm}


@pytest.mark.parametrize("host", [HOST, KVM])
def test_a_cluster_gives_its_vms_a_cpu(host: HostFacts) -> None:
    built = disk_vm()
    wanted = built.workload.model_copy(update={"cpu": "Westmere"})
    cpu = domain_xml.build(replace(built, workload=wanted, host=host)).find("cpu")
    assert cpu is not None
    assert (cpu.get("mode"), cpu.get("match"), cpu.findtext("model")) == (
        "custom",
        "exact",
        "Westmere",
    )


@pytest.mark.parametrize("hardware", [{}, {"machine": "pc-q35-7.2", "cpu": "Westmere"}])
def test_what_is_built_is_what_is_read(hardware: dict[str, str]) -> None:
    built = disk_vm()
    wanted = built.workload.model_copy(update=hardware)
    text = domain_xml.to_text(domain_xml.build(replace(built, workload=wanted)))
    assert read(text) == Hardware(**({"machine": "q35", "cpu": "host"} | hardware))


@pytest.mark.parametrize("name", VMS)
def test_xml_is_as_pinned_and_valid(name: str, tmp_path: Path) -> None:
    text = domain_xml.to_text(domain_xml.build(VMS[name]())) + "\n"
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("VIRTMGR_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    file = tmp_path / "domain.xml"
    file.write_text(text)
    checked = subprocess.run(
        ["virt-xml-validate", str(file), "domain"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_nothing_changes_between_equal_shapes() -> None:
    for make in (disk_vm, kernel_vm, iso_vm):
        seen = shape.read(domain_xml.build(make()))
        assert shape.compare(seen, seen) == shape.Changes()


def test_changes_are_told_apart() -> None:
    before = shape.read(domain_xml.build(disk_vm()))
    faster = {**before.throttles[domain_xml.ROOT], "read_bytes_sec": 0}
    wanted = replace(
        before,
        vcpus=4,
        memory=before.memory // 2,
        volumes={},
        nics={**before.nics, "ua-nic-new": ("mac", "bridge", "1500")},
        cdroms={domain_xml.CDROM: ""},
        throttles={domain_xml.ROOT: faster},
        firmware="bios",
    )
    changes = shape.compare(before, wanted)
    assert changes.vcpus == 4
    assert changes.memory == before.memory // 2
    assert set(changes.detach) == set(before.volumes)
    assert changes.attach == ("ua-nic-new",)
    assert changes.cdroms == (domain_xml.CDROM,)
    assert changes.throttles == {domain_xml.ROOT: faster}
    assert changes.needs_restart == ("firmware",)
    back = shape.compare(wanted, replace(before, memory=before.most_memory * 2))
    assert back.vcpus is None
    assert back.needs_restart == ("resources.vcpus", "resources.memory", "firmware")


def test_a_removed_device_moves_no_other() -> None:
    full = disk_vm()
    places = shape.read(domain_xml.build(full)).slots
    fewer = full.workload.model_copy(update={"volumes": (LONG_VOLUME,), "nics": NICS[1:]})
    after = shape.read(domain_xml.build(replace(full, workload=fewer, slots=places))).slots
    assert after == {alias: places[alias] for alias in after}


@given(
    before=st.dictionaries(st.text("ab", max_size=3), st.integers(1, 40)).filter(
        lambda found: len(set(found.values())) == len(found)
    ),
    devices=st.lists(st.text("ab", max_size=3), unique=True),
)
def test_slots_are_unique_kept_and_within_the_ports(
    before: dict[str, int], devices: list[str]
) -> None:
    assigned = slots.assign(before, devices)
    assert set(assigned) == set(devices)
    assert len(set(assigned.values())) == len(assigned)
    assert all(assigned[each] == before[each] for each in devices if each in before)
    assert all(1 <= port <= slots.ports(assigned) - slots.SPARE for port in assigned.values())


def test_the_root_disk_never_opens_the_images_own_backing_file() -> None:
    disk = domain_xml.build(disk_vm()).find("devices/disk")
    assert disk is not None
    chain = ElementTree.tostring(disk, encoding="unicode")
    assert chain.count("<backingStore />") == 1
    assert '<format type="qcow2" />' in chain
