"""The parts that decide or parse, without a container."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.from_the_future import UNKNOWN
from virtmgr.domain.errors import DriverError, InvalidRequest
from virtmgr.domain.workload import IoLimits, Resources
from virtmgr.drivers import sparse
from virtmgr.drivers.oci import cgroups, filesystem, logs, places, rootfs, stats, users
from virtmgr.drivers.oci.cgroups import Cgroups, Hierarchies, Layout
from virtmgr.drivers.oci.lifecycle import interpret_exit
from virtmgr.drivers.oci.mounts import Mount, parse_mountinfo
from virtmgr.drivers.oci.places import Exit, Place, Places, Record, Run
from virtmgr.drivers.oci.runtime import complaint

V2 = "30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
UNIFIED = "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("text", "layout"),
    [(V2, Layout.V2), (V1, Layout.V1), (V1 + UNIFIED, Layout.HYBRID), ("", Layout.NONE)],
)
def test_the_cgroup_layout(text: str, layout: Layout) -> None:
    assert cgroups.detect(parse_mountinfo(text)).layout is layout


def test_joint_controllers_are_found_apart() -> None:
    found = cgroups.detect(parse_mountinfo(V1))
    assert found.v1_path("cpuacct") == Path("/sys/fs/cgroup/cpu,cpuacct")


def test_mountinfo() -> None:
    line = r"36 35 98:0 /a /mnt/with\040space rw master:1 shared:2 - ext4 /dev/root rw"
    assert list(parse_mountinfo(line)) == [
        Mount(Path("/mnt/with space"), "ext4", "/dev/root", shared=True)
    ]


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    group = tmp_path / "virtmgr/w"
    group.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    for name, content in {
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        "memory.current": "1000000\n",
        "memory.stat": "file 300000\ninactive_file 200000\n",
        "memory.events": "low 0\noom 1\noom_kill 2\n",
        "pids.current": "7\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
        "cpu.max": "",
        "cpu.weight": "",
        "pids.max": "",
        "memory.max": "",
        "memory.swap.max": "",
        "cgroup.freeze": "",
        "io.max": "",
        "cgroup.procs": "41\n42\n",
    }.items():
        (group / name).write_text(content)
    return Cgroups(Hierarchies(Layout.V2, tmp_path), "virtmgr")


def test_cgroup_v2(unified: Cgroups, tmp_path: Path) -> None:
    group = tmp_path / "virtmgr/w"
    usage = unified.usage("w")
    assert (usage.cpu_seconds, usage.memory, usage.pids) == (2.5, 800000, 7)
    assert (usage.disk_read, usage.disk_written) == (11, 22)
    assert unified.oom_kills("w") == 2
    assert unified.processes("w") == {41, 42}
    assert unified.has("io")
    assert not unified.has("cpuset")
    limits = Resources(vcpus=1.5, memory=2_000_000, pids=9)
    assert unified.apply("w", limits) == ()
    written = {n: (group / n).read_text() for n in ("cpu.max", "pids.max", "memory.max")}
    assert written == {"cpu.max": "150000 100000", "pids.max": "9", "memory.max": "2000000"}
    assert unified.apply("w", Resources(memory=500_000)) == ("resources.memory",)
    io = IoLimits(write_bytes_per_second=2**20, read_operations_per_second=50)
    unified.throttle("w", io, [os.makedev(7, 3)])
    assert (group / "io.max").read_text() == "7:3 rbps=max wbps=1048576 riops=50 wiops=max"
    assert not unified.is_frozen("w")
    unified.freeze("w", frozen=True)
    assert unified.is_frozen("w")
    unified.delegate("w", os.getuid())
    assert unified.oom_kills("gone") == 0
    assert unified.usage("gone").memory == 0


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("0::/system.slice/virtmgr-agent.service\n", True),
        ("9:name=systemd:/\n4:memory:/deep/down\n0::/\n", False),
        ("1:name=systemd:/system.slice/x\n", True),
    ],
)
def test_whether_a_service_manager_may_end_us(text: str, inside: bool) -> None:
    assert cgroups.is_in_service(text) is inside


@given(st.floats(0.01, 512))
def test_cpu_shares_and_weights_are_in_range(vcpus: float) -> None:
    assert 2 <= cgroups.cpu_shares(vcpus) <= 262144
    assert 1 <= cgroups.cpu_weight(vcpus) <= 10000
    assert cgroups.cpu_quota(vcpus) >= 1000


@pytest.mark.parametrize(
    ("status", "system", "oom", "wanted"),
    [
        (0, False, False, (0, None, False)),
        (3, False, False, (3, None, False)),
        (137, False, True, (137, 9, True)),
        (0, False, True, (0, None, False)),
        (130, True, False, (0, None, False)),
        (130, False, False, (130, 2, False)),
        (129, True, False, (129, 1, False)),
        (255, False, False, (255, None, False)),
        (None, False, False, (None, None, False)),
    ],
)
def test_exit_statuses(
    status: int | None, system: bool, oom: bool, wanted: tuple[int | None, int | None, bool]
) -> None:
    assert interpret_exit(status, system=system, oom=oom, finished_at="t") == Exit(*wanted, "t")


def test_log_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stamp = b"2026-01-02T03:04:05.000000000+00:00"
    log.write_bytes(
        b"%b stdout P par\n%b stdout F tial\n%b stderr F \n%b stdout F a b  c\n%b stdout F half"
        % ((stamp,) * 5)
    )
    output, position = logs.read(log, None)
    assert output == b"partial\n\na b  c\n"
    assert position == len(log.read_bytes()) - len(stamp + b" stdout F half")
    assert logs.read(log, 1)[0] == b"a b  c\n"
    assert logs.read(log, 0)[0] == b""
    assert logs.read(tmp_path / "none", None) == (b"", 0)
    assert list(logs.follow(log, 0, lambda: False)) == [b"partial\n\na b  c\n"]


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbroken\nnegative:x:-1:0::/:\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\nwww:x:34:\nlog:x:4:web,root\n")
    return os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", users.User(0, 0, (0, 4), "/root")),
        ("web", users.User(33, 34, (34, 4), "/var/www")),
        ("33", users.User(33, 34, (34, 4), "/var/www")),
        ("web:www", users.User(33, 34, (), "/var/www")),
        ("web:77", users.User(33, 77, (), "/var/www")),
        ("1234", users.User(1234, 0, (), "/")),
        ("1234:log", users.User(1234, 4, (), "/")),
    ],
)
def test_users(root: int, text: str, user: users.User) -> None:
    try:
        assert users.resolve(root, text) == user
        for missing in ("nobody", "web:nobody", "negative"):
            with pytest.raises(DriverError, match="no such"):
                users.resolve(root, missing)
    finally:
        os.close(root)


def test_a_link_in_the_root_does_not_lead_out(tmp_path: Path) -> None:
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc/passwd").symlink_to("../../outside")
    (tmp_path / "outside").write_text("evil:x:0:0::/:\n")
    root = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert users.read_in_root(root, "/etc/passwd") is None
    finally:
        os.close(root)


def test_blank_images(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * 1024**2)
    assert filesystem.is_blank(image)
    assert filesystem.type_of(image) is None
    with image.open("r+b") as file:
        file.write(b"\0" * 65536)
    assert filesystem.is_blank(image)
    filesystem.make_ext4(image)
    assert not filesystem.is_blank(image)
    assert filesystem.type_of(image) == "ext4"
    assert not filesystem.can_grow(image)
    os.truncate(image, 64 * 1024**2)
    assert filesystem.can_grow(image)
    filesystem.grow(image)
    assert not filesystem.can_grow(image)
    copy = tmp_path / "copy"
    sparse.copy(image, copy)
    assert copy.read_bytes() == image.read_bytes()
    assert copy.stat().st_blocks * 512 < 16 * 1024**2


def test_file_capabilities_follow_their_owner() -> None:
    version_2 = (0x02000001).to_bytes(4, "little") + bytes(range(16))
    version_3 = rootfs.capability_moved(version_2, 0, 1_000_000)
    assert version_3 == (
        (0x03000001).to_bytes(4, "little") + bytes(range(16)) + (1_000_000).to_bytes(4, "little")
    )
    assert rootfs.capability_moved(version_3, 0, 5) == version_3
    moved = rootfs.capability_moved(version_3, 1_000_000, 2_000_000)
    assert moved == rootfs.capability_moved(version_2, 0, 2_000_000)


def test_access_lists_name_the_new_ids() -> None:
    owner, user, group, mask = (1, 6, 2**32 - 1), (2, 7, 65536 + 5), (8, 4, 70), (16, 7, 2**32 - 1)

    def access_list(*entries: tuple[int, int, int]) -> bytes:
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

    moved = rootfs.acl_moved(access_list(owner, user, group, mask), lambda id: id + 1000)
    assert moved == access_list(owner, (2, 7, 65536 + 1005), (8, 4, 1070), mask)


def test_network_counters() -> None:
    text = (
        "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n"
        "  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n"
    )
    assert stats.parse_net_dev(text) == (101, 202)


@pytest.mark.parametrize("identity", ["", ".exits", "../x", "a/b"])
def test_ids_that_would_lead_elsewhere(identity: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        Places(tmp_path, tmp_path).of(identity)


def test_complaints_lose_their_prefixes() -> None:
    assert complaint("2026-01-02T03:04:05.678Z: no such file\n\n") == "no such file"
    assert complaint("") == "it said nothing"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Places(tmp_path / "state", tmp_path / "run").of("01997d2e-7c1e-7aaa-8000-000000000001")
    for directory in (found.record.parent, found.run_record.parent):
        directory.mkdir(parents=True, exist_ok=True)
    return found


def test_what_a_newer_agent_has_written_down_is_read(place: Place) -> None:
    record = Record("w", 100000, ("layer",), 1)
    run = Run(
        boot_id=places.boot_id(), pid=2, pid_ticks=3, conmon_pid=4, conmon_ticks=5, started_at="t",
        stop_signal=15, id_base=100000, tty=False, system=False, applied={},
        exit=Exit(0, None, False, "t"),
    )  # fmt: skip
    places.save_record(place, record)
    places.save_run(place, run)
    for path in (place.record, place.run_record):
        written = json.loads(path.read_text())
        if written.get("exit"):
            written["exit"][UNKNOWN] = 1
        path.write_text(json.dumps({**written, UNKNOWN: 1}))
    assert places.load_record(place) == record
    assert places.load_run(place) == run
