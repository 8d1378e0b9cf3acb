"""What tests of VMs need: a libvirtd, a driver on a directory of its own, and workloads."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Any
from xml.etree import ElementTree

import libvirt

from tests.guests import linux
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Blob, Disk, ImageManifest, ImageType, Kernel
from virtmgr.domain.network import mac_address
from virtmgr.domain.sync import DesiredImage, DesiredNic, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import Kind, PowerState, Resources, WorkloadSpec
from virtmgr.drivers.libvirt.accelerator import Accelerator
from virtmgr.drivers.libvirt.driver import LibvirtDriver
from virtmgr.ports.driver import Inspection, LocalImage, Provision, RuntimeState

URI = "qemu:///system"
TCG = Accelerator(name="tcg", reason="tests emulate")
PATIENCE = 60.0
_BLOB = Blob(digest="sha256:" + "0" * 64, size=1)
_SOCKET = Path("/run/libvirt/libvirt-sock")
_KVM = Path("/dev/kvm")
_LOCK = Path("/run/lock/virtmgr-libvirt-tests")


def until(done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for ``done()``."""
    deadline = time.monotonic() + patience
    while not done():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@dataclass
class Libvirtd:
    """libvirtd and virtlogd, each started here unless it ran already."""

    started: list[int] = field(default_factory=list)

    def start(self) -> None:
        for name in ("virtlogd", "libvirtd"):
            if _pid(name) is None:
                # One that was killed holds its pid file until its last thread has ended.
                until(lambda name=name: _start(name), f"{name} to start")  # type: ignore[misc]
                until(lambda name=name: _pid(name) is not None, name)  # type: ignore[misc]
                pid = _pid(name)
                assert pid is not None
                self.started.append(pid)
        until(_answers, "libvirtd")

    def kill(self) -> None:
        """kill -9 of libvirtd alone; guests run on."""
        pid = _pid("libvirtd")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: _pid("libvirtd") is None, "libvirtd to die")

    def stop(self) -> None:
        for name in ("libvirtd", "virtlogd"):
            pid = _pid(name)
            if pid in self.started:
                os.kill(pid, signal.SIGTERM)
                until(lambda name=name: _pid(name) is None, f"{name} to end")  # type: ignore[misc]


@contextmanager
def libvirtd() -> Iterator[Libvirtd]:
    """A libvirtd for tests. QEMU's group may open /dev/kvm meanwhile, as udev has it: libvirt
    examines QEMU for seconds at each call otherwise. Test runs that share a machine take turns,
    because they kill it."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _libvirtd() as daemon:
            yield daemon


@contextmanager
def _libvirtd() -> Iterator[Libvirtd]:
    before = _KVM.stat() if _KVM.exists() else None
    if before is not None:
        shutil.chown(_KVM, group="kvm")
        _KVM.chmod(0o660)
    daemon = Libvirtd()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        if before is not None:
            os.chown(_KVM, before.st_uid, before.st_gid)
            _KVM.chmod(before.st_mode & 0o777)


def _start(name: str) -> bool:
    return subprocess.run([f"/usr/sbin/{name}", "-d"], check=False).returncode == 0


def _pid(name: str) -> int | None:
    """The daemon's process by its pid file, if it lives."""
    try:
        pid = int(Path(f"/run/{name}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ValueError):
        return None
    return None if state == "Z" else pid


def _answers() -> bool:
    if not _SOCKET.exists():
        return False
    done = subprocess.run(["virsh", "-q", "-c", URI, "uri"], capture_output=True, check=False)
    return done.returncode == 0


@dataclass
class VmKit:
    """A driver and what it can be given; everything that it made is removed at the end."""

    root: Path
    changes: list[str] = field(default_factory=list)
    bridge: str = ""  # of the NICs that it makes
    guest: linux.Guest = field(init=False)
    driver: LibvirtDriver = field(init=False)

    def __post_init__(self) -> None:
        self.start_agent()
        cached = linux.build()
        kernel = shutil.copy(cached.kernel, self.root / "vmlinuz")
        initrd = shutil.copy(cached.initrd, self.root / "initrd")
        self.guest = linux.Guest(Path(kernel), Path(initrd), cached.command_line)

    @property
    def state(self) -> Path:
        return self.root / "s"

    def start_agent(self) -> None:
        """A new driver; the ids of its networks are names of bridges."""
        self.driver = LibvirtDriver(
            uri=URI, state_directory=self.state, accelerator=TCG, bridge_of=str
        )
        self.driver.recover(self.changes.append)

    def stop_agent(self) -> None:
        self.driver.close()

    def restart_agent(self) -> None:
        self.stop_agent()
        self.start_agent()

    def desired(self) -> DesiredWorkload:
        return workload(self.kernel_image("no-acpi"))

    def provision_for(self, _workload: DesiredWorkload) -> Provision:
        return self.provision()

    def kill_guest(self, workload_id: str) -> None:
        """kill -9 of QEMU."""
        domain = self.domain(workload_id)
        pid = int(Path(f"/run/libvirt/qemu/{domain.name()}.pid").read_text())
        self.changes.clear()
        os.kill(pid, signal.SIGKILL)

    def saw_change(self, workload_id: str) -> bool:
        until(lambda: workload_id in self.changes, "a change to be told")
        return True

    def wait_ready(self, workload_id: str) -> None:
        until(lambda: self._agent_answers(workload_id), "the guest agent")

    def _agent_answers(self, workload_id: str) -> bool:
        channel = "devices/channel/target[@state='connected']"
        domain = ElementTree.fromstring(self.domain(workload_id).XMLDesc())
        return domain.find(channel) is not None

    keeps_files = False  # a RAM disk is all they have
    undecided = frozenset({"volumes"})  # before the guest's kernel is up it lets go of nothing

    def nic(self) -> DesiredNic:
        return nic(self.bridge)

    def echo(self, text: str) -> tuple[str, ...]:
        return ("echo", text)

    def fail(self, code: int) -> tuple[str, ...]:
        return ("sh", "-c", f"exit {code}")

    def provision(self, **changes: Any) -> Provision:
        image = LocalImage(kernel=self.guest.kernel, initrd=self.guest.initrd)
        return Provision(**{"image": image, **changes})

    def kernel_image(self, arguments: str = "") -> DesiredImage:
        kernel = Kernel(
            kernel=_BLOB, initrd=_BLOB, command_line=f"{self.guest.command_line} {arguments}"
        )
        manifest = ImageManifest(type=ImageType.KERNEL, kernel=kernel)
        return DesiredImage(id=new_id(), name="guest", manifest=manifest)

    def volume(self, name: str = "data", size: int = 8 << 20) -> tuple[DesiredVolume, Path]:
        made = DesiredVolume(id=new_id(), name=name, size=size)
        path = self.root / f"{made.id}.raw"
        with path.open("wb") as file:
            file.truncate(size)
        return made, path

    def booted(self, workload: DesiredWorkload, provision: Provision | None = None) -> str:
        """Start it and wait until the guest is up; its id."""
        self.driver.prepare(workload, provision or self.provision())
        self.driver.start(workload, provision or self.provision())
        self.wait_log(workload.id, linux.UP)
        return workload.id

    def wait_log(self, workload_id: str, text: bytes, count: int = 1) -> bytes:
        """The console's log once it has ``text`` in it ``count`` times."""
        seen = b""
        deadline = time.monotonic() + PATIENCE
        for data in self.driver.logs(workload_id, follow=True, tail=None):
            seen += data
            if seen.count(text) >= count:
                return seen
            assert time.monotonic() < deadline, f"no {text!r} in {seen[-2000:]!r}"
        raise AssertionError(f"the log ended: {seen[-2000:]!r}")

    def wait_state(self, workload_id: str, state: RuntimeState) -> Inspection:
        until(lambda: self.driver.inspect(workload_id).state is state, state)
        return self.driver.inspect(workload_id)

    def run(self, workload_id: str, command: str) -> bytes:
        """Run a command in the guest's shell, through its console; what it wrote."""
        with self.driver.console(workload_id) as console:
            console.sendall(f'echo BE""GIN; {command}; echo E""ND\n'.encode())
            return read_until(console, b"END").split(b"BEGIN")[1].split(b"END")[0].strip()

    def screenshot(self, workload_id: str) -> bytes:
        """What the display shows, as a picture file."""
        domain = self.domain(workload_id)
        stream = domain.connect().newStream()
        domain.screenshot(stream, 0)
        picture = bytearray()
        stream.recvAll(lambda _stream, data, into: into.extend(data), picture)
        stream.finish()
        return bytes(picture)

    def domain(self, workload_id: str) -> Any:
        connection = libvirt.open(URI)
        return connection.lookupByUUIDString(workload_id)


def read_until(console: socket, mark: bytes) -> bytes:
    console.settimeout(PATIENCE)
    seen = b""
    while mark not in seen:
        data = console.recv(65536)
        assert data, f"closed after {seen!r}"
        seen += data
    return seen


def workload(image: DesiredImage | None, **changes: Any) -> DesiredWorkload:
    """A small VM; ``changes`` are fields of its spec, or ``id``, ``nic_list``, ``volume_list``."""
    nics = changes.pop("nic_list", ())
    volumes = changes.pop("volume_list", ())
    workload_id = changes.pop("id", None) or new_id()
    fields: dict[str, Any] = {
        "name": "guest",
        "kind": Kind.VM,
        "image": "guest" if image else None,
        "nics": (),
        "resources": Resources(vcpus=1, memory=128 << 20),
        **changes,
    }
    return DesiredWorkload(
        id=workload_id,
        project="tests",
        name=fields["name"],
        kind=Kind.VM,
        init=None,
        generation=1,
        revision=1,
        spec=WorkloadSpec(**fields),
        state=PowerState.RUNNING,
        image=image,
        nics=nics,
        volumes=volumes,
    )


def nic(network_id: str, index: int = 0) -> DesiredNic:
    made = new_id()
    return DesiredNic(id=made, index=index, network_id=network_id, mac=mac_address(made))


def disk_image(virtual_size: int, format: str = "qcow2") -> DesiredImage:
    disk = Disk(blob=_BLOB, format=format, virtual_size=virtual_size)
    manifest = ImageManifest(type=ImageType.DISK, disk=disk)
    return DesiredImage(id=new_id(), name="disk", manifest=manifest)


def iso_image() -> DesiredImage:
    disk = Disk(blob=_BLOB, format="raw", virtual_size=1)
    manifest = ImageManifest(type=ImageType.ISO, disk=disk)
    return DesiredImage(id=new_id(), name="iso", manifest=manifest)


@contextmanager
def vm_kit() -> Iterator[VmKit]:
    """A kit, and nothing left of it afterwards."""
    root = Path(tempfile.mkdtemp(prefix="virtmgr-vm-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        kit = VmKit(root)
        try:
            yield kit
        finally:
            for path in kit.state.glob("*"):
                kit.driver.destroy(path.name)
            kit.driver.close()
    finally:
        shutil.rmtree(root)
