"""Tiny images of the control plane's own static busybox: made in seconds, fit for trying out."""

from __future__ import annotations

import os
import re
from pathlib import Path

from virtmgr.domain.compression import Compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ContainerConfig, ImageManifest, ImageType, Kernel
from virtmgr.images.apt import download_kernel
from virtmgr.images.blobs import BlobStore, read_chunks
from virtmgr.images.limits import ImportLimits
from virtmgr.images.rootfs import import_root_fs
from virtmgr.images.survey import PATH
from virtmgr.images.task import Task, require_tool
from virtmgr.images.tree import Tree

_NEEDED = (
    "sh",
    "uevent",
    "httpd",
    "ping",
    "nslookup",
    "wget",
    "udhcpc",
    "init",
    "getty",
    "login",
    "acpid",
)
_MODULES = (
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "virtio_scsi",
    "virtio_console",
    "virtio_balloon",
    "virtio-rng",
    "sd_mod",
    "sr_mod",
    "isofs",
    "button",
    "evdev",
)
_COMMAND_LINE = "console=ttyS0 quiet panic=5"
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")

_PAGE = """\
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "Hello from $(hostname)"
"""
_SERVE = """\
#!/bin/sh
# The default command: a web server that says its host name, and that ends when asked to.
trap 'kill $!; exit 0' TERM INT
httpd -f -p 80 -h /www &
wait $!
"""
_CONTAINER_INITTAB = """\
::sysinit:/etc/init.d/rcS
::respawn:/bin/httpd -f -p 80 -h /www
console::respawn:/sbin/getty -L 0 console linux
"""
_CONTAINER_RCS = """\
#!/bin/sh
[ -e /etc/hostname ] && hostname "$(cat /etc/hostname)" 2>/dev/null
ip link set lo up 2>/dev/null
exit 0
"""
_VM_INIT = """\
#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module; done
exec /sbin/init
"""
_VM_INITTAB = """\
::sysinit:/etc/init.d/rcS
::respawn:/bin/udhcpc -f -i eth0 -t 10 -T 1 -A 3 -x hostname:$(hostname) -s /etc/udhcpc.script -S
::respawn:/bin/httpd -f -p 80 -h /www
::respawn:/sbin/acpid -f -l /dev/null
::respawn:/bin/uevent /etc/uevent
ttyS0::respawn:-/bin/sh
::ctrlaltdel:/sbin/poweroff
"""
_VM_RCS = """\
#!/bin/sh
name=busybox
for word in $(cat /proc/cmdline); do
  case $word in hostname=*) name=${word#hostname=} ;; esac
done
hostname "$name"
ip link set lo up
ip link set eth0 up
echo "virtmgr: busybox guest is up"
"""
_UDHCPC = """\
#!/bin/sh
case $1 in
bound|renew)
  ip addr flush dev $interface scope global
  ip addr add $ip/${mask:-24} dev $interface
  for gateway in $router; do ip route replace default via $gateway; break; done
  : > /etc/resolv.conf
  [ -n "$domain" ] && echo "search $domain" >> /etc/resolv.conf
  for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
  [ -n "$hostname" ] && hostname "$hostname"
  [ "$1" = bound ] && echo "virtmgr: $(hostname) has address $ip"
  ;;
deconfig) ip addr flush dev $interface scope global ;;
esac
exit 0
"""
_UEVENT = """\
#!/bin/sh
# What is plugged in while the guest runs: CPUs and NICs come switched off.
case $ACTION-$SUBSYSTEM in
add-cpu) echo 1 > /sys$DEVPATH/online ;;
add-net) ip link set $INTERFACE up ;;
esac
"""
_POWER_BUTTON = "#!/bin/sh\nexec /sbin/poweroff\n"


def build_container(
    *, init: str | None, store: BlobStore, limits: ImportLimits, task: Task
) -> ImageManifest:
    """An app container that serves a page, or a system container with busybox' init."""
    init = init or "app"
    tree = _base(task)
    if init == "system":
        tree.file("etc/inittab", _CONTAINER_INITTAB)
        tree.file("etc/init.d/rcS", _CONTAINER_RCS, 0o755)
        tree.link("sbin/init", "../bin/busybox")
    with store.scratch() as scratch:
        path = scratch / "busybox.tar"
        path.write_bytes(tree.tar())
        manifest = import_root_fs(
            path,
            Compression.NONE,
            init=init,
            architecture=os.uname().machine,
            store=store,
            limits=limits,
            task=task,
        )
    if init == "system":
        return manifest
    config = ContainerConfig(init="app", command=("/bin/serve",), env=(PATH,), exposed_ports=_WEB)
    return manifest.model_copy(update={"config": config})


_WEB = ("80/tcp",)


def build_vm(*, store: BlobStore, cache: Path, task: Task) -> ImageManifest:
    """Debian's cloud kernel and an initial RAM disk that is all there is to the guest."""
    tree = _base(task)
    with store.scratch() as scratch:
        kernel = download_kernel(scratch / "kernel", cache, task)
        _add_modules(tree, kernel.modules)
        _add_vm_files(tree)
        task.phase("storing the kernel")
        return ImageManifest(
            type=ImageType.KERNEL,
            architecture=os.uname().machine,
            kernel=Kernel(
                kernel=store.add(read_chunks(kernel.image)),
                initrd=store.add([tree.initrd()]),
                command_line=_COMMAND_LINE,
            ),
        )


def _base(task: Task) -> Tree:
    """What all of them have: busybox, its applets, users, a page to serve."""
    task.phase("collecting busybox")
    tree = Tree()
    for path in ("bin", "sbin", "dev", "etc", "etc/init.d", "proc", "sys", "run", "mnt", "var"):
        tree.directory(path)
    for path in ("www", "www/cgi-bin", "usr", "usr/bin", "usr/sbin", "var/log", "var/lib"):
        tree.directory(path)
    tree.directory("root", 0o700)
    tree.directory("tmp", 0o1777)
    busybox = _static_busybox()
    tree.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in _applets(busybox, task):
        tree.link(f"bin/{applet}", "busybox")
    for applet in ("getty", "poweroff", "reboot", "halt", "acpid", "udhcpc"):
        tree.link(f"sbin/{applet}", "../bin/busybox")
    tree.file("etc/passwd", "root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    tree.file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    tree.file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    tree.file("etc/nsswitch.conf", "hosts: files dns\n")
    tree.file("etc/udhcpc.script", _UDHCPC, 0o755)
    tree.file("www/cgi-bin/index.cgi", _PAGE, 0o755)
    tree.file("bin/serve", _SERVE, 0o755)
    return tree


def _static_busybox() -> Path:
    require_tool("busybox")
    for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if path.exists() and b"/ld-" not in path.read_bytes()[:4096]:  # no ELF interpreter
            return path
    raise ImageError(
        "the busybox of this machine is not static",
        code="tool_missing",
        hint="Install it: apt-get install busybox-static",
    )


def _applets(busybox: Path, task: Task) -> list[str]:
    names = task.run([str(busybox), "--list"]).decode().split()
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ImageError(
            f"the busybox of this machine lacks {', '.join(missing)}",
            code="tool_missing",
            hint="Install it: apt-get install busybox-static",
        )
    return [name for name in names if name != "busybox"]


def _add_vm_files(tree: Tree) -> None:
    tree.file("init", _VM_INIT, 0o755)
    tree.link("sbin/init", "../bin/busybox")
    tree.file("etc/inittab", _VM_INITTAB)
    tree.file("etc/init.d/rcS", _VM_RCS, 0o755)
    tree.file("etc/uevent", _UEVENT, 0o755)
    tree.character_device("dev/console", 5, 1)
    tree.directory("etc/acpi")
    tree.directory("etc/acpi/PWRF")
    tree.file("etc/acpi/PWRF/00000080", _POWER_BUTTON, 0o755)


def _add_modules(tree: Tree, directory: Path) -> None:
    """The modules that a virtio guest needs, and the order in which they can be loaded."""
    files = {path.stem: path for path in directory.rglob("*.ko")}
    order: list[str] = []
    for name in _MODULES:
        _add_module(name, files, order, tree)
    tree.directory("lib")
    tree.directory("lib/modules")
    tree.file("lib/modules/order", "\n".join(f"{name}.ko" for name in order) + "\n")


def _add_module(name: str, files: dict[str, Path], order: list[str], tree: Tree) -> None:
    path = files.get(name) or files.get(name.replace("_", "-"))
    if path is None or path.stem in order:
        return  # built into this kernel, or there already
    content = path.read_bytes()
    found = _DEPENDS.search(content)
    for needed in found[1].decode().split(",") if found and found[1] else ():
        _add_module(needed, files, order, tree)
    order.append(path.stem)
    tree.file(f"lib/modules/{path.name}", content)
