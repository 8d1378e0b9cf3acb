"""What a VM's QEMU is allowed, and who can reach it, as docs/security.md says."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.drivers.libvirt.kit import VmKit, workload

pytestmark = pytest.mark.host


def test_qemu_is_confined_and_out_of_reach(kit: VmKit) -> None:
    desired = workload(kit.kernel_image())
    kit.driver.prepare(desired, kit.provision())
    kit.driver.start(desired, kit.provision())
    pid = kit.driver.inspect(desired.id).pid
    assert pid is not None
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    users = {int(number) for number in status["Uid"].split()}
    assert 0 not in users
    assert 0 not in {int(number) for number in status["Gid"].split()}
    assert int(status["CapEff"], 16) == 0
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["Seccomp"]) == 2

    sockets = inodes(pid)
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        assert not sockets & {fields[9] for fields in table(pid, protocol)}
    paths = [Path(row[7]) for row in table(pid, "unix") if row[6] in sockets and len(row) > 7]
    names = {path.name for path in paths}
    assert {"tty", "monitor.sock", "vnc.sock", "org.qemu.guest_agent.0"} <= names
    for path in paths:
        assert is_closed(path, users), path


def inodes(pid: int) -> set[str]:
    """The sockets that a process has open."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def table(pid: int, protocol: str) -> list[list[str]]:
    """The rows of /proc/PID/net/PROTOCOL, proc(5)."""
    return [row.split() for row in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]]


def is_closed(path: Path, users: set[int]) -> bool:
    """Whether nobody but root and ``users`` can connect to the socket at ``path``, unix(7)."""
    status = path.stat()
    writable = status.st_mode & stat.S_IWOTH
    passable = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return status.st_uid in {0, *users} and not (writable and passable)
