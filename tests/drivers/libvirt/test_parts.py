"""The driver's parts that need no libvirt."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import libvirt
import pytest

from tests.drivers.libvirt.kit import disk_image, nic, read_until, workload
from virtmgr.domain.errors import DriverError, ImageError, StorageError
from virtmgr.domain.ids import new_id
from virtmgr.domain.workload import Hardware
from virtmgr.drivers.libvirt import accelerator, disks, facts, leftovers, logs, run, seed, stats
from virtmgr.drivers.libvirt.console import Consoles
from virtmgr.drivers.libvirt.driver import LibvirtDriver
from virtmgr.drivers.libvirt.errors import UNAVAILABLE
from virtmgr.drivers.libvirt.hardware import Hardwares
from virtmgr.drivers.libvirt.layout import Layout, Layouts, replacing
from virtmgr.drivers.libvirt.locks import Locks
from virtmgr.ports.driver import (
    CanExec,
    HasConsole,
    HasDisplay,
    HasFiles,
    HasLogs,
    Inspection,
    RuntimeState,
    WorkloadDriver,
)

TCG = accelerator.Accelerator(name="tcg", reason="tests")


def test_without_libvirtd_the_driver_says_so(tmp_path: Path) -> None:
    driver = LibvirtDriver(
        uri=f"qemu+unix:///system?socket={tmp_path}/none",
        state_directory=tmp_path / "s",
        accelerator=TCG,
    )
    try:
        driver.recover(lambda _: None)
        found = driver.facts()
        assert not found.healthy
        assert found.reason is not None
        assert found.reason.code == UNAVAILABLE
        assert found.reason.hint is not None
        with pytest.raises(DriverError, match="cannot reach libvirt"):
            driver.inspect(new_id())
    finally:
        driver.close()
    for protocol in (WorkloadDriver, CanExec, HasConsole, HasDisplay, HasLogs, HasFiles):
        assert isinstance(driver, protocol)


def test_a_workload_id_is_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(DriverError):
        Layouts(tmp_path).of("../../etc")
    with pytest.raises(DriverError, match="longer"):
        Layout(tmp_path / ("x" * 100)).make()


def test_kvm_is_believed_only_when_it_ran_and_was_quick() -> None:
    assert accelerator.judge(True, 0.2, "", 0.1).name == "kvm"
    assert accelerator.judge(True, 3.0, "", 0.13).name == "tcg"
    assert "hung" in accelerator.judge(False, 5.0, "it hung", 0.13).reason


def test_the_probe_is_cached_and_says_why(tmp_path: Path) -> None:
    cache = tmp_path / "a" / "verdict.json"
    first = accelerator.probe_accelerator(cache)
    assert first.name in ("kvm", "tcg")
    assert bool(first.reason) == (first.name == "tcg")
    verdict = json.loads(cache.read_text())
    verdict["accelerator"] = {"name": "kvm", "reason": "from the cache"}
    cache.write_text(json.dumps(verdict))
    assert accelerator.probe_accelerator(cache).reason == "from the cache"
    verdict["fingerprint"] = "another kernel"
    cache.write_text(json.dumps(verdict))
    again = accelerator.probe_accelerator(cache)  # what it took is another time
    assert (again.name, bool(again.reason)) == (first.name, bool(first.reason))
    assert accelerator.probe_accelerator(cache, "no-such-qemu").name == "none"


@pytest.mark.parametrize(
    ("reason", "exit_code"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, 0),
        (libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, 0),
        (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, 1),
        (libvirt.VIR_DOMAIN_SHUTOFF_FAILED, 1),
        (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, None),
    ],
)
def test_how_a_run_ended_outlives_libvirts_memory(
    tmp_path: Path, reason: int, exit_code: int | None
) -> None:
    path = tmp_path / "run.json"
    off = libvirt.VIR_DOMAIN_SHUTOFF
    assert run.judge(off, reason, run.load(path), None)[0].state is RuntimeState.PREPARED
    run.save(path, run.begin())
    inspection, ended = run.judge(off, reason, run.load(path), None)
    assert (inspection.state, inspection.exit_code) == (RuntimeState.EXITED, exit_code)
    run.save(path, ended)
    later, _ = run.judge(off, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, run.load(path), None)
    assert later == inspection


def test_a_run_before_the_hosts_boot_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run.save(path, run.Run(boot_id="another", started_at=datetime.now(UTC)))
    assert run.load(path) is None
    path.write_text("{half")
    assert run.load(path) is None


def test_the_seed_is_read_back(tmp_path: Path) -> None:
    desired = workload(
        disk_image(1), name="web1", user_data="#cloud-config\n{}\n", nic_list=(nic("br"),)
    )
    path = tmp_path / "seed.iso"
    seed.make(desired, path, None)
    made = path.stat().st_mtime_ns
    seed.make(desired, path, None)
    assert path.stat().st_mtime_ns == made
    shown = subprocess.run(
        ["isoinfo", "-d", "-i", str(path)], capture_output=True, text=True, check=True
    )
    assert "Volume id: cidata" in shown.stdout
    for name, content in seed.files(desired).items():
        read = subprocess.run(
            ["isoinfo", "-R", "-x", f"/{name}", "-i", str(path)], capture_output=True, check=True
        )
        assert read.stdout.decode() == content
    network = json.loads(seed.files(desired)["network-config"])
    assert network["ethernets"]["eth0"]["match"] == {"macaddress": desired.nics[0].mac}


def test_a_guest_on_a_bridge_network_is_told_its_addresses() -> None:
    asks = nic("nat").model_copy(update={"ipv4": "10.83.0.4/16", "gateway4": "10.83.0.1"})
    told = nic("br0", 1).model_copy(
        update={
            "dhcp": False,
            "ipv4": "192.0.2.5/24",
            "ipv6": "2001:db8::5/64",
            "gateway4": "192.0.2.1",
            "gateway6": "2001:db8::1",
            "mtu": 9000,
        }
    )
    also = told.model_copy(update={"index": 2, "ipv4": None, "dns": ("2001:db8::53",)})
    bare = nic("br0", 3).model_copy(update={"dhcp": False})
    desired = workload(None, cdrom="installer", nic_list=(asks, told, also, bare))
    assert seed.wanted(desired)
    ethernets = json.loads(seed.files(desired)["network-config"])["ethernets"]
    static = {"dhcp4": False, "dhcp6": False, "accept-ra": False}
    assert ethernets == {
        "eth0": {"match": {"macaddress": asks.mac}, "set-name": "eth0", "dhcp4": True},
        "eth1": {
            "match": {"macaddress": told.mac},
            "set-name": "eth1",
            **static,
            "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
            "gateway6": "2001:db8::1",  # eth0 leads to the one for IPv4
            "mtu": 9000,
        },
        "eth2": {
            "match": {"macaddress": told.mac},
            "set-name": "eth2",
            **static,
            "addresses": ["2001:db8::5/64"],
            "nameservers": {"addresses": ["2001:db8::53"]},
            "mtu": 9000,
        },
        "eth3": {"match": {"macaddress": bare.mac}, "set-name": "eth3", "dhcp4": True},
    }
    for nics in ((), (asks,), (bare,)):
        assert not seed.wanted(workload(None, cdrom="installer", nic_list=nics))


def test_disks_grow_and_never_shrink(tmp_path: Path) -> None:
    path = tmp_path / "root.qcow2"
    disks.make(disks.RootDisk(1 << 20), path, None)
    disks.make(disks.RootDisk(9 << 20), path, None)  # what is there stays
    assert disks.virtual_size(path) == 1 << 20
    disks.grow(path, 2 << 20)
    assert disks.virtual_size(path) == 2 << 20
    with pytest.raises(StorageError, match="cannot shrink"):
        disks.grow(path, 1 << 20)
    (tmp_path / "raw").write_bytes(bytes(64))
    with pytest.raises(StorageError, match="no qcow2"):
        disks.virtual_size(tmp_path / "raw")


def test_an_image_that_qemu_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        disks.check_readable(tmp_path / "absent", None)
    image = tmp_path / "image"
    image.write_bytes(b"")
    disks.check_readable(image, None)
    tmp_path.chmod(0o700)
    with pytest.raises(DriverError, match="cannot let QEMU read"):
        disks.check_readable(image, facts.Owner(64055, 64055))


def test_logs_follow_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"one\n")
    (tmp_path / "console.log.0").write_bytes(b"older\n")
    (tmp_path / "console.log.1").write_bytes(b"oldest\n")
    whole = logs.read(path, follow=False, tail=None, gone=lambda: False)
    assert b"".join(whole) == b"oldest\nolder\none\n"
    assert b"".join(logs.read(path, follow=False, tail=2, gone=lambda: False)) == b"older\none\n"
    assert b"".join(logs.read(path, follow=False, tail=0, gone=lambda: False)) == b""
    gone = threading.Event()
    following = logs.read(path, follow=True, tail=1, gone=gone.is_set)
    assert next(following) == b"one\n"
    assert next(following) == b""
    path.rename(tmp_path / "console.log.0")
    path.write_bytes(b"two\n")
    assert next(data for data in following if data) == b"two\n"
    gone.set()
    assert b"".join(following) == b""


def test_the_console_hub_outlives_rude_clients(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "tty"))
    listener.listen()
    consoles = Consoles()
    with listener:
        one = consoles.attach(tmp_path / "tty")
        qemu, _ = listener.accept()
        two = consoles.attach(tmp_path / "tty")
        two.sendall(b"typed")
        assert read_until(qemu, b"typed") == b"typed"
        two.close()
        for _ in range(64):  # nobody reads: QEMU is not held up
            qemu.sendall(bytes(65536))
        one.close()
        qemu.settimeout(20)
        assert qemu.recv(1) == b""  # the last one left
        qemu.close()
        three = consoles.attach(tmp_path / "tty")
        again, _ = listener.accept()
        again.sendall(b"hello")
        assert read_until(three, b"hello") == b"hello"
        again.close()
        three.settimeout(20)
        assert three.recv(1) == b""
        three.close()
    consoles.close()
    with pytest.raises(DriverError, match="cannot attach"):
        consoles.attach(tmp_path / "tty")


def test_statistics_become_usage() -> None:
    numbers = {
        "cpu.time": 1_500_000_000,
        "balloon.available": 1000,
        "balloon.usable": 400,
        "balloon.rss": 5000,
        "net.count": 2,
        "net.0.rx.bytes": 1,
        "net.1.rx.bytes": 2,
        "net.1.tx.bytes": 3,
        "block.count": 1,
        "block.0.rd.bytes": 4,
        "block.0.wr.bytes": 5,
    }
    used = stats.usage(numbers, datetime.now(UTC), 6)
    assert (used.cpu_seconds, used.memory, used.disk) == (1.5, 600 * 1024, 6)
    assert (used.network_received, used.network_sent) == (3, 3)
    assert (used.disk_read, used.disk_written) == (4, 5)
    assert stats.usage({"balloon.rss": 7}, datetime.now(UTC), 0).memory == 7 * 1024


def test_qemus_user_is_read_from_capabilities(tmp_path: Path) -> None:
    xml = (
        "<capabilities><host><secmodel><model>none</model></secmodel><secmodel><model>dac</model>"
        "<baselabel type='kvm'>+107:+36</baselabel></secmodel></host></capabilities>"
    )
    assert facts.owner_of(xml) == facts.Owner(107, 36)
    assert facts.owner_of("<capabilities><host/></capabilities>") is None
    device = tmp_path / "kvm"
    nobody = facts.Owner(65534, 65534)
    assert not facts.is_closed(device, nobody)
    device.touch(0o600)
    assert facts.is_closed(device, nobody) == (os.getuid() != 65534)


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu+unix:///system", True),
        ("qemu+unix:///system?socket=/run/other", False),
        ("qemu:///session", False),
        ("qemu+ssh://elsewhere/system", False),
        ("qemu+tls://elsewhere/system", False),
        ("test:///default", False),
    ],
)
def test_only_this_hosts_leftovers_are_swept(uri: str, local: bool) -> None:
    assert leftovers.is_local_system(uri) == local


def test_leftovers_are_of_domains_of_ours_that_are_gone() -> None:
    here, gone = "virtmgr-web-0123456789ab", "virtmgr-web-ba9876543210"
    files = [f"{here}.log", f"{here}.log.0", f"{gone}.log", f"{gone}.log.1", f"{gone}.txt"]
    files += [f"{here}.pid", f"{gone}.pid", f"{gone}.xml", "debian.log", "virtmgr-by-hand.log"]
    orphans = [f"{gone}.{end}" for end in ("log", "log.1", "pid", "xml")]
    assert leftovers.orphans(files, {here}) == orphans

    long = f"virtmgr-{'x' * 60}-0123456789ab"
    running = {1: here, 2: "virtmgr-a--b-0123456789ab", 3: long, 4: "debian"}
    for name, orphaned in {
        f"qemu-1-{here}": False,
        f"qemu-2-{here}": True,
        f"qemu-5-{here}": True,
        f"qemu-1-{gone}": True,
        "qemu-2-virtmgr-a-b-0123456789ab": False,
        f"qemu-3-{long[:57]}": False,
        "qemu-4-debian": False,
        "qemu-5-debian": False,
        "lxc-5-virtmgr-web": False,
    }.items():
        assert leftovers.is_orphaned_cgroup(f"{name}.libvirt-qemu", running) == orphaned, name


def test_only_empty_cgroups_are_removed(tmp_path: Path) -> None:
    for name, processes in (("used", "12\n"), ("free", "")):
        for directory in (tmp_path / name, tmp_path / name / "vcpu0"):
            directory.mkdir()
        (tmp_path / name / "cgroup.procs").write_text(processes)
    (tmp_path / "free/cgroup.procs").unlink()  # its files are no obstacle in a real one
    for name, gone in (("used", False), ("free", True), ("absent", True)):
        assert leftovers.remove_cgroup(tmp_path / name) is gone
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    assert (tmp_path / "used/vcpu0").is_dir()


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())


def test_locks_are_per_key_and_are_not_kept() -> None:
    locks = Locks()
    entered = threading.Event()

    def enter() -> None:
        with locks.hold("a"):
            entered.set()

    with locks.hold("a"), locks.hold("b"):
        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(0.05)
    other.join(20)
    assert entered.is_set()
    assert not locks._locks


def test_what_a_vm_runs_with_is_read_once_in_a_run() -> None:
    reads: list[str] = []

    def definition(machine: str) -> Callable[[], str]:
        def read() -> str:
            reads.append(machine)
            return f"<domain><os><type machine='{machine}'>hvm</type></os></domain>"

        return read

    def seen(machine: str, day: int, pid: int | None = 7) -> Hardware | None:
        at = datetime(2030, 1, day, tzinfo=UTC)
        inspection = Inspection(RuntimeState.RUNNING, started_at=at, pid=pid)
        return kept.put("a", inspection, definition(machine)).hardware

    kept = Hardwares()
    first, second = (Hardware(machine=each, cpu="host") for each in ("pc-q35-7.2", "pc-q35-10.0"))
    assert seen("pc-q35-7.2", 1) == first
    assert seen("pc-q35-10.0", 1) == first  # what it was started with
    assert seen("pc-q35-10.0", 1, pid=None) is None  # it ended
    assert seen("pc-q35-10.0", 2) == second
    assert reads == ["pc-q35-7.2", "pc-q35-10.0"]
