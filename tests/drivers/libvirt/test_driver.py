"""VMs for real: QEMU under TCG, booted, watched, changed and removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from tests.drivers.libvirt.kit import (
    URI,
    Libvirtd,
    VmKit,
    disk_image,
    iso_image,
    nic,
    read_until,
    until,
    vm_kit,
    workload,
)
from tests.guests import linux, rescue
from virtmgr.domain.errors import DriverError, ImageError
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import port_name
from virtmgr.domain.workload import IoLimits, Resources, RootDisk
from virtmgr.drivers.libvirt.errors import UNAVAILABLE
from virtmgr.ports.driver import Feature, LocalImage, Provision, RuntimeState

pytestmark = pytest.mark.host
MIB = 1 << 20
QEMU_LOGS = Path("/var/log/libvirt/qemu")


def test_a_vm_boots_shows_itself_and_stops_when_asked(kit: VmKit) -> None:
    driver, desired = kit.driver, workload(kit.kernel_image())
    assert driver.inspect(desired.id).state is RuntimeState.ABSENT
    driver.prepare(desired, kit.provision())
    driver.prepare(desired, kit.provision())
    assert driver.inspect(desired.id).state is RuntimeState.PREPARED
    assert driver.list() == (desired.id,)

    kit.booted(desired)
    driver.start(desired, kit.provision())
    running = driver.inspect(desired.id)
    assert running.state is RuntimeState.RUNNING
    assert running.started_at is not None
    assert running.pid is not None
    assert running.hardware is not None
    assert running.hardware.machine in driver.facts().machine_types  # q35 is an alias
    assert running.hardware.cpu == "host"
    assert Path(f"/proc/{running.pid}").exists()
    usage = driver.stats([desired.id, new_id()])
    assert list(usage) == [desired.id]
    assert usage[desired.id].cpu_seconds > 0
    assert usage[desired.id].memory > 0

    with driver.display(desired.id) as display:
        assert display.recv(12) == b"RFB 003.008\n"
    assert kit.screenshot(desired.id).startswith(b"\x89PNG")
    assert kit.run(desired.id, "echo $((6*7))") == b"42"

    driver.stop(desired.id, timeout=60, force=False)
    ended = driver.inspect(desired.id)
    assert ended.state is RuntimeState.EXITED
    assert ended.exit_code == 0
    assert ended.finished_at is not None
    driver.stop(desired.id, timeout=0, force=True)
    until(lambda: desired.id in kit.changes, "a change to be told")

    xml = kit.domain(desired.id).XMLDesc()
    domain = ElementTree.fromstring(xml)
    assert domain.find("os/type[@machine='pc-q35-7.2']") is not None or "q35" in xml


def test_a_definition_that_was_edited_is_made_anew_at_the_start(kit: VmKit) -> None:
    desired = workload(kit.kernel_image("no-acpi"))
    kit.driver.prepare(desired, kit.provision())
    domain = kit.domain(desired.id)
    edited = domain.XMLDesc().replace("tests/guest", "by hand")
    domain.connect().defineXML(edited)
    assert "by hand" in domain.XMLDesc()
    kit.driver.start(desired, kit.provision())
    assert "by hand" not in domain.XMLDesc()


def test_the_domain_follows_the_workloads_name(kit: VmKit) -> None:
    desired = workload(kit.kernel_image())
    workload_id = kit.booted(desired)
    renamed = desired.model_copy(update={"name": "renamed"})
    kit.driver.update(renamed, kit.provision())
    assert kit.domain(workload_id).name().startswith("virtmgr-guest-"), "it runs"
    kit.driver.stop(workload_id, timeout=0, force=True)
    kit.driver.update(renamed, kit.provision())
    assert kit.domain(workload_id).name().startswith("virtmgr-renamed-")
    kit.booted(renamed)
    kit.driver.destroy(workload_id)
    assert workload_id not in kit.driver.list()


def test_a_clone_has_what_its_source_had_on_its_disk(kit: VmKit) -> None:
    source = workload(kit.kernel_image(), root_disk={"size": 8 << 20})
    booted = kit.booted(source)
    kit.run(booted, "echo from-source > /dev/vda; sync")
    kit.driver.stop(booted, timeout=0, force=True)
    clone = workload(kit.kernel_image(), root_disk={"size": 8 << 20}, name="clone")
    half = kit.state / clone.id
    half.mkdir()
    (half / "root.qcow2").write_bytes(b"half a copy, of a crash")
    kit.driver.clone(booted, clone, kit.provision())
    kit.booted(clone)
    assert kit.run(clone.id, "head -n 1 /dev/vda") == b"from-source"
    kit.run(clone.id, "echo from-clone > /dev/vda; sync")
    kit.driver.start(source, kit.provision())
    kit.wait_log(booted, linux.UP, count=2)
    assert kit.run(booted, "head -n 1 /dev/vda") == b"from-source"
    assert kit.domain(clone.id).name().startswith("virtmgr-clone-")


def test_an_exported_disk_needs_no_other(kit: VmKit) -> None:
    first = workload(kit.kernel_image(), root_disk={"size": 8 * MIB})
    kit.booted(first)
    kit.run(first.id, "echo first > /dev/vda; sync")
    with pytest.raises(DriverError) as failure:
        next(kit.driver.export(first.id))
    assert failure.value.code == "in_use"
    kit.driver.stop(first.id, timeout=0, force=True)
    disk = kit.root / "first.qcow2"
    disk.write_bytes(b"".join(kit.driver.export(first.id)))

    kernel = kit.kernel_image()
    image = disk_image(8 * MIB)
    manifest = image.manifest.model_copy(update={"kernel": kernel.manifest.kernel})
    published = image.model_copy(update={"manifest": manifest})
    local = LocalImage(disk=disk, kernel=kit.guest.kernel, initrd=kit.guest.initrd)
    second = workload(published, root_disk={"size": 8 * MIB}, name="second")
    kit.booted(second, kit.provision(image=local))
    assert kit.run(second.id, "head -n 1 /dev/vda") == b"first"
    kit.run(second.id, "echo second | dd of=/dev/vda seek=8; sync")
    kit.driver.stop(second.id, timeout=0, force=True)
    flat = kit.root / "second.qcow2"
    flat.write_bytes(b"".join(kit.driver.export(second.id)))
    disk.unlink()
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(flat)]))
    assert ("backing-filename" in told, told["virtual-size"]) == (False, 8 * MIB)
    raw = kit.root / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(flat), str(raw)], check=True)
    content = raw.read_bytes()
    assert content.startswith(b"first\n")
    assert content[8 * 512 :].startswith(b"second\n")
    assert not list(kit.state.glob("*/*.partial"))


def test_an_export_that_is_given_up_leaves_nothing(kit: VmKit) -> None:
    desired = workload(kit.kernel_image(), root_disk={"size": 8 * MIB})
    kit.driver.prepare(desired, kit.provision())
    given_up = kit.driver.export(desired.id)
    assert next(given_up) == b""
    given_up.close()
    assert not list(kit.state.glob("*/*.partial"))
    empty = kit.root / "empty.qcow2"
    empty.write_bytes(b"".join(kit.driver.export(desired.id)))
    told = json.loads(subprocess.check_output(["qemu-img", "check", "--output=json", str(empty)]))
    assert told["image-end-offset"] <= empty.stat().st_size
    none = workload(kit.kernel_image(), name="diskless")
    kit.driver.prepare(none, kit.provision())
    with pytest.raises(DriverError) as failure:
        next(kit.driver.export(none.id))
    assert failure.value.code == "no_root_disk"


def test_two_share_a_console(kit: VmKit) -> None:
    workload_id = kit.booted(workload(kit.kernel_image()))
    with kit.driver.console(workload_id) as one, kit.driver.console(workload_id) as two:
        one.sendall(b'echo from-o""ne\n')
        read_until(two, b"from-one")
        read_until(one, b"from-one")
        two.sendall(b'echo from-t""wo\n')
        read_until(one, b"from-two")
    assert kit.run(workload_id, "echo again") == b"again"
    assert b"from-two" in b"".join(kit.driver.logs(workload_id, follow=False, tail=20))
    with kit.driver.console(workload_id) as three:
        kit.driver.stop(workload_id, timeout=0, force=True)
        three.settimeout(20)
        while three.recv(65536):
            pass


def test_pause_resume_and_a_guest_that_does_not_answer_the_button(kit: VmKit) -> None:
    driver, desired = kit.driver, workload(kit.kernel_image("no-acpi"))
    workload_id = kit.booted(desired)
    driver.pause(workload_id)
    driver.pause(workload_id)
    assert driver.inspect(workload_id).state is RuntimeState.PAUSED
    driver.resume(workload_id)
    driver.resume(workload_id)
    assert driver.inspect(workload_id).state is RuntimeState.RUNNING
    driver.stop(workload_id, timeout=1.5, force=False)
    ended = driver.inspect(workload_id)
    assert (ended.state, ended.exit_code) == (RuntimeState.EXITED, 0)
    kit.booted(desired)  # and again, after it ended


def test_libvirt_has_no_post_copy_for_guests_that_arrive_paused(kit: VmKit) -> None:
    """Why it is not offered; it is refused before it goes anywhere, here to its own host."""
    desired = workload(kit.kernel_image())
    kit.booted(desired)
    there = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock"
    flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_PAUSED
    with closing(libvirt.open(URI)) as connection:
        domain = connection.lookupByUUIDString(desired.id)
        with pytest.raises(libvirt.libvirtError, match=r"post-copy .* not supported .* paused"):
            domain.migrateToURI3(there, {}, flags | libvirt.VIR_MIGRATE_POSTCOPY)
    why = kit.driver.capabilities().why_not[Feature.POST_COPY]
    assert "arrives paused" in why
    assert kit.driver.inspect(desired.id).state is RuntimeState.RUNNING


def test_ends_by_itself(kit: VmKit) -> None:
    desired = workload(kit.kernel_image("panic=0"))
    workload_id = kit.booted(desired)
    kit.run(workload_id, "(sleep 1; reboot -f) & true")
    kit.wait_log(workload_id, linux.UP, count=2)
    assert kit.driver.inspect(workload_id).state is RuntimeState.RUNNING

    kit.run(workload_id, "(sleep 1; poweroff -f) & true")
    assert kit.wait_state(workload_id, RuntimeState.EXITED).exit_code == 0

    kit.driver.start(desired, kit.provision())
    pid = kit.driver.inspect(workload_id).pid
    assert pid is not None
    kit.changes.clear()
    os.kill(pid, signal.SIGKILL)
    until(lambda: workload_id in kit.changes, "the event")
    assert kit.wait_state(workload_id, RuntimeState.EXITED).exit_code == 1

    kit.driver.start(desired, kit.provision())
    kit.wait_log(workload_id, linux.UP, count=3)
    kit.run(workload_id, "(sleep 1; echo c > /proc/sysrq-trigger) & true")
    assert kit.wait_state(workload_id, RuntimeState.EXITED).exit_code == 1


def test_resized_while_it_runs(kit: VmKit) -> None:
    driver, desired = kit.driver, workload(kit.kernel_image())
    workload_id = kit.booted(desired)
    bigger = workload(desired.image, id=workload_id, resources=Resources(vcpus=2, memory=96 * MIB))
    assert driver.update(bigger, kit.provision()).needs_restart == ()
    until(lambda: kit.run(workload_id, "nproc") == b"2", "the second vCPU")
    info = kit.domain(workload_id).info()
    until(lambda: kit.domain(workload_id).info()[2] == 96 * 1024, f"the balloon {info}")
    assert driver.update(bigger, kit.provision()).needs_restart == ()

    huge = workload(
        desired.image, id=workload_id, resources=Resources(vcpus=64, memory=192 * MIB), vnc=False
    )
    waits = ("resources.vcpus", "resources.memory", "vnc")
    assert driver.update(huge, kit.provision()).needs_restart == waits
    smaller = workload(desired.image, id=workload_id)
    assert driver.update(smaller, kit.provision()).needs_restart == ("resources.vcpus",)
    driver.stop(workload_id, timeout=0, force=True)
    driver.start(smaller, kit.provision())
    assert driver.update(smaller, kit.provision()).needs_restart == ()


def test_volumes_and_nics_come_and_go(kit: VmKit, bridge: str) -> None:
    driver, image = kit.driver, kit.kernel_image()
    (first, first_path), (second, second_path) = kit.volume("data"), kit.volume("more")
    paths = {first.id: first_path, second.id: second_path}
    port, other = nic(bridge), nic(bridge, index=1)
    desired = workload(image, volume_list=(first,), nic_list=(port,))
    provision = kit.provision(volumes=paths)
    workload_id = kit.booted(desired, provision)
    bare = kit.run(workload_id, "ls /sys/block /sys/class/net")
    assert b"vda" in bare
    assert b"eth0" in bare
    kit.run(workload_id, "echo payload | dd of=/dev/vda conv=fsync 2>/dev/null")
    assert first_path.read_bytes().startswith(b"payload")

    both = workload(image, id=workload_id, volume_list=(first, second), nic_list=(port, other))
    assert driver.update(both, provision).needs_restart == ()
    assert driver.update(both, provision).needs_restart == ()
    until(lambda: b"vdb" in kit.run(workload_id, "ls /sys/block"), "the second disk")
    assert b"more" in kit.run(workload_id, "cat /sys/block/vdb/serial")
    until(lambda: b"eth1" in kit.run(workload_id, "ls /sys/class/net"), "the second NIC")
    assert other.mac.encode() in kit.run(workload_id, "cat /sys/class/net/eth1/address")
    assert Path(f"/sys/class/net/{bridge}/brif/{port_name(other.id)}").exists()
    with_addresses = Path("/proc/net/if_inet6").read_text()
    assert bridge in with_addresses
    assert port_name(port.id) not in with_addresses
    assert port_name(other.id) not in with_addresses

    only_second = workload(image, id=workload_id, volume_list=(second,), nic_list=(other,))
    assert driver.update(only_second, provision).needs_restart == ()
    listed = kit.run(workload_id, "ls /sys/block")
    assert b"vda" not in listed
    assert b"vdb" in listed
    assert not Path(f"/sys/class/net/{port_name(port.id)}").exists()
    driver.destroy(workload_id)
    assert not Path(f"/sys/class/net/{port_name(other.id)}").exists()
    assert first_path.exists()
    assert second_path.exists()


def test_disk_io_is_throttled_and_changed_live(kit: VmKit) -> None:
    driver, image = kit.driver, kit.kernel_image()
    volume, path = kit.volume("data")
    provision = kit.provision(volumes={volume.id: path})
    limit = 256 * 1024
    slow = Resources(memory=128 * MIB, io=IoLimits(write_bytes_per_second=limit))
    desired = workload(image, volume_list=(volume,), resources=slow)
    workload_id = kit.booted(desired, provision)

    # Each block by itself: QEMU lets a request pass whole and makes the next one wait for it, and
    # the guest would make one request of all of them where its pages lie side by side.
    block = "dd if=/dev/zero of=/dev/vda bs=64k count=1 conv=fsync 2>/dev/null"
    begin = time.monotonic()
    kit.run(workload_id, f"for i in $(seq 16); do {block}; done")
    rate = (1 << 20) / (time.monotonic() - begin)
    assert rate < 2 * limit
    free = workload(image, id=workload_id, volume_list=(volume,))
    assert driver.update(free, provision).needs_restart == ()
    assert kit.domain(workload_id).blockIoTune("vda")["write_bytes_sec"] == 0
    again = workload(image, id=workload_id, volume_list=(volume,), resources=slow)
    assert driver.update(again, provision).needs_restart == ()
    assert kit.domain(workload_id).blockIoTune("vda")["write_bytes_sec"] == limit


def test_a_cd_is_changed_and_a_rescue_cd_boots(kit: VmKit) -> None:
    iso = rescue.build(kit.root / "rescue.iso")
    desired = workload(iso_image())
    provision = Provision(image=LocalImage(disk=iso, disk_format="raw"))
    kit.driver.prepare(desired, provision)
    kit.driver.start(desired, provision)
    kit.wait_log(desired.id, rescue.UP)
    inserted = Provision(image=provision.image, cdrom=iso)
    assert kit.driver.update(desired, inserted).needs_restart == ()
    assert kit.domain(desired.id).XMLDesc().count(str(iso)) == 2
    assert kit.driver.update(desired, provision).needs_restart == ()
    assert kit.domain(desired.id).XMLDesc().count(str(iso)) == 1


def test_uefi_starts(kit: VmKit) -> None:
    resources = Resources(vcpus=1, memory=512 * MIB)
    desired = workload(kit.kernel_image(), firmware="uefi", resources=resources)
    kit.booted(desired)
    assert kit.run(desired.id, "ls -d /sys/firmware/efi") == b"/sys/firmware/efi"
    assert (kit.state / desired.id / "nvram.fd").exists()


def test_root_disk_is_an_overlay_that_grows(kit: VmKit) -> None:
    base = kit.root / "base.raw"
    base.write_bytes(b"from the image".ljust(4 * MIB, b"\0"))
    base.chmod(0o644)
    image = disk_image(4 * MIB, "raw")
    provision = Provision(image=LocalImage(disk=base, disk_format="raw"))
    with pytest.raises(ImageError, match="needs 4MiB"):
        kit.driver.prepare(workload(image, root_disk=RootDisk(size=MIB)), provision)
    desired = workload(image, root_disk=RootDisk(size=8 * MIB))
    kit.driver.prepare(desired, provision)
    kit.driver.start(desired, provision)
    domain = kit.domain(desired.id)
    assert domain.blockInfo("vda")[0] == 8 * MIB
    larger = workload(image, id=desired.id, root_disk=RootDisk(size=16 * MIB))
    assert kit.driver.update(larger, provision).needs_restart == ()
    assert domain.blockInfo("vda")[0] == 16 * MIB
    assert (base.stat().st_uid, base.stat().st_mode & 0o777) == (0, 0o644)
    base.chmod(0o600)
    closed = workload(image, root_disk=RootDisk(size=8 * MIB))
    with pytest.raises(DriverError, match="cannot let QEMU read"):
        kit.driver.prepare(closed, provision)


def test_libvirtd_dies_and_comes_back(kit: VmKit, daemon: Libvirtd) -> None:
    desired = workload(kit.kernel_image())
    other = workload(kit.kernel_image(), name="other")
    workload_id, other_id = kit.booted(desired), kit.booted(other)
    before, other_pid = kit.driver.inspect(workload_id), kit.driver.inspect(other_id).pid
    daemon.kill()
    with pytest.raises(DriverError) as caught:
        until(lambda: kit.driver.inspect(workload_id) is None, "a refusal")
    assert caught.value.code == UNAVAILABLE
    assert not kit.driver.facts().healthy
    assert other_pid is not None
    os.kill(other_pid, signal.SIGKILL)
    kit.changes.clear()
    daemon.start()
    until(lambda: {workload_id, other_id} <= set(kit.changes), "the rescan")
    assert kit.driver.inspect(workload_id) == before
    assert kit.run(workload_id, "echo alive") == b"alive"
    assert kit.wait_state(other_id, RuntimeState.EXITED).exit_code == 1
    assert kit.driver.facts().healthy


def test_destroy_leaves_nothing_and_foreign_domains_are_left_alone(kit: VmKit) -> None:
    driver, desired = kit.driver, workload(kit.kernel_image())
    foreign = new_id()
    connection = kit.domain(kit.booted(desired)).connect()
    domain = connection.defineXML(
        f"<domain type='qemu'><name>virtmgr-foreign</name><uuid>{foreign}</uuid>"
        "<memory>16384</memory><os><type>hvm</type></os></domain>"
    )
    try:
        assert driver.list() == (desired.id,)
        with pytest.raises(DriverError, match="not made by this agent"):
            driver.destroy(foreign)
        rotated = QEMU_LOGS / f"{kit.domain(desired.id).name()}.log.0"
        rotated.write_text("older")
        driver.destroy(desired.id)
        driver.destroy(desired.id)
        assert driver.inspect(desired.id).state is RuntimeState.ABSENT
        assert driver.list() == ()
        assert not list(kit.state.iterdir())
        assert traces_of(desired.id) == []
        left = [each.UUIDString() for each in connection.listAllDomains()]
        assert foreign in left
        assert desired.id not in left
    finally:
        domain.undefine()


def test_what_ends_while_libvirtd_is_away_leaves_nothing(kit: VmKit, daemon: Libvirtd) -> None:
    image = kit.kernel_image("no-acpi")
    again, gone, running = (workload(image, name=name) for name in ("again", "gone", "running"))
    for each in (again, gone, running):
        kit.driver.prepare(each, kit.provision())
        kit.driver.start(each, kit.provision())
    pids = [kit.driver.inspect(each.id).pid for each in (again, gone)]
    daemon.kill()
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    daemon.start()
    for each in (again, gone):
        kit.wait_state(each.id, RuntimeState.EXITED)
    kit.driver.start(again, kit.provision())
    kit.driver.destroy(gone.id)
    assert traces_of(gone.id) == []
    kit.driver.destroy(again.id)
    assert traces_of(again.id) == []
    assert traces_of(running.id) != []
    assert kit.driver.inspect(running.id).state is RuntimeState.RUNNING

    kit.stop_agent()
    kit.domain(running.id).destroy()
    kit.domain(running.id).undefine()  # as a destroy does that was cut short by a crash
    assert traces_of(running.id) != []
    kit.start_agent()
    until(lambda: traces_of(running.id) == [], "the sweep after the restart")


def test_what_is_still_in_use_is_removed_later(kit: VmKit) -> None:
    partition = next(path for path in Path("/sys/fs/cgroup").glob("*/machine") if path.is_dir())
    left = partition / "qemu-4711-virtmgr-gone-0123456789ab.libvirt-qemu"
    sleeper = subprocess.Popen(["sleep", "1000"])
    try:
        until(lambda: _is_moved(sleeper.pid, left), "a process in the group")
        desired = workload(kit.kernel_image())
        kit.driver.prepare(desired, kit.provision())
        kit.driver.destroy(desired.id)
        assert left.exists()
    finally:
        sleeper.kill()
        sleeper.wait()
    until(lambda: not left.exists(), "the sweep that follows")


def _is_moved(pid: int, group: Path) -> bool:
    """Try to move a process into a group; one that is empty may be swept away just then."""
    group.mkdir(exist_ok=True)
    try:
        (group / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def traces_of(workload_id: str) -> list[Path]:
    """libvirt's log, notes and cgroups of a VM."""
    name = f"*-{workload_id[-12:]}.*"
    notes, cgroups = Path("/run/libvirt/qemu"), Path("/sys/fs/cgroup")
    return [
        *QEMU_LOGS.glob(name),
        *notes.glob(name),
        *cgroups.glob(f"*/{name}"),
        *cgroups.glob(f"*/*/{name}"),
    ]


def test_refusals_say_why(kit: VmKit) -> None:
    with pytest.raises(DriverError, match="none of that id"):
        kit.driver.pause(new_id())
    unplugged = workload(kit.kernel_image(), nic_list=(nic("vmtabsent"),))
    kit.driver.prepare(unplugged, kit.provision())
    with pytest.raises(DriverError, match="vmtabsent"):
        kit.driver.start(unplugged, kit.provision())
    assert kit.driver.inspect(unplugged.id).state is RuntimeState.PREPARED


def test_the_guest_finds_its_seed(kit: VmKit) -> None:
    desired = workload(kit.kernel_image(), user_data="#cloud-config\nmarker: found\n")
    kit.booted(desired)
    seen = kit.run(desired.id, "mount -t iso9660 -o ro /dev/sr0 /mnt; cat /mnt/user-data")
    assert b"marker: found" in seen


def test_as_many_devices_as_a_spec_may_have(kit: VmKit, bridge: str) -> None:
    made = [kit.volume(f"v{number}", 1 * MIB) for number in range(32)]
    desired = workload(
        kit.kernel_image(),
        root_disk=RootDisk(size=MIB),
        volume_list=tuple(volume for volume, _ in made),
        nic_list=tuple(nic(bridge, index) for index in range(8)),
        resources=Resources(vcpus=1, memory=256 * MIB),
    )
    kit.booted(desired, kit.provision(volumes={volume.id: path for volume, path in made}))
    assert kit.run(desired.id, "ls -d /sys/block/vd* | wc -l") == b"33"
    assert kit.run(desired.id, "ls -d /sys/class/net/eth* | wc -l") == b"8"


def test_two_agents_on_one_host_leave_each_other_alone(kit: VmKit) -> None:
    desired = workload(kit.kernel_image())
    kit.driver.prepare(desired, kit.provision())
    with vm_kit() as other:
        assert desired.id not in other.driver.list()
        with pytest.raises(DriverError, match="not made by this agent"):
            other.driver.destroy(desired.id)
    assert kit.driver.list() == (desired.id,)
