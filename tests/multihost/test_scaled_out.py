"""A fleet under three control planes on PostgreSQL that are killed all the time: nothing that was
acknowledged is lost, and nothing is there twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.lab import remove_abandoned, session_site
from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.plan import Flavour, Release, fleet
from tests.multihost.faults import Checker, broken_chains
from tests.multihost.planes import Disturber, PatientFleet, Planes, three_planes

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.postgresql,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_ROOT = Path(__file__).resolve().parents[2]
_SMALL = ("--memory", "16MiB", "--disk", "64MiB", "--vcpus", "0.05", "--network", "fabric")
_VM = ("--kind", "vm", "--image", "busybox-vm", "--memory", "96MiB", "--disk", "32MiB",
       "--network", "fabric")  # fmt: skip
_SLEEPS = {f"app-{number}": str(85000 + number) for number in range(23)}
_HA = ("app-0", "app-1", "app-2", "app-3", "app-4", "vm-0")
_ALL = {*_SLEEPS, *(f"sys-{number}" for number in range(4)), *(f"vm-{n}" for n in range(3))}
_AT_ONCE = 3  # commands
_DRAINS = 5


@pytest.fixture
def three() -> Iterator[Lab]:
    """Three hosts of the machine's own Debian release, which can run the agent."""
    remove_abandoned()
    lab = Lab(session_site("planes"), say=print)
    own = Path("/etc/debian_version").read_text().partition(".")[0]
    release = next(release for release in Release if release == own)
    try:
        lab.up(fleet(3, (release,), Flavour.PREPARED), binds=[_ROOT])
        yield lab
    finally:
        lab.down()


def _create(fleet: PatientFleet, name: str) -> None:
    ha = ("--ha",) if name in _HA else ()
    if name in _SLEEPS:
        command = ("--", "sleep", _SLEEPS[name])
        always = ("--restart", "always", "--no-wait")
        fleet.run("run", "busybox", "--name", name, *_SMALL, *ha, *always, *command)
    elif name.startswith("sys"):
        fleet.run("run", "busybox-system", "--name", name, *_SMALL, *ha, "--no-wait")
    else:
        fleet.run("create", name, *_VM, *ha, "--no-wait")


def _until(what: Callable[[], Any], seconds: float = 600) -> None:
    """Until ``what`` finds nothing wrong any more."""
    deadline = time.monotonic() + seconds
    while wrong := what():
        assert time.monotonic() < deadline, wrong
        time.sleep(1)


def _not_running(fleet: PatientFleet) -> dict[str, Any]:
    found = {
        item["name"]: (item["host"] and item["host"]["name"], item["status"])
        for item in fleet.json("list")
        if item["status"]["state"] != "running"
    }
    return found | dict.fromkeys(_ALL - {item["name"] for item in fleet.json("list")}, "missing")


def _on(fleet: PatientFleet, host: LabHost, names: tuple[str, ...]) -> list[str]:
    there = {item["name"]: item["host"]["name"] for item in fleet.json("list")}
    return [name for name in names if there[name] == host.name]


def _unsettled(fleet: PatientFleet) -> list[Any]:
    """Hosts that are not ready, and whatever has not ended."""
    away = [one["name"] for one in fleet.json("host", "list") if one["state"] != "ready"]
    rows = ("failover", "list"), ("migration", "list"), ("operations", "list", "--limit", "500")
    return away + [one for row in rows for one in fleet.json(*row) if not one["finished_at"]]


def test_nothing_acknowledged_is_lost_and_nothing_is_twice(
    three: Lab, pytestconfig: pytest.Config
) -> None:
    seed = pytestconfig.getoption("seed")
    print(f"repeat it with --seed {seed}")
    _, second, third = three.hosts()
    with three_planes(three) as planes:
        fleet = planes.fleet
        for host in three.hosts():
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("image", "build", "busybox", "--name", "busybox-vm", "--kind", "vm")
        fleet.run("image", "build", "busybox", "--name", "busybox-system", "--init", "system")
        fleet.run("network", "create", "fabric", "--type", "overlay", "--ipv4", "10.60.0.0/24")
        with Checker(_SLEEPS) as checker, Disturber(planes, random.Random(seed)) as disturber:
            _live(planes, disturber, second, third)
        assert disturber.failure is None
        assert disturber.kills >= 5
        print(f"{disturber.kills} kills, {checker.looks} looks at what runs")
        _until(lambda: _not_running(fleet))
        _until(lambda: _unsettled(fleet))
        assert not checker.twice
        assert {name for name, pids in checker.running().items() if len(pids) != 1} == set()
        _check_inventory(fleet)


def _live(planes: Planes, disturber: Disturber, drained: LabHost, lost: LabHost) -> None:
    """Filled, drained, hit by a loss of power; PostgreSQL dies on the way."""
    fleet = planes.fleet
    begun = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: _create(fleet, name), sorted(_ALL)))
    _until(lambda: _not_running(fleet))
    print(f"30 workloads run after {time.monotonic() - begun:.0f} s")
    disturber.crash_now.set()
    begun = time.monotonic()
    _drain(fleet, drained)
    print(f"drained after {time.monotonic() - begun:.0f} s")
    fleet.run("host", "uncordon", drained.name)
    assert disturber.crashed.wait(600)
    if not _on(fleet, lost, _HA):  # what is highly available is to be lost
        fleet.run("move", _HA[0], "--to", lost.name)
    kept = tuple(_on(fleet, lost, _HA))
    begun = time.monotonic()
    lost.power_off()
    _until(lambda: _on(fleet, lost, kept))
    print(f"{len(kept)} restarted elsewhere after {time.monotonic() - begun:.0f} s")
    lost.power_on()
    _until(lambda: fleet.host_state(lost.name) != "ready")
    _until(lambda: _not_running(fleet))


def _drain(fleet: PatientFleet, host: LabHost) -> None:
    """A move that was disturbed too often is given up, and told; the same command goes on."""
    for _ in range(_DRAINS):
        done = fleet.run("host", "drain", host.name, "--cold", "--timeout", "900", check=False)
        if fleet.host_state(host.name) == "maintenance":
            return
        moves = fleet.json("migration", "list")
        print(done.stderr, [one["error"] for one in moves if one["error"]], flush=True)
    raise AssertionError(f"host {host.name} is not drained")


def _check_inventory(fleet: PatientFleet) -> None:
    workloads = fleet.json("list")
    assert Counter(one["name"] for one in workloads) == dict.fromkeys(_ALL, 1)
    made = Counter(
        one["target"]["id"]
        for one in fleet.json("operations", "list", "--verb", "create", "--limit", "500")
        if one["target"]["type"] == "workload"
    )
    assert made == dict.fromkeys([one["id"] for one in workloads], 1)
    addresses = [
        address for one in workloads for nic in one["nics"] for address in nic["addresses"]
    ]
    assert len(addresses) == len(set(addresses)) == len(_ALL)
    for host in fleet.json("host", "list"):
        claimed = sum(
            one["spec"]["resources"]["vcpus"]
            for one in workloads
            if one["host"]["name"] == host["name"]
        )
        assert host["claimed"]["vcpus"] == pytest.approx(claimed), host["name"]
    assert not broken_chains(fleet)
    sequences = [int(event["sequence"]) for event in fleet.json("events", "--limit", "500")]
    assert len(sequences) == len(set(sequences))
    machines = Counter(_vms())
    assert {name: machines[name] for name in machines if machines[name] != 1} == {}
    assert len(machines) == sum(one["kind"] == "vm" for one in workloads)


def _vms() -> Iterator[str]:
    """The names of the VMs of this fleet that run on the machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
            group = path.with_name("cgroup").read_text()
        except OSError:  # it has ended
            continue
        if "qemu" in words[0] and f"test-{os.getpid()}-planes" in group:
            yield next(word for word in words if word.startswith("guest="))
