"""A fleet's whole life as the documents say: enrolled, filled, drained, hit, upgraded, let go."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.multihost.fleet import Fleet, running_fleet
from tests.multihost.test_failover import tell_times
from virtmgr.domain.ssh import fingerprint_of
from virtmgr.enrollment.wheelhouse import make_wheelhouse

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_PATIENCE = 900.0  # seconds
_NETWORK = "198.18.0.0/24"  # who reaches the agents: control planes, and the other hosts
_SMALL = ("--memory", "16MiB", "--disk", "64MiB", "--vcpus", "0.05")
_VM = ("--kind", "vm", "--image", "busybox-vm", "--memory", "96MiB", "--disk", "32MiB")
_PING = "while :; do ping -c1 -W1 {} >/dev/null && echo came || echo lost; sleep 0.2; done"


@pytest.fixture
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Fleet]:
    """A control plane with nothing in it; the machines are as new afterwards."""
    make_wheelhouse(tmp_path, ("3.11", "3.13"))
    settings = {"VIRTMGR_CONTROL_PLANE_ADDRESSES": _NETWORK, "VIRTMGR_WHEELHOUSE": str(tmp_path)}
    with running_fleet(lab, **settings) as fleet:
        fleet.joined.extend(host.name for host in lab.hosts())
        yield fleet


def _enrol(fleet: Fleet, directory: Path) -> None:
    """All of them by one command."""
    machines = {
        host.name: {
            "ansible_host": host.address,
            "virtmgr_host_key": fingerprint_of(host.public_key),
        }
        for host in fleet.lab.hosts()
    }
    common = {"ansible_ssh_private_key_file": str(fleet.lab.site.key)}
    inventory = directory / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"virtmgr_hosts": {"vars": common, "hosts": machines}}))
    begun = time.monotonic()
    fleet.run("host", "add", "--from-inventory", str(inventory), timeout=_PATIENCE)
    print(f"{len(machines)} hosts enrolled in {time.monotonic() - begun:.0f} s")


def _only_on(fleet: Fleet, host: LabHost, *words: str) -> None:
    """Make a workload that is placed on this host."""
    others = [each.name for each in fleet.lab.hosts() if each.name != host.name]
    for other in others:
        fleet.run("host", "cordon", other)
    fleet.run(words[0], "--network", "fabric", *words[1:], timeout=_PATIENCE)
    for other in others:
        fleet.run("host", "uncordon", other)


def _fill(fleet: Fleet) -> None:
    """Thirty workloads of all kinds on one network; a few where they are needed below."""
    first, second, third = fleet.lab.hosts()
    # The releases' QEMU differ, and with them what "host" means as a CPU.
    fleet.run("cluster", "edit", "default", "--cpu", "auto")
    for name, kind in (("busybox", "container"), ("busybox-vm", "vm")):
        fleet.run("image", "build", "busybox", "--name", name, "--kind", kind)
    fleet.run("image", "build", "busybox", "--name", "busybox-system", "--init", "system")
    fleet.run("network", "create", "fabric", "--type", "overlay", "--ipv4", "10.60.0.0/24")
    _only_on(fleet, third, "create", "live", *_VM)
    address = fleet.json("show", "live")["nics"][0]["addresses"][0]
    pinger = ("run", "busybox", "--name", "pinger", *_SMALL)
    _only_on(fleet, first, *pinger, "--", "sh", "-c", _PING.format(address))
    _only_on(
        fleet, second, "run", "busybox", "--name", "kept", "--ha", *_SMALL, "--", "sleep", "9999"
    )
    _only_on(fleet, second, "create", "kept-vm", *_VM, "--ha", "--ha-priority", "5")
    on_it = ("--network", "fabric")
    for number in range(4):
        fleet.run("create", f"vm-{number}", *_VM, *on_it, timeout=_PATIENCE)
        fleet.run("run", "busybox-system", "--name", f"sys-{number}", *_SMALL, *on_it)
    for number in range(18):
        fleet.run(
            "run", "busybox", "--name", f"app-{number}", *_SMALL, *on_it, "--", "sleep", "9999"
        )
    _until_all_run(fleet)
    print("placed:", Counter(item["host"]["name"] for item in fleet.json("list")))


def _until_all_run(fleet: Fleet) -> None:
    deadline = time.monotonic() + 240
    while True:
        items = fleet.json("list")
        rest = {
            item["name"]: (item["host"]["name"], item["status"]["state"], item["status"]["reason"])
            for item in items
            if item["status"]["state"] != "running"
        }
        if not rest and len(items) == 30:
            return
        assert time.monotonic() < deadline, (len(items), rest)
        time.sleep(1)


def _pings(fleet: Fleet) -> Counter[str]:
    return Counter(fleet.run("logs", "pinger").stdout.split())


def _drain(fleet: Fleet, host: LabHost) -> None:
    fleet.wait_until(lambda: _pings(fleet)["came"] > 0)
    before = _pings(fleet)
    began = {item["id"]: item["status"]["started_at"] for item in _vms_on(fleet, host)}
    fleet.run("host", "drain", host.name, "--timeout", str(_PATIENCE), timeout=_PATIENCE)
    assert fleet.host_state(host.name) == "maintenance"
    moved = {item["id"]: item["status"]["started_at"] for item in fleet.json("list")}
    assert {id: moved[id] for id in began} == began  # they were not started anew
    lost = _pings(fleet) - before
    ways = Counter(
        (one["mode"], one["source"]["name"], one["target"]["name"], one["phase"])
        for one in fleet.json("migration", "list", "--limit", "100")
    )
    print(f"pings during the drain: {dict(lost)}; moves by now: {dict(ways)}")
    assert lost["lost"] < lost["came"]
    _until_all_run(fleet)


def _vms_on(fleet: Fleet, host: LabHost) -> list[dict[str, dict[str, str]]]:
    return [
        item
        for item in fleet.json("list")
        if item["kind"] == "vm" and item["host"]["name"] == host.name
    ]


def _lose(fleet: Fleet, host: LabHost) -> None:
    begun = datetime.now(UTC)
    host.power_off()
    for name in ("kept", "kept-vm"):
        fleet.wait_until(lambda name=name: _is_elsewhere(fleet, name, host))  # type: ignore[misc]
    tell_times(fleet, begun)
    host.power_on()
    fleet.wait_until(lambda: fleet.host_state(host.name) == "ready")
    _until_all_run(fleet)


def _is_elsewhere(fleet: Fleet, name: str, host: LabHost) -> bool:
    shown = fleet.json("show", name)
    return shown["host"]["name"] != host.name and shown["status"]["state"] == "running"


def test_a_fleets_whole_life(fleet: Fleet, tmp_path: Path) -> None:
    _, second, third = fleet.lab.hosts()
    _enrol(fleet, tmp_path)
    _fill(fleet)
    _drain(fleet, third)
    fleet.run("host", "activate", third.name)
    _lose(fleet, second)
    known = ("-u", "root", "-i", str(fleet.lab.site.key))
    fleet.run("host", "upgrade", "--all", *known, timeout=_PATIENCE)
    _until_all_run(fleet)
    _drain(fleet, third)
    fleet.run("host", "remove", third.name, "--yes")
    fleet.wait_until(
        lambda: third.name not in [each["name"] for each in fleet.json("host", "list")]
    )
    _until_all_run(fleet)
