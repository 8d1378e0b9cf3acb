"""What a container sees of itself, of its host and of its neighbours, looked at from inside."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drivers.oci.kit import ID_BASE, OciKit, eventually, shell, started, workload
from virtmgr.domain.image import ContainerConfig
from virtmgr.domain.workload import Init
from virtmgr.drivers.oci import bundle, mounts
from virtmgr.drivers.oci.mounts import parse_mountinfo

pytestmark = pytest.mark.host

_COUNT = 65536
# Bits of linux/capability.h, as docs/security.md names the sets.
_DOCKER = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
_DROPPED = {16, 17, 25, 32, 33, 35, 36, 38, 39, 40}  # SYS_MODULE, SYS_RAWIO, SYS_TIME, …, BPF
_MOUNTS = {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}
_MOUNTS_APP = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
_MOUNTS_SYSTEM = {"/run", "/run/lock", "/tmp", "/dev/console"}
_DEVICES = {"null", "zero", "full", "tty", "random", "urandom"}
_TERMINALS = {"console", "ptmx", "pts/ptmx", "pts/0", "pts/1"}
_BUSYBOX_INIT = ContainerConfig(init="system")


@pytest.fixture(params=[Init.APP, Init.SYSTEM])
def inside(request: pytest.FixtureRequest, kit: OciKit) -> tuple[Init, Callable[[str], str]]:
    """A running container of each kind, by a function that runs a script in it."""
    config = _BUSYBOX_INIT if request.param is Init.SYSTEM else None
    identity = started(kit, workload(init=request.param, config=config))
    return request.param, lambda script: shell(kit, identity, script)


def bits(names: set[int]) -> str:
    return f"{sum(1 << number for number in names):016x}"


def test_privileges(inside: tuple[Init, Callable[[str], str]]) -> None:
    init, run = inside
    lines = (line.split(":\t", 1) for line in run("cat /proc/1/status").splitlines())
    status = {line[0]: line[-1] for line in lines}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    held = bits(_DOCKER if init is Init.APP else set(range(last + 1)) - _DROPPED)
    assert [status[name] for name in ("CapBnd", "CapPrm", "CapEff")] == [held] * 3
    assert [status[name] for name in ("CapInh", "CapAmb")] == [bits(set())] * 2
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1" if init is Init.APP else "0", "2")
    refused = (
        "/bin/busybox mknod /disk b 7 0",
        "cat /proc/kcore",
        "echo 1 >/proc/sys/vm/swappiness",
    )
    for script in refused:
        assert run(f"({script}) >/tmp/out 2>&1 && echo done || echo refused") == "refused", script


def test_ids_are_its_own(kit: OciKit) -> None:
    other_provision = replace(kit.provision(), id_base=ID_BASE + _COUNT)
    one, other = workload(), workload(name="web2")
    started(kit, one)
    started(kit, other, other_provision)
    for kind in ("uid", "gid"):
        ranges = [
            tuple(map(int, shell(kit, each.id, f"cat /proc/1/{kind}_map").split()))
            for each in (one, other)
        ]
        assert ranges == [(0, ID_BASE, _COUNT), (0, ID_BASE + _COUNT, _COUNT)]


def test_masked_and_read_only_paths(inside: tuple[Init, Callable[[str], str]]) -> None:
    init, run = inside
    desired = workload(init=init, config=_BUSYBOX_INIT if init is Init.SYSTEM else None)
    facts = bundle.BundleFacts(rootfs=Path("/r"), etc=Path("/e"), id_base=1, cgroup_path="/c")
    spec = bundle.build(desired, facts)["linux"]
    look = "if test -d {0}; then ls {0}; elif test -e {0}; then head -c 1 {0}; fi"
    assert [run(look.format(path)) for path in spec["maskedPaths"]] == [""] * len(
        spec["maskedPaths"]
    )
    options = {
        line.split()[4]: line.split()[5].split(",")
        for line in run("cat /proc/self/mountinfo").splitlines()
    }
    there = [path for path in spec["readonlyPaths"] if run(f"test -e {path} && echo 1; true")]
    assert ("/proc/sys" in there) == (init is Init.APP)
    for path in (*there, "/sys"):
        assert "ro" in options[path], path


def test_no_mounts_of_the_host(kit: OciKit, inside: tuple[Init, Callable[[str], str]]) -> None:
    init, run = inside
    text = run("cat /proc/self/mountinfo")
    own = _MOUNTS | (_MOUNTS_APP if init is Init.APP else _MOUNTS_SYSTEM)
    hidden = re.compile(r"/(proc|sys/(firmware|devices/virtual/powercap|fs/cgroup))(/|$)")
    targets = {str(mount.target) for mount in parse_mountinfo(text)}
    devices = {f"/dev/{name}" for name in _DEVICES}
    assert {target for target in targets if not hidden.match(target)} <= own | devices
    assert own <= targets
    named = re.findall(rf"{kit.directory}/run/[^/]+(/[^ ,]*)", text)
    assert set(named) == {"/disk/upper", "/disk/work"}  # overlayfs names them; no more
    assert text.count(str(kit.directory)) == len(named)


def test_no_processes_sockets_and_devices_of_the_host(
    kit: OciKit, inside: tuple[Init, Callable[[str], str]]
) -> None:
    _, run = inside
    started(kit, workload("/bin/sleep", "987654", name="neighbour"))
    assert "987654" not in run("ps -o args")
    assert int(run("ls /proc | grep -c '^[0-9]'")) < 10
    assert run("cat /proc/net/unix").splitlines()[1:] == []
    assert run("ls /sys/class/net") == "lo"
    assert run("/bin/busybox find / -type s 2>/dev/null; true") == ""
    found = run("cd /dev && /bin/busybox find . -type b -o -type c").split()
    assert {path.removeprefix("./") for path in found} <= _DEVICES | _TERMINALS


def test_files_bound_into_etc_cannot_fill_the_host(each_runtime: OciKit) -> None:
    identity = started(each_runtime, workload())
    code, _, said = each_runtime.run(identity, "dd", "if=/dev/zero", "of=/etc/hosts", "bs=1M")
    assert (code, b"No space left" in said) == (1, True)
    for path in _MOUNTS_APP:
        (line,) = shell(
            each_runtime, identity, f"grep ' {path} ' /proc/self/mountinfo"
        ).splitlines()
        assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


def test_who_eats_memory_is_killed_alone(kit: OciKit) -> None:
    one, neighbour = started(kit, workload()), started(kit, workload(name="neighbour"))
    code, *_ = kit.run(one, "/bin/busybox", "tail", "/dev/zero")
    assert code == 137
    assert shell(kit, one, "echo alive") == shell(kit, neighbour, "echo alive") == "alive"


def test_a_fork_bomb_harms_only_itself(kit: OciKit) -> None:
    bomb = "b() { b | b & }; while :; do b; sleep 0.1; done"
    bombed = started(kit, workload("/bin/sh", "-c", f"while :; do /bin/sh -c '{bomb}'; done"))
    neighbour = started(kit, workload(name="neighbour"))

    def is_full() -> bool:
        return (kit.driver.stats([bombed])[bombed].pids or 0) > 48

    assert eventually(is_full)
    assert shell(kit, neighbour, "sleep 0 & wait; echo alive") == "alive"
    assert (kit.driver.stats([bombed])[bombed].pids or 0) <= 64
    kit.driver.stop(bombed, timeout=0, force=True)
    assert shell(kit, neighbour, "echo alive") == "alive"


def test_the_processor_quota_is_enforced(kit: OciKit) -> None:
    resources = {"memory": "64MiB", "vcpus": 0.1}
    identity = started(kit, workload("/bin/sh", "-c", "while :; do :; done", resources=resources))

    def periods_throttled() -> int:
        text = shell(
            kit, identity, "cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat 2>&1; true"
        )
        return int(re.findall(r"nr_throttled (\d+)", text)[0])

    assert eventually(lambda: periods_throttled() > 5)


class Lxcfs:
    """An lxcfs of this test alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.process = subprocess.Popen(
            ["lxcfs", "--foreground", "--pidfile", str(directory / "pid"), str(directory / "fs")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def is_up(self) -> bool:
        return any(mount.target == self._directory / "fs" for mount in mounts.mounts())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        mounts.unmount(self._directory / "fs")


@pytest.fixture
def lxcfs(tmp_path: Path) -> Iterator[Lxcfs]:
    if shutil.which("lxcfs") is None or not Path("/dev/fuse").exists():
        pytest.skip("lxcfs needs its package and /dev/fuse")
    (tmp_path / "fs").mkdir()
    started_here = Lxcfs(tmp_path)
    try:
        if not eventually(lambda: started_here.is_up() or started_here.process.poll() is not None):
            pytest.skip("lxcfs does not come up here")
        yield started_here
    finally:
        started_here.close()


def boot(kit: OciKit) -> str:
    return started(kit, workload(init=Init.SYSTEM, config=_BUSYBOX_INIT))


def test_a_system_container_sees_its_own_memory(lxcfs: Lxcfs, each_runtime: OciKit) -> None:
    kit = each_runtime
    total = f"MemTotal: *{64 * 1024} kB"
    assert shell(kit, boot(kit), f"grep '{total}' /proc/meminfo")
    lxcfs.process.send_signal(signal.SIGSTOP)  # it hangs: nobody waits for it
    assert shell(kit, boot(kit), f"grep '{total}' /proc/meminfo; true") == ""
    lxcfs.process.kill()
    lxcfs.process.wait()
    assert shell(kit, boot(kit), f"grep '{total}' /proc/meminfo; true") == ""
