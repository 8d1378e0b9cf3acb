"""A VM as its user gets it: console, display, network, disks, power, and what is refused."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.guests import rescue

from .conftest import VIRTMGR, Product

BUSYBOX = ("--kind", "vm", "--image", "busybox-vm", "--memory", "128MiB", "--disk", "64MiB")
UP = b"has address"


class Console:
    """``virtmgr console`` on a terminal of its own."""

    def __init__(self, product: Product, name: str) -> None:
        self._terminal, slave = pty.openpty()
        self._process = subprocess.Popen(
            [str(VIRTMGR), "console", name],
            env=product.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._seen = b""
        self.expect(rb"ctrl-\] leaves")

    def expect(self, pattern: bytes, seconds: float = 30) -> re.Match[bytes]:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self._seen, re.DOTALL)):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._terminal], [], [], max(0, left))
            assert ready, f"{pattern!r} is not in {self._seen!r}"
            self._seen += os.read(self._terminal, 65536)
        self._seen = self._seen[found.end() :]
        return found

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def run(self, command: str) -> str:
        """Run it in the guest's shell; what it printed, once it has succeeded."""
        self.type(f"echo be'gin'; {command}; echo en'd' $?\r")
        code = self.expect(rb"begin\r\n(.*?)end (\d+)\r\n")
        assert code[2] == b"0", code[1]
        return code[1].decode()

    def leave(self) -> int:
        self.type("\x1d")
        return self._process.wait(timeout=10)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._terminal)


@contextmanager
def console(product: Product, name: str) -> Iterator[Console]:
    attached = Console(product, name)
    try:
        yield attached
    finally:
        attached.close()


@contextmanager
def vm(product: Product, name: str, *options: str) -> Iterator[str]:
    """A VM of its own, deleted at the end."""
    product.run("create", name, *options)
    try:
        yield name
    finally:
        product.run("delete", "--yes", name)


def until_logged(product: Product, name: str, text: str) -> None:
    product.wait_until(lambda: text in product.run("logs", name).stdout)


@pytest.fixture
def vm1(product: Product) -> str:
    until_logged(product, "vm1", UP.decode())
    return "vm1"


def test_two_share_the_console_and_each_leaves(product: Product, vm1: str) -> None:
    with console(product, vm1) as first, console(product, vm1) as second:
        assert first.run("hostname") == "vm1\r\n"
        second.type("echo for-b'oth'\r")
        first.expect(b"for-both")
        second.expect(b"for-both")
        assert first.leave() == 0
        assert second.run("hostname") == "vm1\r\n"
        assert second.leave() == 0


def test_the_guest_reaches_containers_by_name(product: Product, vm1: str) -> None:
    with console(product, vm1) as guest:
        guest.run("nslookup app1.default.virt")
        assert guest.run("wget -qO- http://app1/hostname") == "app1\r\n"
        guest.run("ping -c 1 -W 2 app1.default.virt")


def test_the_display(product: Product, vm1: str, tmp_path: Path) -> None:
    path = tmp_path / "display"
    with subprocess.Popen(
        [str(VIRTMGR), "vnc", vm1, "--socket", str(path), "--once"], env=product.environment
    ) as bridge:
        product.wait_until(path.exists, 10)
        try:
            width, height, pixels = _grab(path)
        finally:
            bridge.terminate()
    assert len(pixels) == width * height * 4
    assert len(set(struct.iter_unpack("4s", pixels))) > 1, "the screen is of one colour"
    assert product.run("vnc", "app1", check=False).returncode == 2


def _grab(path: Path) -> tuple[int, int, bytes]:
    """Width, height and pixels of one whole frame in raw encoding (RFC 6143)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        stream = connection.makefile("rb")
        connection.sendall(stream.read(12))  # the same version
        stream.read(stream.read(1)[0])
        connection.sendall(b"\x01")  # no authentication
        assert stream.read(4) == bytes(4)
        connection.sendall(b"\x01")  # shared
        width, height = struct.unpack(">HH", stream.read(4))
        stream.read(16)
        stream.read(*struct.unpack(">I", stream.read(4)))
        connection.sendall(struct.pack(">BxHi", 2, 1, 0))
        connection.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        pixels = b""
        while len(pixels) < width * height * 4:
            kind, count = struct.unpack(">BxH", stream.read(4))
            assert kind == 0
            for _ in range(count):
                _x, _y, columns, rows, encoding = struct.unpack(">HHHHi", stream.read(12))
                assert encoding == 0
                pixels += stream.read(columns * rows * 4)
        return width, height, pixels


def test_live_changes_arrive_in_the_guest(product: Product, vm1: str) -> None:
    product.run("volume", "create", "shared", "--size", "16MiB")
    with console(product, vm1) as guest:
        product.run("attach-volume", "app1", "shared:/data")
        product.run("exec", "app1", "--", "sh", "-c", "echo from-app1 > /data/note")
        refused = product.run("attach-volume", vm1, "shared", check=False)
        assert refused.returncode == 4
        product.run("detach-volume", "app1", "shared")
        product.run("attach-volume", vm1, "shared")
        guest.run("until [ -b /dev/vdb ]; do sleep 0.1; done; mkdir -p /mnt")
        assert guest.run("mount /dev/vdb /mnt; cat /mnt/note") == "from-app1\r\n"
        guest.run("echo from-vm1 > /mnt/back; umount /mnt")
        product.run("detach-volume", vm1, "shared")
        guest.run("while [ -b /dev/vdb ]; do sleep 0.1; done")
        product.run("attach-nic", vm1, "default")
        guest.run("until ip link show eth1 | grep -q UP; do sleep 0.1; done")
        product.run("detach-nic", vm1, "1")
        guest.run("while [ -e /sys/class/net/eth1 ]; do sleep 0.1; done")
        product.run("resize", vm1, "--vcpus", "2")
        guest.run("until [ $(nproc) = 2 ]; do sleep 0.1; done")
    product.run("attach-volume", "sys1", "shared:/data")
    seen = product.run("exec", "sys1", "--", "sh", "-c", "cat /data/note /data/back; touch /data/c")
    assert seen.stdout == "from-app1\nfrom-vm1\n"
    owners = product.run("exec", "sys1", "--", "stat", "-c", "%u", "/data/note", "/data/back")
    assert owners.stdout == "0\n0\n"
    product.run("detach-volume", "sys1", "shared")
    product.run("volume", "delete", "--yes", "shared")
    said = product.run("resize", vm1, "--memory", "192MiB", "--vcpus", "1").stderr
    assert "takes effect after 'virtmgr restart vm1'" in said
    waiting = product.workload(vm1)["status"]["needs_restart"]
    assert set(waiting) == {"resources.memory", "resources.vcpus"}


def test_without_a_guest_agent_commands_are_refused(product: Product, vm1: str) -> None:
    for command in (("exec", vm1, "--", "true"), ("cp", f"{vm1}:/etc", "/tmp/etc")):
        refused = product.run(*command, check=False)
        assert refused.returncode != 0
        assert "qemu-guest-agent" in refused.stderr


def test_clone(product: Product) -> None:
    with vm(product, "vm5", *BUSYBOX):
        with console(product, "vm5") as guest:
            guest.expect(UP)
            guest.run("echo from-vm5 > /dev/vda; sync")
        product.run("stop", "vm5", "--force")
        product.run("clone", "vm5", "vm6", "--start")
        try:
            with console(product, "vm6") as guest:
                guest.expect(UP)
                assert guest.run("head -n 1 /dev/vda") == "from-vm5\r\n"
                assert guest.run("hostname") == "vm6\r\n"
            macs = {product.workload(name)["nics"][0]["mac"] for name in ("vm5", "vm6")}
            assert len(macs) == 2
        finally:
            product.run("delete", "--yes", "vm6")


def test_rename(product: Product) -> None:
    with vm(product, "vm3", *BUSYBOX):
        until_logged(product, "vm3", UP.decode())
        product.run("rename", "vm3", "vm4")
        command = ("exec", "app1", "--", "ping", "-4", "-c", "1", "-W", "2")
        try:
            for name, found in (("vm4", 0), ("vm3", 1)):
                full = f"{name}.default.virt"
                product.wait_until(
                    lambda full=full, found=found: (
                        product.run(*command, full, check=False).returncode == found
                    )
                )
            assert product.workload("vm4")["status"]["needs_restart"] == ["name"]
            product.run("restart", "vm4", "--force")
            with console(product, "vm4") as guest:
                guest.expect(UP)
                assert guest.run("hostname") == "vm4\r\n"
        finally:
            product.run("rename", "vm4", "vm3")


def test_pause_and_restart(product: Product, vm1: str) -> None:
    product.run("pause", vm1)
    assert product.workload(vm1)["status"]["state"] == "paused"
    product.run("resume", vm1)
    product.run("restart", vm1)
    with console(product, vm1) as guest:
        guest.expect(UP)
        assert guest.run("nproc") == "1\r\n"
    assert product.workload(vm1)["status"]["needs_restart"] == []


def test_ports_power_off_and_nothing_left(product: Product) -> None:
    before = _traces()
    with vm(product, "vm2", *BUSYBOX, "--port", "8090:80", "--restart", "on-failure"):
        until_logged(product, "vm2", UP.decode())
        page = ["curl", "-sS", "--max-time", "5", "http://127.0.0.1:8090/cgi-bin/index.cgi"]
        assert subprocess.check_output(page, text=True) == "Hello from vm2\n"
        with console(product, "vm2") as guest:
            guest.type("poweroff\r")
            guest.expect(b"Disconnected")
        product.wait_until(lambda: _state(product, "vm2") == "stopped")
        assert product.workload("vm2")["status"]["exit_code"] == 0
        product.run("start", "vm2")
        with console(product, "vm2") as guest:
            guest.expect(UP)
        product.run("stop", "vm2")
        lines = product.run("logs", "vm2").stdout
        assert "Power down" in lines, "the guest did not stop by itself"
    product.wait_until(lambda: _traces() == before, 20)


def _state(product: Product, name: str) -> Any:
    return product.workload(name)["status"]["state"]


def _traces() -> set[str]:
    """Domains, files and devices of VMs on this host."""
    domains = subprocess.check_output(["virsh", "list", "--all", "--name"], text=True).split()
    files = {str(path) for path in Path("/var/lib/virtmgr-agent/vms").iterdir()}
    devices = {path.name for path in Path("/sys/class/net").iterdir()}
    cgroups = {str(path) for path in Path("/sys/fs/cgroup").glob("*/machine/qemu-*")}
    return {*domains, *files, *devices, *{re.sub(r"qemu-\d+", "qemu", name) for name in cgroups}}


def test_a_system_that_is_not_linux(product: Product, tmp_path: Path) -> None:
    product.run("image", "import", str(rescue.build(tmp_path / "rescue.iso")), "--name", "rescue")
    options = ("--kind", "vm", "--cdrom", "rescue", "--boot", "cdrom", "--memory", "128MiB")
    with vm(product, "iso1", *options, "--disk", "16MiB"):
        until_logged(product, "iso1", rescue.UP.decode())
        product.run("stop", "iso1", "--force")
        assert _state(product, "iso1") == "stopped"


def test_usage_appears(product: Product, vm1: str) -> None:
    product.wait_until(lambda: product.workload(vm1)["status"]["usage"] is not None, 40)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("workdir", ("--workdir", "/x")),
        ("env", ("--env", "A=1")),
        ("resources.pids", ("--pids", "5")),
        ("init", ("--init", "app")),
        ("resources.vcpus", ("--vcpus", "0.5")),
        ("volumes.0.path", ("--volume", "shared:/data")),
    ],
)
def test_fields_of_containers_are_refused(
    product: Product, field: str, options: tuple[str, ...]
) -> None:
    refused = product.run("create", "vm9", *BUSYBOX, *options, check=False)
    assert refused.returncode == 2
    assert field in refused.stderr
