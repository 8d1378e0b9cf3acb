"""A host's network in a namespace of its own, with workloads and an outside world."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from virtmgr.drivers.network.adapter import LinuxNetwork

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def own_namespace() -> Iterator[None]:
    """This thread, and what it starts, in a new network namespace until the end."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_CLONE_NEWNET))
        try:
            with IPRoute() as route:
                route.link("set", index=route.link_lookup(ifname="lo")[0], state="up")
            yield
        finally:
            _checked(_libc.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


@contextmanager
def neighbour() -> Iterator[int]:
    """A process in another network namespace; its pid. It ends with us, whatever happens."""
    with subprocess.Popen(
        ["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"there\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"there\n"
            yield process.pid
        finally:
            process.kill()


def inside(pid: int, work: Callable[[], T]) -> T:
    """``work`` in the network namespace of ``pid``; sockets that it makes stay there."""

    def run() -> T:
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(handle, _CLONE_NEWNET))
        finally:
            os.close(handle)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def run(pid: int, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in the network namespace of ``pid``."""
    return subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", *command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def adapter(directory: Path, table: str = "vtest") -> Iterator[LinuxNetwork]:
    """A network adapter that leaves nothing behind, even when a test fails."""
    directory.mkdir(exist_ok=True)
    for path in (directory, *directory.parents):
        if not path.stat().st_mode & 0o001:  # dnsmasq reads its files as nobody
            path.chmod(path.stat().st_mode | 0o011)
    with closing(LinuxNetwork(run_directory=directory, table=table)) as network, ExitStack() as end:
        network.recover()
        end.callback(network.remove_all)
        yield network


def connect_outside(pid: int) -> None:
    """A link to the namespace of ``pid``: 192.0.2.1 here, 192.0.2.2 there, and no routes there."""
    with IPRoute() as route:
        route.link("add", ifname="uplink", kind="veth", peer={"ifname": "eth0", "net_ns_pid": pid})
        index = route.link_lookup(ifname="uplink")[0]
        route.addr("add", index=index, address="192.0.2.1", prefixlen=24)
        route.link("set", index=index, state="up")

    def there() -> None:
        with IPRoute() as route:
            index = route.link_lookup(ifname="eth0")[0]
            route.addr("add", index=index, address="192.0.2.2", prefixlen=24)
            for name in ("lo", "eth0"):
                route.link("set", index=route.link_lookup(ifname=name)[0], state="up")

    inside(pid, there)
