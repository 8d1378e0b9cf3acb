"""Workloads move between real agents, and whoever works on it may be killed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.multihost.fleet import Fleet, running_fleet
from tests.multihost.watching import Watch

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_ALIVE = "86399"  # seconds that the workload sleeps, by which its process is known
_MEGABYTES = "150"


def watch() -> Watch:
    """How many of the workload's processes run on the machine."""
    return Watch(lambda: len(pids("sleep", _ALIVE)), every=0.02)


def pids(*words: str) -> list[int]:
    """Processes of the machine whose command line has all these words, as words."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if set(words) <= set(command):
            found.append(int(path.name))
    return found


def sums(fleet: Fleet) -> str:
    return fleet.run("exec", "app1", "--", "sha256sum", "/root-blob", "/data/blob").stdout


@contextmanager
def moving_fleet(lab: Lab) -> Iterator[tuple[Fleet, LabHost, LabHost]]:
    """Two hosts; on the first runs ``app1``, with data on its own disk and on a volume."""
    first, _, third = lab.hosts()  # both of the machine's release
    with running_fleet(lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("host", "cordon", third.name)
        fleet.run("volume", "create", "data", "--size", "1GiB")
        fleet.run(
            "run",
            "busybox",
            "--name",
            "app1",
            "--volume",
            "data:/data",
            "--",
            "sh",
            "-c",
            f"trap 'exit 0' TERM; sleep {_ALIVE} & wait",
        )
        for path in ("/root-blob", "/data/blob"):
            fleet.run("exec", "app1", "--", "dd", "if=/dev/urandom", f"of={path}", "bs=1M",
                      f"count={_MEGABYTES}")  # fmt: skip
        fleet.run("host", "uncordon", third.name)
        yield fleet, first, third


def phase(fleet: Fleet) -> str:
    return str(fleet.json("migration", "list")[0]["phase"])


def wait_for_phase(fleet: Fleet, *phases: str) -> None:
    fleet.wait_until(lambda: phase(fleet) in phases)


def assert_moved(fleet: Fleet, source: LabHost, target: LabHost, before: str) -> None:
    """It runs on the target with all its data, and nothing of it is left on the source."""
    fleet.wait_until(lambda: phase(fleet) == "done")
    shown = fleet.json("show", "app1")
    assert (shown["host"]["name"], shown["status"]["state"]) == (target.name, "running")
    assert sums(fleet) == before
    left = "find /var/lib/virtmgr-agent -name '*.img' -o -name '*.raw' -o -path '*/arrivals/*'"
    files = source.run("sh", "-c", left).stdout.split()
    assert [file for file in files if "/.templates/" not in file] == []
    fleet.wait_until(
        lambda: not target.run("ls", "/var/lib/virtmgr-agent/pool/arrivals").stdout.split()
    )
    claimed = fleet.json("host", "show", source.name)["claimed"]
    assert claimed == {"vcpus": 0, "memory": 0, "disk": 0}


def kill_worker(fleet: Fleet) -> None:
    """The one of this fleet's control plane."""
    data = fleet.environment["VIRTMGR_DATA_DIRECTORY"]
    for pid in pids("virtmgr.bootstrap.worker"):
        if f"VIRTMGR_DATA_DIRECTORY={data}\0" in Path(f"/proc/{pid}/environ").read_text():
            os.kill(pid, signal.SIGKILL)


def kill_agent(host: LabHost) -> None:
    host.run("sh", "-c", "kill -9 $(pgrep -f '[v]irtmgr agent')")


def test_a_move_takes_all_along_and_its_addresses_stay(whole_lab: Lab) -> None:
    with moving_fleet(whole_lab) as (fleet, first, third), watch() as watched:
        before, nics = sums(fleet), fleet.json("show", "app1")["nics"]
        planned = fleet.json("move", "app1", "--plan")["plan"]
        assert planned[0]["target"]["name"] == third.name
        fleet.run("move", "app1")
        assert_moved(fleet, first, third, before)
        assert fleet.json("show", "app1")["nics"] == nics
        fleet.run("move", "app1", "--to", first.name)
        assert_moved(fleet, third, first, before)
        fleet.run("host", "drain", first.name)
        assert fleet.host_state(first.name) == "maintenance"
        assert_moved(fleet, first, third, before)
        assert watched.most == 1


def test_a_kill_in_the_middle_is_a_non_event(whole_lab: Lab) -> None:
    """Whoever is killed in whatever phase: it ends well, and never were there two."""
    with moving_fleet(whole_lab) as (fleet, source, target), watch() as watched:
        before = sums(fleet)
        for during in ("copying", "starting", "stopping"):
            for victim in ("worker", "source", "target"):
                fleet.run("move", "app1", "--no-wait")
                wait_for_phase(fleet, during, "cleaning", "done")
                if victim == "worker":
                    kill_worker(fleet)
                else:
                    kill_agent(source if victim == "source" else target)
                assert_moved(fleet, source, target, before)
                print(f"{victim} killed while {during}: well", flush=True)
                source, target = target, source
        assert watched.most == 1
        assert len(pids("sleep", _ALIVE)) == 1
