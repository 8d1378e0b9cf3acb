"""Linux system calls that Python 3.11 does not offer, each as one typed function.

Every function raises ``OSError`` with the kernel's errno. Sources: mount_setattr(2), open_tree(2),
move_mount(2), fsopen(2), openat2(2), setns(2), unshare(2), clone(2), inotify(7).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# The same number on every architecture (they were added after the tables were unified).
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442

CLONE_VM = 0x100
CLONE_FS = 0x200
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSOPEN_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6

IN_MODIFY = 0x2


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _syscall(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def mount(
    source: str, target: str, type: str | None = None, flags: int = 0, data: str | None = None
) -> None:
    """mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, type, data)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind))


def open_tree(path: str, *, clone: bool = True) -> int:
    """A descriptor of the mount at ``path``; with ``clone`` of a detached copy of it."""
    flags = os.O_CLOEXEC | (_OPEN_TREE_CLONE if clone else 0)
    return _check(_syscall(_SYS_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags), path)


def move_mount(fd: int, target: str | int) -> None:
    """Attach the mount behind ``fd`` at a path, or at the directory behind a descriptor."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    if isinstance(target, int):
        flags |= _MOVE_MOUNT_T_EMPTY_PATH
        _check(_syscall(_SYS_MOVE_MOUNT, fd, b"", target, b"", flags))
    else:
        name = os.fsencode(target)
        _check(_syscall(_SYS_MOVE_MOUNT, fd, b"", AT_FDCWD, name, flags), target)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_setattr(fd: int, attributes: int, *, userns_fd: int = 0) -> None:
    """Set attributes of the mount behind ``fd``, its id mapping included (MOUNT_ATTR_IDMAP)."""
    change = _MountAttr(attr_set=attributes, userns_fd=userns_fd)
    size = ctypes.c_size_t(ctypes.sizeof(change))
    _check(_syscall(_SYS_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, ctypes.byref(change), size))


def new_mount(type: str, options: dict[str, str | None], attributes: int = 0) -> int:
    """A descriptor of a new, detached mount (fsopen, fsconfig, fsmount).

    :param options: names with their values, None for flags.
    """
    context = _check(_syscall(_SYS_FSOPEN, os.fsencode(type), _FSOPEN_CLOEXEC))
    try:
        for key, value in options.items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            text = None if value is None else os.fsencode(value)
            _check(_syscall(_SYS_FSCONFIG, context, command, os.fsencode(key), text, 0), key)
        _check(_syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), type)
        return _check(_syscall(_SYS_FSMOUNT, context, _FSOPEN_CLOEXEC, attributes))
    finally:
        os.close(context)


class _OpenHow(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open ``path`` as a process chrooted in the directory ``root`` would: no link leads out.

    Links of /proc that lead elsewhere by magic are refused (ELOOP).
    """
    how = _OpenHow(
        flags=flags | os.O_CLOEXEC,
        mode=mode,
        resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    )
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _check(_syscall(_SYS_OPENAT2, root, os.fsencode(path), ctypes.byref(how), size), path)


def inotify_init() -> int:
    return _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def thread_id() -> int:
    """The kernel's id of this thread."""
    return threading.get_native_id()


@contextmanager
def user_namespace(first_host_id: int, count: int) -> Iterator[int]:
    """A descriptor of a new user namespace that maps 0…count-1 to ``first_host_id``….

    A namespace can only be made by a process that is in it. That process here is a clone that
    shares our memory and does nothing but pause(2): no copy of page tables, no Python in it.
    """
    stack = mmap.mmap(-1, 16384, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + 16384
    pause = ctypes.cast(_libc.pause, ctypes.c_void_p)
    flags = CLONE_VM | CLONE_NEWUSER | signal.SIGCHLD
    pid = _check(_libc.clone(pause, ctypes.c_void_p(top), flags, None))
    try:
        mapping = f"0 {first_host_id} {count}"
        for name in ("uid_map", "gid_map"):
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, mapping.encode())
            finally:
                os.close(fd)
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        yield namespace
    finally:
        os.close(namespace)


def in_own_thread(function: Callable[[], T]) -> T:
    """Run ``function`` in a thread with its own working directory, root and mount namespace slot.

    Such a thread may chdir(2), or setns(2) into another mount namespace, alone.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            unshare(CLONE_FS)
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            failure.append(error)

    thread = Thread(target=run, name="own-fs", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
