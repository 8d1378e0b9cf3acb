"""A Linux guest: Debian's cloud kernel and an initial RAM disk of busybox, up in a few seconds.

On its serial console it says GUEST-UP and gives a shell. It answers the power button, takes
hot-plugged CPUs into use, and panics, resets or powers off when told to. Debian's QEMU guest agent
runs in it, unless its kernel's command line says no-agent.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.guests.cpio import Archive

UP = b"GUEST-UP"
_META_PACKAGE = "linux-image-cloud-amd64"
_AGENT_PACKAGE = "qemu-guest-agent"  # this machine has its libraries, as QEMU needs them too
_LIBRARY = re.compile(r"(/\S+) \(0x")
_MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console"),
    *("virtio_balloon", "rng-core", "virtio-rng", "scsi_common", "scsi_mod", "virtio_scsi"),
    *("cdrom", "sr_mod", "isofs", "button", "evdev", "pvpanic", "pvpanic-mmio", "pvpanic-pci"),
)
_INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules.list); do insmod /modules/$m.ko; done
dmesg -n 1
if ! grep -q no-acpi /proc/cmdline; then
  for e in /dev/input/event*; do
    (dd if=$e of=/dev/null bs=24 count=1 2>/dev/null; poweroff -f) &
  done
fi
(while :; do for c in /sys/devices/system/cpu/cpu*/online; do
  [ "$(cat $c)" = 0 ] && echo 1 > $c; done; sleep 1; done) 2>/dev/null &
ip link set lo up
if ! grep -q no-agent /proc/cmdline; then
  qemu-ga -m virtio-serial -p /dev/vport*p1 -t /tmp -l /tmp/qemu-ga.log &
fi
echo "GUEST-UP cpus=$(nproc) eth0=$(cat /sys/class/net/eth0/address 2>/dev/null)"
while :; do setsid -c sh -c 'exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'; sleep 1; done
"""


@dataclass(frozen=True)
class Guest:
    """Files to boot directly."""

    kernel: Path
    initrd: Path
    command_line: str = "console=ttyS0 quiet panic=1"


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "virtmgr"


def build() -> Guest:
    """The guest's files, from the cache if they are there."""
    recipe = hashlib.sha256((_INIT + " ".join(_MODULES)).encode()).hexdigest()[:12]
    directory = cache_directory() / f"guest-{recipe}"
    guest = Guest(directory / "vmlinuz", directory / "initrd")
    if not guest.initrd.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            root = _packages(Path(scratch))
            _copy(next(root.glob("boot/vmlinuz-*")), guest.kernel)
            _write(guest.initrd, gzip.compress(_initrd(root), 6, mtime=0))
    return guest


def _packages(scratch: Path) -> Path:
    """Debian's kernel and guest agent, unpacked."""
    shown = subprocess.run(
        ["apt-cache", "depends", _META_PACKAGE], capture_output=True, text=True, check=True
    )
    package = shown.stdout.split("Depends: ")[1].split()[0]
    subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package, _AGENT_PACKAGE],
        cwd=scratch,
        check=True,
    )
    root = scratch / "root"
    for archive in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
    return root


def _add_agent(archive: Archive, root: Path) -> None:
    program = root / "usr/sbin/qemu-ga"
    archive.file("bin/qemu-ga", program.read_bytes(), 0o755)
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    for library in map(Path, _LIBRARY.findall(listed.stdout)):
        archive.file(str(library).removeprefix("/"), library.read_bytes(), 0o755)


def _initrd(root: Path) -> bytes:
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "tmp", "mnt", "modules"):
        archive.directory(name)
    for name in ("lib", "lib/x86_64-linux-gnu", "lib64"):
        archive.directory(name)
    _add_agent(archive, root)
    archive.console()
    archive.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    archive.file("init", _INIT.encode(), 0o755)
    found = {path.stem: path for path in root.glob("lib/modules/*/kernel/**/*.ko")}
    present = [name for name in _MODULES if name in found]  # others are built in
    for name in present:
        archive.file(f"modules/{name}.ko", found[name].read_bytes())
    archive.file("modules.list", ("\n".join(present) + "\n").encode())
    return archive.data()


def _copy(source: Path, target: Path) -> None:
    _write(target, source.read_bytes())


def _write(target: Path, content: bytes) -> None:
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o644)
    partial.replace(target)
