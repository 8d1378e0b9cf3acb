"""A VM moves while it runs, between real agents and libvirtds, with its disks and its address."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.multihost.fleet import VIRTMGR, Fleet, install, running_fleet
from tests.multihost.watching import Watch
from virtmgr.enrollment.wheelhouse import make_wheelhouse

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_KILLS = 20
_SEED = 1
_VICTIMS = {
    "agent": "kill -9 $(pgrep -f '[v]irtmgr agent')",
    "libvirtd": "kill -9 $(pgrep -x libvirtd); sleep 0.5; libvirtd -d",
}
_TARGET_ONLY = {"qemu": "kill -9 $(pgrep -x qemu-system-x86)"}


@dataclass
class Guest:
    """``vm1``: a counter runs in it, and its volume is full of random bytes."""

    fleet: Fleet
    id: str
    address: str

    def home(self) -> str:
        return str(self.fleet.json("show", "vm1")["host"]["name"])

    def shell(self, host: LabHost, command: str) -> str:
        """What ``command`` prints in its shell, by its serial console."""
        with socket.socket(socket.AF_UNIX) as console:
            console.settimeout(60)
            console.connect(str(host.path(f"/var/lib/virtmgr-agent/vms/{self.id}/tty")))
            console.sendall(f"\recho be'gin'; {command}; echo en'd'\r".encode())
            seen = b""
            while not (found := re.search(rb"begin\r\n(.*?)end\r\n", seen, re.DOTALL)):
                try:
                    seen += console.recv(65536)
                except TimeoutError as error:
                    raise AssertionError(f"no answer but {seen!r}\n{self.inside(host)}") from error
        return found[1].decode()

    def inside(self, host: LabHost) -> str:
        """What its QEMU is at, where it does not answer."""
        asked = [f"qemu-monitor-command {self.id} --hmp {words}" for words in
                 ("info status", "info block-jobs", "info migrate", "info blockstats")]  # fmt: skip
        said = [f"load {os.getloadavg()}"]
        for words in (
            "list --all",
            f"domstate --reason {self.id}",
            f"domjobinfo {self.id}",
            *asked,
        ):
            done = host.run("timeout", "10", "virsh", *words.split(" ", 3), check=False)
            said.append(f"{words}: {done.stdout}{done.stderr}".strip())
        waits = (
            "for each in /proc/$(pgrep -x qemu-system-x86)/task/*; do "
            "cat $each/comm $each/wchan; echo; done"
        )
        said.append(host.run("sh", "-c", waits, check=False).stdout)
        return "\n".join(said)

    def sum(self, host: LabHost) -> str:
        """Of what is on its volume, from the disk itself."""
        drop = "echo 3 >/proc/sys/vm/drop_caches"
        found = re.search(r"[0-9a-f]{32}", self.shell(host, f"{drop}; md5sum /dev/vdb"))
        assert found is not None
        return found[0]

    def counted(self, host: LabHost) -> list[int]:
        """What its counter has said on this host."""
        log = host.path(f"/var/lib/virtmgr-agent/vms/{self.id}/console.log").read_bytes()
        return [int(number) for number in re.findall(rb"<(\d+)>", log)]


@contextmanager
def guest(lab: Lab, wheels: Path | None = None) -> Iterator[tuple[Fleet, Guest, LabHost, LabHost]]:
    """Two hosts of one release; ``vm1`` runs on the first, ``c1`` on the other beside it.

    :param wheels: for the other host's Python, which is of another release then.
    """
    first, second, third = lab.hosts()
    with running_fleet(lab) as fleet:
        fleet.join(first)
        if wheels is None:
            fleet.join(third)
        else:
            third = second
            fleet.join(third, virtmgr=install(third, wheels))
            # The releases' QEMU differ, and with them what "host" means as a CPU.
            fleet.run("cluster", "edit", "default", "--cpu", "auto")
        fleet.run("image", "build", "busybox", "--name", "vm", "--kind", "vm")
        fleet.run("image", "build", "busybox", "--name", "app", "--kind", "container")
        fleet.run("network", "create", "far", "--type", "overlay", "--ipv4", "10.91.0.0/24")
        fleet.run("volume", "create", "data", "--size", "16MiB")
        fleet.run("host", "cordon", third.name)
        fleet.run("create", "vm1", "--kind", "vm", "-i", "vm", "--memory", "192MiB", "--disk",
                  "64MiB", "--network", "far", "--volume", "data")  # fmt: skip
        fleet.run("host", "uncordon", third.name)
        fleet.run("host", "cordon", first.name)
        fleet.run("run", "app", "--name", "c1", "--network", "far", "sleep", "86000")
        fleet.run("host", "uncordon", first.name)
        shown = fleet.json("show", "vm1")
        found = Guest(fleet, shown["id"], shown["nics"][0]["addresses"][0])
        fleet.wait_until(lambda: pings(fleet, found.address))
        yield fleet, found, first, third


def pings(fleet: Fleet, address: str) -> bool:
    return fleet.run("exec", "c1", "--", "ping", "-c1", "-W1", address, check=False).returncode == 0


def phase(fleet: Fleet) -> str:
    return str(fleet.json("migration", "list")[0]["phase"])


def running_on(*hosts: LabHost) -> list[str]:
    """Where a guest runs that is not paused, as the libvirtds have it."""
    running = ("virsh", "list", "--state-running", "--name")
    return [host.name for host in hosts if host.run(*running, check=False).stdout.strip()]


def watch(*hosts: LabHost) -> Watch:
    """On how many hosts it runs at once."""
    return Watch(lambda: len(running_on(*hosts)), every=0.05)


def settle(fleet: Fleet, found: Guest, *hosts: LabHost) -> str:
    """Wait until the move has ended and the guest runs where it should; that host's name."""
    fleet.wait_until(lambda: phase(fleet) in ("done", "failed"))
    fleet.wait_until(lambda: running_on(*hosts) == [found.home()])
    fleet.wait_until(lambda: fleet.json("show", "vm1")["status"]["state"] == "running")
    return found.home()


def assert_nothing_left(host: LabHost) -> None:
    assert not host.run("virsh", "list", "--all", "--name").stdout.strip()
    agent = "/var/lib/virtmgr-agent"
    left = host.run("sh", "-c", f"ls {agent}/vms {agent}/pool/volumes; ls /run/virtmgr-agent/"
                    "migrations", check=False).stdout  # fmt: skip
    assert not [name for name in left.split() if not name.endswith(":")], left


def test_a_vm_moves_while_it_runs(whole_lab: Lab) -> None:
    with guest(whole_lab) as (fleet, vm, first, third):
        before = fleet.json("show", "vm1")
        vm.shell(first, "dd if=/dev/urandom of=/dev/vdb bs=1M count=16 2>/dev/null")
        count = '(i=0; while :; do i=$((i+1)); echo "<$i>"; usleep 100000; done) & true'
        content = vm.sum(first)
        vm.shell(first, count)
        planned = fleet.json("move", "vm1", "--plan")["plan"][0]
        assert (planned["mode"], planned["target"]["name"]) == ("live", third.name)

        command = ["exec", "c1", "--", "ping", "-c", "400", "-i", "0.05", vm.address]
        with subprocess.Popen(
            fleet.lab.attached(str(VIRTMGR), *command), env=fleet.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        ) as pinging:  # fmt: skip
            fleet.run("move", "vm1")
            said = pinging.communicate()[0]
        received = re.search(r"(\d+) packets received", said)
        assert received is not None
        print(f"{received[0]} of 400, one each 50 ms")
        assert int(received[1]) > 200

        fleet.wait_until(lambda: phase(fleet) == "done")
        after = fleet.json("show", "vm1")
        assert after["host"]["name"] == third.name
        assert after["nics"] == before["nics"]
        assert after["status"]["started_at"] == before["status"]["started_at"]
        moved = fleet.json("migration", "list")[0]
        assert (moved["mode"], moved["copied"] > 16 << 20) == ("live", True)
        counted = vm.counted(third)
        assert counted[0] > 1  # it began on the other host,
        assert counted == list(range(counted[0], counted[-1] + 1))  # and went on
        assert vm.sum(third) == content
        assert_nothing_left(first)

        # One that is given up stays, and another one goes all the way back.
        fleet.run("cluster", "edit", "default", "--migration-bandwidth", "1")
        fleet.run("move", "vm1", "--no-wait")
        fleet.wait_until(lambda: phase(fleet) == "migrating")
        fleet.run("migration", "cancel", fleet.json("migration", "list")[0]["id"])
        assert settle(fleet, vm, first, third) == third.name
        assert fleet.json("migration", "list")[0]["error"]["code"] == "cancelled"
        assert_nothing_left(first)
        fleet.run("cluster", "edit", "default", "--migration-bandwidth", "0")
        fleet.run("host", "drain", third.name)
        assert fleet.json("migration", "list", "--phase", "done")
        assert settle(fleet, vm, first, third) == first.name
        assert vm.sum(first) == content


def test_a_vm_moves_between_releases_there_and_back(whole_lab: Lab, tmp_path: Path) -> None:
    """Its CPU has features that only the newer QEMU names, and a machine type that both have."""
    make_wheelhouse(tmp_path, ("3.13",))
    (wheels,) = tmp_path.glob("*-cp313-*.tar")
    with guest(whole_lab, wheels) as (fleet, vm, older, newer), watch(older, newer) as watched:
        vm.shell(older, "dd if=/dev/urandom of=/dev/vdb bs=1M count=16 2>/dev/null")
        content = vm.sum(older)
        before = fleet.json("show", "vm1")["status"]
        versions = {
            host.name: fleet.json("host", "show", host.name)["facts"]["drivers"]
            for host in (older, newer)
        }
        print([driver["version"] for each in versions.values() for driver in each])
        print(before["hardware"])

        def goes_to(target: LabHost, *verb: str) -> None:
            fleet.run(*verb)
            assert settle(fleet, vm, older, newer) == target.name
            assert fleet.json("migration", "list")[0]["mode"] == "live"
            after = fleet.json("show", "vm1")["status"]
            assert (after["started_at"], after["hardware"]) == (
                before["started_at"],
                before["hardware"],
            )
            assert vm.sum(target) == content

        goes_to(newer, "move", "vm1")
        goes_to(older, "move", "vm1")
        goes_to(newer, "host", "drain", older.name)
        fleet.run("host", "activate", older.name)
        # Started on the newer host it gets what both have, and so it can go back once more.
        fleet.run("restart", "vm1")
        fleet.wait_until(lambda: pings(fleet, vm.address))
        before = fleet.json("show", "vm1")["status"]
        goes_to(older, "move", "vm1")
        assert watched.most == 1
        assert_nothing_left(newer)


@pytest.mark.long
def test_whoever_is_killed_it_runs_on_one_host(whole_lab: Lab) -> None:
    """Each side's agent, libvirtd and QEMU at random moments: never two, and in the end one."""
    chance = random.Random(_SEED)
    with guest(whole_lab) as (fleet, vm, source, target), watch(source, target) as watched:
        fleet.run("cluster", "edit", "default", "--migration-bandwidth", "40")
        content = vm.sum(source)
        started = fleet.json("show", "vm1")["status"]["started_at"]
        for number in range(_KILLS):
            victims = [(source, *one) for one in _VICTIMS.items()]
            victims += [(target, *one) for one in (_VICTIMS | _TARGET_ONLY).items()]
            victims.append((source, "cable between them", ""))
            host, name, kill = chance.choice(victims)
            for both in (source, target):
                fleet.wait_until(lambda host=both: has_libvirt(fleet, host))  # type: ignore[misc]
            fleet.run("move", "vm1", "--no-wait")
            fleet.wait_until(lambda: phase(fleet) not in ("planned", "preparing"))
            # Once the guest is the target's, whoever kills its QEMU kills the guest.
            threading.Event().wait(chance.uniform(0, 1.5 if name == "qemu" else 6))
            during = phase(fleet)
            if kill:
                host.run("sh", "-c", kill, check=False)
            else:
                source.partition(target.name)
            home = settle(fleet, vm, source, target)
            source.heal()
            side = "source" if host is source else "target"
            print(f"{number}: {name} of the {side} killed while {during}: {phase(fleet)}",
                  flush=True)  # fmt: skip
            if home == target.name:
                source, target = target, source
            assert watched.most == 1
            assert vm.sum(source) == content
            assert fleet.json("show", "vm1")["status"]["started_at"] == started
            assert_nothing_left(target)


def has_libvirt(fleet: Fleet, host: LabHost) -> bool:
    """Whether its agent has noticed that libvirtd is back."""
    drivers = fleet.json("host", "show", host.name)["facts"]["drivers"]
    return any(driver["name"] == "libvirt" and driver["healthy"] for driver in drivers)
