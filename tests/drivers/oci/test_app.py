"""App containers for real: run, seen, stopped, settled."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drivers.oci.kit import ID_BASE, OciKit, ended, nic, respec, shell, started, workload
from virtmgr.domain.errors import DriverError, StorageError
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import ContainerConfig
from virtmgr.domain.sync import DesiredVolume
from virtmgr.drivers import sparse
from virtmgr.drivers.oci import idmap, mounts
from virtmgr.ports.driver import ExecRequest, Luggage, RuntimeState

pytestmark = pytest.mark.host

_DEVICES = {
    *("core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
    *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
}


def test_it_runs_unprivileged(each_runtime: OciKit) -> None:
    kit = each_runtime
    identity = started(kit, workload())
    status = dict(
        line.split(":\t", 1)
        for line in shell(kit, identity, "cat /proc/1/status").splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert status["CapBnd"] == "00000000a80425fb"
    assert shell(kit, identity, "cat /proc/self/uid_map").split() == ["0", str(ID_BASE), "65536"]
    pid = kit.driver.inspect(identity).pid
    assert Path(f"/proc/{pid}").stat().st_uid == ID_BASE
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
    targets = {
        line.split()[4] for line in shell(kit, identity, "cat /proc/self/mountinfo").splitlines()
    }
    assert not [
        t for t in targets if not t.startswith(("/proc", "/dev", "/sys", "/etc/")) and t != "/"
    ]
    devices = set(shell(kit, identity, "ls /dev").split())
    assert devices <= _DEVICES
    for refused in ("mount -t tmpfs none /tmp", "unshare -m true", "hostname x", "cat /proc/kcore"):
        code, output, said = kit.run(identity, "/bin/sh", "-c", refused + " && false; test $? != 0")
        assert code == 0, (refused, output, said)
    code, *_ = kit.run(identity, "/bin/sh", "-c", "echo 1 > /proc/sys/kernel/core_pattern")
    assert code != 0


def test_files_of_the_image_belong_to_the_containers_root(kit: OciKit) -> None:
    identity = started(kit, workload())
    assert shell(kit, identity, "stat -c %u:%g /bin/busybox /etc/passwd; id -u").split() == [
        "0:0",
        "0:0",
        "0",
    ]
    shell(kit, identity, "echo changed > /etc/passwd; rm /bin/wc; touch /new")
    assert (kit.layer / "etc/passwd").read_text().startswith("root:")
    assert (kit.layer / "bin/wc").is_symlink()
    assert (kit.driver.places.of(identity).rootfs / "new").stat().st_uid == ID_BASE


def test_a_clone_owns_its_files_with_ids_of_its_own(kit: OciKit) -> None:
    script = "chown web:log /home/web; touch /home/web/a; chmod 4755 /home/web/a; rm /bin/wc"
    first = workload()
    source = started(kit, first)
    shell(kit, source, script)
    kit.driver.stop(source, timeout=0, force=True)
    desired = workload()
    base = ID_BASE + idmap.ID_COUNT
    provision = replace(kit.provision(), id_base=base)
    kit.driver.clone(source, desired, provision)
    kit.driver.start(desired, provision)
    seen = shell(kit, desired.id, "stat -c %u:%g:%a /home/web /home/web/a")
    assert seen.split() == ["1000:200:755", "0:0:4755"]
    assert "wc" not in shell(kit, desired.id, "ls /bin").split()
    home = kit.driver.places.of(desired.id).upper / "home/web"
    assert (home.stat().st_uid, home.stat().st_gid) == (base + 1000, base + 200)
    kit.driver.start(first, kit.provision())
    assert shell(kit, source, "stat -c %u:%g /home/web").split() == ["1000:200"]


def test_what_came_from_a_host_of_other_ids_is_owned_by_its_new_ones(
    kit: OciKit, tmp_path: Path
) -> None:
    desired = workload()
    source = started(kit, desired)
    shell(kit, source, "chown web:log /home/web; touch /home/web/a; chmod 4755 /home/web/a")
    kit.driver.stop(source, timeout=0, force=True)
    came = tmp_path / "disk.img"
    with kit.driver.leave(source) as luggage:
        sparse.copy(luggage.files["disk.img"], came)
        assert luggage.facts == {"id_base": ID_BASE}
    kit.driver.destroy(source)
    base = ID_BASE + idmap.ID_COUNT
    provision = replace(kit.provision(), id_base=base)
    overlapping = Luggage({"disk.img": came}, {"id_base": base + 1})
    with pytest.raises(StorageError) as refused:
        kit.driver.arrive(desired, provision, overlapping)
    assert refused.value.code == "arrival_refused"
    kit.driver.arrive(desired, provision, Luggage({"disk.img": came}, luggage.facts))
    kit.driver.start(desired, provision)
    seen = shell(kit, desired.id, "stat -c %u:%g:%a /home/web /home/web/a")
    assert seen.split() == ["1000:200:755", "0:0:4755"]
    home = kit.driver.places.of(desired.id).upper / "home/web"
    assert (home.stat().st_uid, home.stat().st_gid) == (base + 1000, base + 200)


def test_half_a_clone_of_a_crash_is_made_again(kit: OciKit) -> None:
    source = started(kit, workload())
    shell(kit, source, "echo whole > /mark")
    kit.driver.stop(source, timeout=0, force=True)
    desired = workload()
    half = kit.driver.places.of(desired.id)
    half.make()
    half.disk.write_bytes(b"half a disk")
    half.disk.with_name("disk.img.partial").write_bytes(b"another half")
    kit.driver.clone(source, desired, kit.provision())
    assert shell(kit, started(kit, desired), "cat /mark") == "whole"
    half = kit.driver.places.of(new_id())
    half.make()
    half.disk.write_bytes(b"half a disk")
    kit.restart_agent()
    assert not half.state.exists(), "a clone that nobody asks for any more"


def test_a_clone_waits_for_readers_of_its_sources_files(kit: OciKit) -> None:
    source = started(kit, workload())
    shell(kit, source, "head -c 1000000 /dev/urandom > /data")
    kit.driver.stop(source, timeout=0, force=True)
    reading = kit.driver.pull(source, "/data")
    assert next(reading)
    desired = workload()
    with pytest.raises(StorageError, match="its files are in use"):
        kit.driver.clone(source, desired, kit.provision())
    assert b"".join(reading)
    kit.driver.clone(source, desired, kit.provision())
    assert kit.driver.inspect(desired.id).state is RuntimeState.PREPARED


def test_without_mapped_mounts_ids_are_shifted() -> None:
    from tests.drivers.oci.kit import oci_kit

    with oci_kit(mapped_mounts=False) as kit:
        (kit.layer / "bin/su").write_text("x")
        (kit.layer / "bin/su").chmod(0o4755)
        identity = started(kit, workload())
        assert shell(kit, identity, "stat -c %u:%g:%a /bin/busybox /bin/su").split() == [
            "0:0:755",
            "0:0:4755",
        ]
        kit.driver.stop(identity, timeout=0, force=True)
        assert kit.driver.stats([identity]) == {}


def test_the_image_says_what_runs_and_the_spec_overrides(kit: OciKit) -> None:
    config = ContainerConfig(
        entrypoint=("/bin/sh", "-c"),
        command=("false",),
        env=("A=image", "B=image"),
        workdir="/home/web",
        user="web",
    )
    script = "id; pwd; echo $A $B $HOME; hostname"
    desired = workload(script, config=config, env={"B": "spec"}, restart="never")
    started(kit, desired)
    inspection = ended(kit, desired.id)
    assert (inspection.state, inspection.exit_code) == (RuntimeState.EXITED, 0)
    assert b"".join(kit.driver.logs(desired.id, follow=False, tail=None)).decode().split("\n") == [
        "uid=1000(web) gid=1000(web) groups=200(log),1000(web)", "/home/web",
        "image spec /home/web", "web1", "",
    ]  # fmt: skip
    assert b"".join(kit.driver.logs(desired.id, follow=False, tail=1)) == b"web1\n"


@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 7", 7, None), ("kill -9 $$", 137, 9), ("exit 0", 0, None)]
)
def test_the_end_is_seen(kit: OciKit, script: str, code: int, number: int | None) -> None:
    # Signals that a process sends itself do not reach the first one of a pid namespace.
    identity = started(
        kit, workload("/bin/sh", "-c", "sleep 0.2; " + script.replace("kill -9 $$", "sleep 1000"))
    )
    if number is not None:
        os.kill(kit.driver.inspect(identity).pid or 0, number)
    seen = ended(kit, identity)
    assert (seen.state, seen.exit_code, seen.signal, seen.oom_killed) == (
        RuntimeState.EXITED,
        code,
        number,
        False,
    )
    assert seen.started_at is not None
    assert seen.finished_at is not None
    assert seen.finished_at > seen.started_at


def test_lack_of_memory_is_reported(each_runtime: OciKit) -> None:
    kit = each_runtime
    eat = "sleep 0.2; x=a; while true; do x=$x$x; done"
    identity = started(kit, workload("/bin/sh", "-c", eat, resources={"memory": "16MiB"}))
    seen = ended(kit, identity)
    assert (seen.state, seen.exit_code, seen.oom_killed) == (RuntimeState.EXITED, 137, True)


def test_limits_hold(each_runtime: OciKit) -> None:
    kit = each_runtime
    identity = started(kit, workload(root_disk={"size": "32MiB"}))
    code, _, said = kit.run(identity, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64")
    assert code != 0
    assert b"No space left" in said
    code, _, said = kit.run(identity, "/bin/sh", "-c", "for i in $(seq 100); do sleep 5 & done")
    assert b"can't fork" in said
    usage = kit.driver.stats([identity])[identity]
    assert usage.disk > 16 * 1024**2
    assert usage.disk_free is not None
    assert usage.disk_free < 1024**2  # a little that no write of a whole block gets
    assert usage.volumes is None
    assert usage.pids is not None
    assert usage.memory > 0


def test_disk_io_is_throttled_and_changed_live(each_runtime: OciKit) -> None:
    kit = each_runtime
    limit, size = 256 * 1024, 1024**2
    volume = DesiredVolume(id=new_id(), name="data", size=1, path="/data")
    later = DesiredVolume(id=new_id(), name="later", size=1, path="/later")
    provision = kit.provision(**{v.id: kit.volume_file() for v in (volume, later)})
    desired = workload(
        volumes=(volume,), resources={"memory": "64MiB", "io": {"write_bytes_per_second": limit}}
    )
    started(kit, desired, provision)

    def rate(path: str) -> float:
        """Bytes a second that reach the disk, written around the page cache."""
        begin = time.monotonic()
        shell(kit, desired.id, f"dd if=/dev/zero of={path} bs=64k count=16 oflag=direct 2>&1")
        return size / (time.monotonic() - begin)

    assert rate("/file") < 2 * limit
    assert rate("/data/file") < 2 * limit
    more = respec(desired).model_copy(update={"volumes": (volume, later)})
    assert kit.driver.update(more, provision).needs_restart == ()
    assert rate("/later/file") < 2 * limit
    on_volumes = kit.driver.stats([desired.id])[desired.id].volumes or {}
    assert on_volumes.keys() == {volume.id, later.id}
    assert all(one.used >= size and one.free > 0 for one in on_volumes.values())
    free = respec(more, resources={"memory": "64MiB"})
    assert kit.driver.update(free, provision).needs_restart == ()
    assert min(rate("/file"), rate("/data/file"), rate("/later/file")) > 2 * limit


def test_stop_is_graceful_then_forced(kit: OciKit) -> None:
    polite = workload("/bin/sh", "-c", "trap 'exit 5' TERM; while true; do sleep 0.05; done")
    started(kit, polite)
    time.sleep(0.3)
    kit.driver.stop(polite.id, timeout=20, force=False)
    assert kit.driver.inspect(polite.id).exit_code == 5
    deaf = workload()
    started(kit, deaf)
    kit.driver.stop(deaf.id, timeout=0.2, force=False)
    assert kit.driver.inspect(deaf.id).signal == signal.SIGKILL
    kit.driver.stop(deaf.id, timeout=0.2, force=False)  # again


def test_paused_ones_stand_still_and_can_be_stopped(kit: OciKit) -> None:
    identity = started(kit, workload())
    kit.driver.pause(identity)
    assert kit.driver.inspect(identity).state is RuntimeState.PAUSED
    with pytest.raises(DriverError, match="paused"):
        kit.driver.exec(identity, ExecRequest(("true",)))
    kit.driver.resume(identity)
    assert kit.driver.inspect(identity).state is RuntimeState.RUNNING
    kit.driver.pause(identity)
    kit.driver.stop(identity, timeout=1, force=True)
    assert kit.driver.inspect(identity).state is RuntimeState.EXITED


def test_exec(each_runtime: OciKit) -> None:
    kit = each_runtime
    identity = started(kit, workload(env={"SPEC": "1"}))
    assert kit.run(identity, "/bin/sh", "-c", "echo out; echo err >&2; exit 3") == (
        3,
        b"out\n",
        b"err\n",
    )
    request = ExecRequest(("wc", "-c"), stdin=True)
    session = kit.driver.exec(identity, request)
    assert session.stdin is not None
    session.stdin.write(b"x" * 200_000)
    session.stdin.close()
    assert session.stdout.read() == b"200000\n"
    assert session.wait() == 0
    session.stdout.close()
    assert session.stderr is not None
    session.stderr.close()
    code, output, _ = kit.run(
        identity,
        "/bin/sh",
        "-c",
        "id -u; pwd; echo $X$SPEC",
        user="web",
        workdir="/tmp",
        env={"X": "y"},
    )
    assert (code, output) == (0, b"1000\n/tmp\ny1\n")
    code, *_ = kit.run(identity, "/bin/sh", "-c", "kill -15 $$")
    assert code == 143
    with pytest.raises(DriverError, match="no such user"):
        kit.run(identity, "true", user="nobody-here")


@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
def test_what_cannot_be_executed_ends_as_in_a_shell(each_runtime: OciKit, tty: bool) -> None:
    kit = each_runtime
    identity = started(kit, workload(env={"PATH": "/bin:/etc"}))
    codes = {
        name: kit.run(identity, name, tty=tty)[0]
        for name in ("/no/such", "nosuch", "/etc/passwd", "passwd", "/etc", "true", "false")
    }
    assert codes == {
        **{"/no/such": 127, "nosuch": 127, "/etc/passwd": 126, "passwd": 126, "/etc": 126},
        **{"true": 0, "false": 1},
    }
    assert kit.run(identity, "/bin/sh", "-c", "exit 255", tty=tty)[0] == 255
    assert not any(kit.driver.places.sockets.iterdir())


def test_exec_with_a_terminal(each_runtime: OciKit) -> None:
    kit = each_runtime
    identity = started(kit, workload())
    request = ExecRequest(("/bin/sh",), tty=True, rows=30, columns=90)
    session = kit.driver.exec(identity, request)
    assert session.stdin is not None
    session.stdin.write(b"stty size; sleep 0.5; stty size; exit 4\n")
    time.sleep(0.25)
    session.resize(40, 100)
    output = b""
    while piece := session.stdout.read(1024):
        output += piece
    assert b"30 90" in output
    assert b"40 100" in output
    assert session.wait() == 4
    session.stdout.close()


def test_a_command_can_be_killed(kit: OciKit) -> None:
    identity = started(kit, workload())
    session = kit.driver.exec(identity, ExecRequest(("sleep", "778")))
    for _ in range(100):
        if "sleep 778" in shell(kit, identity, "ps"):
            break
        time.sleep(0.05)
    session.kill()
    assert session.wait() == session.wait() == 137
    session.stdout.close()
    assert "sleep 778" not in shell(kit, identity, "ps")
    assert session.stderr is not None
    session.stderr.close()


def test_logs_follow_to_the_end(kit: OciKit) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done; printf end"
    identity = started(kit, workload("/bin/sh", "-c", script))
    pieces = list(kit.driver.logs(identity, follow=True, tail=None))
    assert b"".join(pieces) == b"line 1\nline 2\nline 3\nend"


def test_files_in_and_out(kit: OciKit) -> None:
    identity = started(kit, workload())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("d/a", b"hello"), ("d/b", b"x" * 300_000)):
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mode = len(content), 1000, 0o640
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("d/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    kit.driver.push(identity, "/data/new", io.BytesIO(archive.getvalue()))
    assert (
        shell(kit, identity, "stat -c %u:%a /data/new/d/a; cat /data/new/d/a") == "1000:640\nhello"
    )
    pulled = io.BytesIO(b"".join(kit.driver.pull(identity, "/data/new/d")))
    with tarfile.open(fileobj=pulled) as tar:
        members = {member.name: member for member in tar}
        assert set(members) == {"d", "d/a", "d/b", "d/link"}
        assert members["d/b"].size == 300_000
        assert members["d/a"].uid == 1000
        assert members["d/link"].linkname == "/etc/passwd"


@pytest.mark.parametrize("name", ["../up", "/etc/x", "d/../../x"])
def test_a_tar_that_leads_out_is_refused(kit: OciKit, name: str) -> None:
    identity = started(kit, workload())
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(DriverError, match="leads out"):
        kit.driver.push(identity, "/tmp", io.BytesIO(archive.getvalue()))


def test_links_inside_do_not_lead_to_the_host(kit: OciKit) -> None:
    identity = started(kit, workload())
    shell(kit, identity, "ln -s /var/tmp /out; ln -s / /tmp/top; echo inside > /marker")
    with tarfile.open(
        fileobj=io.BytesIO(b"".join(kit.driver.pull(identity, "/tmp/top/marker")))
    ) as tar:
        member = tar.extractfile("marker")
        assert member is not None
        assert member.read() == b"inside\n"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("planted"))
    kit.driver.push(identity, "/../../tmp/top/home", io.BytesIO(archive.getvalue()))
    assert shell(kit, identity, "ls /home").split() == ["planted", "web"]


def test_network(kit: OciKit) -> None:
    desired = workload(nics=(nic(),))
    started(kit, desired)
    assert "10.213.7.2/24" in shell(kit, desired.id, "ip addr show eth0")
    assert "LOOPBACK,UP" in shell(kit, desired.id, "ip link show lo")
    assert "nameserver 10.213.7.1" in shell(kit, desired.id, "cat /etc/resolv.conf")
    assert shell(kit, desired.id, "ping -c 1 127.0.0.1 >/dev/null && echo ok") == "ok"
    kit.driver.stop(desired.id, timeout=0, force=True)
    assert kit.network.connected == set()


def test_changes_while_it_runs(each_runtime: OciKit) -> None:
    kit = each_runtime
    first = nic()
    desired = workload(nics=(first,))
    started(kit, desired)
    volume = DesiredVolume(id=new_id(), name="data", size=1, path="/srv/data")
    second = nic(1, "10.213.8.2/24")
    larger = {"memory": "96MiB", "vcpus": 1.5, "pids": 99}
    changed = respec(desired, resources=larger, env={"N": "1"}, root_disk={"size": "96MiB"})
    changed = changed.model_copy(update={"nics": (second,), "volumes": (volume,)})
    provision = kit.provision(**{volume.id: kit.volume_file()})
    result = kit.driver.update(changed, provision)
    # Live growth of ext4 needs CAP_SYS_RESOURCE, which not every test machine has.
    assert set(result.needs_restart) in ({"env"}, {"env", "root_disk"})
    group = "/sys/fs/cgroup/"
    assert shell(kit, desired.id, f"cat {group}memory/memory.limit_in_bytes") == str(96 * 2**20)
    assert shell(
        kit, desired.id, f"cat {group}pids/pids.max {group}cpu/cpu.cfs_quota_us"
    ).split() == ["99", "150000"]
    links = shell(kit, desired.id, "ip -o link")
    assert "eth1" in links
    assert "eth0" not in links
    shell(kit, desired.id, "echo kept > /srv/data/file; stat -c %u /srv/data | grep -qx 0")
    assert kit.driver.update(changed, provision) == result
    without = changed.model_copy(update={"volumes": ()})
    kit.driver.update(without, kit.provision())
    assert shell(kit, desired.id, "ls /srv/data") == ""
    kit.driver.stop(desired.id, timeout=0, force=True)
    kit.driver.start(changed, provision)
    assert shell(kit, desired.id, "echo $N; cat /srv/data/file").split() == ["1", "kept"]
    assert int(shell(kit, desired.id, "stat -f -c %b /")) * 4096 > 70 * 2**20
    small = respec(changed, resources={"memory": "4MiB"})
    shell(kit, desired.id, "dd if=/dev/zero of=/dev/shm/fill bs=1M count=20 2>/dev/null")
    assert "resources.memory" in kit.driver.update(small, provision).needs_restart


def test_a_volume_outlives_its_containers_and_is_never_formatted_twice(kit: OciKit) -> None:
    volume = DesiredVolume(id=new_id(), name="data", size=1, path="/data")
    disk = kit.volume_file()
    one = workload(
        "/bin/sh", "-c", "echo 1 > /data/x; chown 1000 /data/x; sleep 100", volumes=(volume,)
    )
    started(kit, one, kit.provision(**{volume.id: disk}))
    time.sleep(0.2)
    other = workload(volumes=(volume,))
    with pytest.raises(StorageError, match="already uses"):
        started(kit, other, kit.provision(**{volume.id: disk}))
    kit.driver.destroy(one.id)
    started(kit, other, kit.provision(**{volume.id: disk}))
    assert shell(kit, other.id, "stat -c %u /data/x") == "1000"
    kit.driver.destroy(other.id)
    disk.write_bytes(b"\0" * 4096 + b"precious")
    with pytest.raises(StorageError, match="no ext4"):
        started(kit, workload(volumes=(volume,)), kit.provision(**{volume.id: disk}))
    assert disk.read_bytes().endswith(b"precious")


def test_the_agent_may_restart(kit: OciKit) -> None:
    running = workload(nics=(nic(),))
    ends = workload("/bin/sh", "-c", "sleep 0.5; exit 9")
    for desired in (running, ends):
        started(kit, desired)
    pid = kit.driver.inspect(running.id).pid
    kit.driver.close()
    time.sleep(0.8)
    kit.driver = kit.new_driver()
    assert kit.driver.inspect(running.id).pid == pid
    assert kit.driver.inspect(ends.id).exit_code == 9
    kit.driver.start(running, kit.provision())
    assert kit.driver.inspect(running.id).pid == pid
    os.kill(pid or 0, signal.SIGKILL)
    assert ended(kit, running.id).signal == signal.SIGKILL


def test_a_killed_conmon_leaves_the_exit_unknown(kit: OciKit) -> None:
    identity = started(kit, workload())
    conmon = int(kit.driver.places.of(identity).conmon_pid.read_text())
    os.kill(conmon, signal.SIGKILL)
    assert kit.driver.inspect(identity).state is RuntimeState.RUNNING
    assert kit.run(identity, "true")[0] == 0
    os.kill(kit.driver.inspect(identity).pid or 0, signal.SIGKILL)
    seen = ended(kit, identity)
    assert (seen.state, seen.exit_code) == (RuntimeState.EXITED, None)


def test_after_a_reboot_it_is_prepared_and_starts_again(kit: OciKit) -> None:
    desired = workload()
    started(kit, desired)
    shell(kit, desired.id, "echo kept > /file; sync")
    kit.driver.stop(desired.id, timeout=0, force=True)
    place = kit.driver.places.of(desired.id)
    mounts.unmount_below(place.run)
    for path in sorted(place.run.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    kit.restart_agent()
    assert kit.driver.inspect(desired.id).state is RuntimeState.PREPARED
    kit.driver.start(desired, kit.provision())
    assert shell(kit, desired.id, "cat /file") == "kept"


def test_half_made_things_are_cleaned(kit: OciKit) -> None:
    desired = workload(nics=(nic(),))
    driver = kit.driver
    connect = kit.network.connect

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    kit.network.connect = die  # type: ignore[method-assign]
    abandon = driver._life._abandon
    driver._life._abandon = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        started(kit, desired)
    kit.network.connect = connect  # type: ignore[method-assign]
    driver._life._abandon = abandon  # type: ignore[method-assign]
    assert driver.inspect(desired.id).state is RuntimeState.PREPARED
    kit.restart_agent()
    assert kit.driver.inspect(desired.id).state is RuntimeState.PREPARED
    assert not any((kit.directory / "run/.runtime").iterdir())
    kit.driver.start(desired, kit.provision())
    assert kit.driver.inspect(desired.id).state is RuntimeState.RUNNING
    kit.driver.places.of(desired.id).record.unlink()  # as if destroy had died at its start
    kit.restart_agent()
    assert kit.driver.list() == ()
    assert not [m for m in mounts.mounts() if desired.id in str(m.target)]


def test_a_command_that_is_not_there_leaves_nothing_running(each_runtime: OciKit) -> None:
    kit = each_runtime
    desired = workload("/no/such/command")
    with pytest.raises(DriverError, match="/no/such/command") as refused:
        started(kit, desired)
    assert refused.value.code == "command_not_found"
    assert f"'virtmgr edit {desired.id}'" in (refused.value.hint or "")
    assert kit.driver.inspect(desired.id).state is RuntimeState.PREPARED
    kit.driver.destroy(desired.id)
    kit.driver.destroy(desired.id)
    assert kit.driver.list() == ()
