"""The lab keeps its promises (docs/lab.md): hosts of their own, and faults that are ones."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.kernel import LabError
from tests.lab.plan import Release

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

_FEW = ("-c", "1", "-W", "1")


def _wait_until(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"still not so after {seconds:.0f} s"
        time.sleep(0.05)


def _reaches(host: LabHost, name: str) -> bool:
    return host.run("ping", *_FEW, name, check=False).returncode == 0


def _control_reaches(lab: Lab, name: str) -> bool:
    return lab.run("ping", *_FEW, name, check=False).returncode == 0


# ---- hosts of their own


def test_two_releases_stand_side_by_side(lab: Lab) -> None:
    releases = [host.run("cat", "/etc/debian_version").stdout[:2] for host in lab.hosts()]
    assert releases == [host.plan.release for host in lab.hosts()]
    assert set(releases) == set(Release)


@pytest.mark.parametrize(
    "command",
    [
        ("hostname",),
        ("cat", "/etc/machine-id"),
        ("cat", "/proc/sys/kernel/random/boot_id"),
        ("ip", "-4", "-o", "address", "show", "eth0"),
        ("cat", "/etc/ssh/ssh_host_ed25519_key.pub"),
        ("virsh", "capabilities"),  # it begins with the host's UUID
    ],
    ids=" ".join,
)
def test_each_has_its_own(lab: Lab, command: tuple[str, ...]) -> None:
    assert len({host.run(*command).stdout for host in lab.hosts()}) == 3


def test_all_reach_each_other_by_name(lab: Lab) -> None:
    for host in lab.hosts():
        assert _control_reaches(lab, host.name)
        for name in ("control", *(other.name for other in lab.hosts())):
            assert _reaches(host, name), f"{host.name} → {name}"


def test_the_machine_does_not_see_the_network(lab: Lab) -> None:
    del lab
    links = Path("/proc/net/dev").read_text()
    assert "br0" not in links
    assert "p-h1" not in links


def test_who_may_log_in_and_become_root(lab: Lab) -> None:
    for host in lab.hosts():
        assert host.ssh("id", "-un").stdout == "root\n"
        assert host.ssh("sudo", "-n", "id", "-un", user="automation").stdout == "root\n"
        assert host.ssh("sudo", "-n", "true", user="operator", check=False).returncode != 0
        asked = host.ssh(
            "sudo", "-S", "id", "-un", user="operator", input=f"{lab.password}\n"
        )  # fmt: skip
        assert asked.stdout == "root\n"


def test_keys_of_hosts_are_checked(lab: Lab) -> None:
    known = lab.site.known_hosts.read_text()
    try:
        first, second, *_ = known.splitlines()
        wrong = " ".join([first.split()[0], *second.split()[1:]])
        lab.site.known_hosts.write_text(wrong + "\n")
        refused = lab.host("h1").ssh("true", check=False)
    finally:
        lab.site.known_hosts.write_text(known)
    assert refused.returncode == 255


def test_secrets_are_the_owners_only(lab: Lab) -> None:
    assert lab.site.directory.stat().st_mode & 0o077 == 0
    for secret in (lab.site.key, lab.site.password_file):
        assert secret.stat().st_mode & 0o177 == 0


def test_each_libvirtd_has_its_own_state(lab: Lab) -> None:
    network = "<network><name>only-here</name></network>"
    first, second, _ = lab.hosts()
    first.run("virsh", "net-define", "/dev/stdin", input=network)
    try:
        assert "only-here" in first.run("virsh", "net-list", "--all").stdout
        assert "only-here" not in second.run("virsh", "net-list", "--all").stdout
    finally:
        first.run("virsh", "net-undefine", "only-here")


def test_libvirtd_is_reached_through_the_network(lab: Lab) -> None:
    for host in lab.hosts():
        assert host.ssh("virsh", "-c", "qemu:///system", "version").stdout


def test_processes_are_in_the_hosts_own_control_group(lab: Lab) -> None:
    for host in lab.hosts():
        sleeper = host.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").stdout.strip()
        groups = host.run("cat", f"/proc/{sleeper}/cgroup").stdout
        assert {line.rpartition(":")[2] for line in groups.splitlines()} <= {"/", "/init.scope"}
        inside = {
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in lab.site.group(host.name).pids()
        }
        assert b"sleep\x001000\x00" in inside
        host.run("kill", sleeper)


def test_groups_can_be_made_and_limits_set_on_a_host(lab: Lab) -> None:
    host = lab.host("h1")
    script = "cd /sys/fs/cgroup/pids 2>/dev/null || cd /sys/fs/cgroup; mkdir x; echo 7 >x/pids.max"
    host.run("sh", "-c", script + "; cat x/pids.max; rmdir x")


def test_there_is_no_kvm(lab: Lab) -> None:
    for host in lab.hosts():
        assert not host.path("/dev/kvm").exists()


def test_an_agents_directory_takes_overlays_and_loop_devices(lab: Lab) -> None:
    script = """
        mkdir -p /var/lib/virtmgr-agent/try && cd /var/lib/virtmgr-agent/try
        mkdir lower upper work merged disk
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
        touch merged/x && test -e upper/x
        truncate -s 16M image && mkfs.ext4 -q image && mount -o loop image disk && touch disk/x
        umount merged disk && cd / && rm -r /var/lib/virtmgr-agent
    """
    for host in lab.hosts():
        host.run("sh", "-ec", script)


def test_a_user_namespace_has_proc_and_sys_of_its_own(lab: Lab) -> None:
    """Without which no unprivileged container starts."""
    for host in lab.hosts():
        for kind in ("proc", "sysfs"):
            mount = ("mount", "-t", kind, kind, "/mnt")
            host.run("unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", *mount)


def test_a_directory_is_shared(lab: Lab) -> None:
    first, second, _ = lab.hosts()
    first.path("/srv/shared/note").write_text("from h1")
    assert second.run("cat", "/srv/shared/note").stdout == "from h1"
    second.run("rm", "/srv/shared/note")


# ---- the first process


def test_services_are_kept_running(whole_lab: Lab) -> None:
    host = whole_lab.host("h1")
    host.run("sh", "-c", "kill -9 $(pgrep -xo sshd)")
    _wait_until(lambda: host.ssh("true", check=False).returncode == 0)


def test_a_service_that_appears_is_started_and_ended_processes_are_reaped(lab: Lab) -> None:
    host = lab.host("h2")
    service = "/etc/virtmgr-lab/services/beat"
    host.run(
        "sh", "-c", f"printf '#!/bin/sh\\necho beat; sleep 0.1\\n' >{service}; chmod +x {service}"
    )
    log = host.path("/var/log/virtmgr-lab/beat.log")
    _wait_until(lambda: log.exists() and log.read_text().count("beat") >= 2)
    host.run("rm", service)
    host.run("sh", "-c", "(sleep 0.1 &)")
    _wait_until(lambda: "Z" not in host.run("ps", "-e", "-o", "state=").stdout)


# ---- power


def test_a_power_cut_is_silent_and_the_disk_stays(whole_lab: Lab) -> None:
    host = whole_lab.host("h2")
    host.run("sh", "-c", "echo kept >/var/lib/kept; echo kept >/etc/kept; echo gone >/run/gone")
    host.run("sh", "-c", "printf '#!/bin/sh\\ntouch /run/rc-was-here\\n' >/etc/rc.local")
    host.run("chmod", "+x", "/etc/rc.local")
    boot_id = host.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    with subprocess.Popen(
        host.ssh_command("echo connected; exec sleep 1000"), stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "connected\n"

        host.power_off()

        assert not whole_lab.site.group(host.name).pids()
        assert not host.is_on
        assert not _control_reaches(whole_lab, host.name)
        time.sleep(0.5)  # for a goodbye to arrive, which must not have been sent
        assert session.poll() is None
        session.kill()
    with pytest.raises(LabError, match="no power"):
        host.run("true")

    host.power_on()

    assert host.run("cat", "/var/lib/kept", "/etc/kept").stdout == "kept\nkept\n"
    assert not host.path("/run/gone").exists()
    assert host.run("cat", "/proc/sys/kernel/random/boot_id").stdout != boot_id
    _wait_until(host.path("/run/rc-was-here").exists)
    assert host.ssh("id", "-un").stdout == "root\n"
    host.run("rm", "/etc/rc.local", "/etc/kept", "/var/lib/kept")


def test_a_host_that_is_reinstalled_is_as_new(whole_lab: Lab) -> None:
    host = whole_lab.host("h3")
    machine_id = host.run("cat", "/etc/machine-id").stdout
    host.run("sh", "-c", "touch /etc/old /var/lib/old; rm /etc/machine-id /usr/bin/virsh")
    host.reinstall()
    assert not host.path("/etc/old").exists()
    assert not host.path("/var/lib/old").exists()
    assert host.run("cat", "/etc/machine-id").stdout == machine_id
    assert host.ssh("virsh", "version").stdout


def test_power_goes_with_everything_that_a_host_may_have_made(whole_lab: Lab) -> None:
    host = whole_lab.host("h1")
    script = """
        cd /var/lib && truncate -s 16M image && mkfs.ext4 -q image && mkdir -p disk
        losetup -f image && mount -o loop image disk
        ip link add br7 type bridge
        ip netns add inner
        exec >/dev/null 2>&1
        unshare -m sleep 1000 &
        ip netns exec inner sleep 1000 &
        cd /sys/fs/cgroup/freezer && mkdir -p paused
        sh -c 'echo $$ >paused/tasks; exec sleep 1000' &
        sleep 0.2; echo FROZEN >paused/freezer.state
    """
    host.run("sh", "-ec", script)
    host.hang()
    for _ in range(2):  # also when it has none
        host.power_off()
    host.power_on()
    assert host.run("losetup", "-j", "/var/lib/image").stdout == ""
    assert not host.path("/sys/class/net/br7").exists()
    host.run("rm", "-r", "/var/lib/image", "/var/lib/disk")


def test_a_host_that_hangs_answers_nothing_until_it_goes_on(whole_lab: Lab) -> None:
    host = whole_lab.host("h3")
    sleep = ["timeout", "1", *host.ssh_command("true")]
    host.hang()
    assert host.is_hung
    assert subprocess.run(sleep, check=False, capture_output=True).returncode == 124
    host.thaw()
    assert host.ssh("true").returncode == 0


# ---- the network's faults


def test_cut_off_from_everything(whole_lab: Lab) -> None:
    first, second, third = whole_lab.hosts()
    first.partition()
    assert not _control_reaches(whole_lab, first.name)
    assert not _reaches(first, second.name)
    assert not _reaches(third, first.name)
    assert _reaches(second, third.name)
    first.heal()
    assert _control_reaches(whole_lab, first.name)
    assert _reaches(third, first.name)


def test_cut_off_from_one_peer(whole_lab: Lab) -> None:
    first, second, third = whole_lab.hosts()
    first.partition(second.name)
    assert not _reaches(first, second.name)
    assert not _reaches(second, first.name)
    assert _reaches(first, third.name)
    assert _control_reaches(whole_lab, first.name)
    second.heal()
    assert _reaches(first, second.name)


def test_cut_off_from_the_control_plane_only(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    first.partition("control")
    assert not _control_reaches(whole_lab, first.name)
    assert _reaches(first, second.name)
    with pytest.raises(LabError, match="nobody"):
        first.partition("nobody")


def test_faults_outlast_a_power_cut(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    first.partition(second.name)
    first.degrade(delay=0.02)
    first.power_off()
    first.degrade(delay=0.05)
    first.power_on()
    assert not _reaches(first, second.name)
    assert _round_trip(whole_lab, first.name) >= 0.1


def _round_trip(lab: Lab, name: str) -> float:
    """The shortest of a few, in seconds."""
    said = lab.run("ping", "-c", "4", "-i", "0.1", "-W", "3", name).stdout
    return float(said.splitlines()[-1].split("=")[1].split("/")[0]) / 1000


def test_delay_is_each_way(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    first.degrade(delay=0.04)
    assert _round_trip(whole_lab, first.name) >= 0.08
    first.degrade(delay=0.06)  # another one, in place of the first
    assert _round_trip(whole_lab, first.name) >= 0.12
    assert _round_trip(whole_lab, second.name) < 0.08
    first.heal()
    assert _round_trip(whole_lab, first.name) < 0.08


def test_a_slow_cable_carries_what_it_is_given(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    first.degrade(delay=0.005)
    first.run("sh", "-c", "head -c 8M /dev/urandom >/var/lib/random")
    content = first.path("/var/lib/random").read_bytes()
    sent = first.ssh("sha256sum", "/var/lib/random").stdout.split()[0]
    assert sent == hashlib.sha256(content).hexdigest()
    arrived = subprocess.run(
        first.ssh_command("cat", "/var/lib/random"), capture_output=True, check=True
    ).stdout
    assert arrived == content
    first.run("rm", "/var/lib/random")
    assert _reaches(first, second.name)


def test_loss(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    first.degrade(loss=0.5)
    said = whole_lab.run(
        "ping", "-c", "60", "-i", "0.02", "-W", "1", first.name, check=False
    ).stdout  # fmt: skip
    received = int(said.splitlines()[-2].split()[3] if "rtt" in said else 0)
    assert 0 < received < 60
    first.degrade(loss=1.0)
    assert not _control_reaches(whole_lab, first.name)
    assert _control_reaches(whole_lab, second.name)


# ---- the disk


def test_a_full_disk_is_one_hosts_own(whole_lab: Lab) -> None:
    first, second, _ = whole_lab.hosts()
    write = ("dd", "if=/dev/zero", "of=/var/lib/more", "bs=1M", "count=2")
    first.fill_disk()
    failed = first.run(*write, check=False)
    assert "No space left on device" in failed.stderr
    assert first.run(
        "dd", "if=/dev/zero", "of=/root/more", "bs=1M", "count=1", check=False
    ).returncode
    second.run(*write)
    first.free_disk()
    first.run(*write)
    for host in (first, second):
        host.run("rm", "-f", "/var/lib/more", "/root/more")


def test_a_disk_filled_but_for_some(whole_lab: Lab) -> None:
    host = whole_lab.host("h1")
    host.fill_disk(leave=8 * 2**20)
    host.run("dd", "if=/dev/zero", "of=/var/lib/more", "bs=1M", "count=6")
    more = host.run("dd", "if=/dev/zero", "of=/var/lib/more", "bs=1M", "count=10", check=False)
    assert "No space left on device" in more.stderr
    host.run("rm", "/var/lib/more")
