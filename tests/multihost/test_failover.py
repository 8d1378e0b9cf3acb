"""A host loses its power: its highly available workloads run elsewhere, and never twice."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from tests.lab.fleet import Lab
from tests.multihost.fleet import Fleet, running_fleet
from tests.multihost.test_moving import pids, watch

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_ALIVE = "86399"  # seconds that the container sleeps, by which its process is known


def where(fleet: Fleet, name: str) -> tuple[str, str]:
    shown = fleet.json("show", name)
    return shown["host"]["name"], shown["status"]["state"]


def types_of_events(fleet: Fleet) -> list[str]:
    return [event["type"] for event in fleet.json("events", "--limit", "500")]


def tell_times(fleet: Fleet, begun: datetime) -> None:
    """What happened how long after the power was cut, by the event log."""
    for event in sorted(fleet.json("events", "--limit", "500"), key=lambda e: int(e["sequence"])):
        after = (datetime.fromisoformat(event["at"]) - begun).total_seconds()
        if after > 0:
            print(f"{after:5.1f} s {event['type']} {event['target']['name']}: {event['message']}")


def test_power_is_lost_and_comes_back(whole_lab: Lab) -> None:
    first, _, third = whole_lab.hosts()  # both of the machine's release
    with running_fleet(whole_lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("image", "build", "busybox", "--name", "busybox-vm", "--kind", "vm")
        fleet.run("host", "cordon", third.name)
        fleet.run("run", "busybox", "--name", "app1", "--ha", "--", "sleep", _ALIVE)
        fleet.run("run", "busybox", "--name", "app2", "--", "sleep", "86398")
        fleet.run("create", "vm1", "--kind", "vm", "--image", "busybox-vm", "--memory", "128MiB",
                  "--ha", "--ha-priority", "5", timeout=200)  # fmt: skip
        fleet.run("host", "uncordon", third.name)
        with watch() as watched:
            begun = datetime.now(UTC)
            first.power_off()
            for name in ("app1", "vm1"):
                fleet.wait_until(lambda name=name: where(fleet, name) == (third.name, "running"))
            tell_times(fleet, begun)
            assert where(fleet, "app2") == (first.name, "unknown")
            first.power_on()
            fleet.wait_until(lambda: where(fleet, "app2") == (first.name, "running"))
            fleet.wait_until(
                lambda: fleet.json("host", "show", first.name)["claimed"]["vcpus"] == 1  # app2's
            )
            assert "workload.failed_over" in types_of_events(fleet)
            assert watched.most == 1
            assert len(pids("sleep", _ALIVE)) == 1


def test_an_operator_lets_a_volume_behind(whole_lab: Lab) -> None:
    """It starts without, and both come together again where the volume is."""
    first, _, third = whole_lab.hosts()  # both of the machine's release
    with running_fleet(whole_lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("volume", "create", "data", "--size", "16MiB")
        fleet.run("host", "cordon", third.name)
        fleet.run("run", "busybox", "--name", "app1", "--ha", "--volume", "data:/data",
                  "--", "sleep", _ALIVE)  # fmt: skip
        fleet.run("exec", "app1", "--", "sh", "-c", "echo kept >/data/file; sync")
        fleet.run("host", "uncordon", third.name)
        with watch() as watched:
            first.power_off()
            fleet.wait_until(lambda: _waits_for(fleet) == "local_volumes")
            fleet.run("host", "confirm-off", first.name, "--without-volumes", "--yes")
            fleet.wait_until(lambda: where(fleet, "app1") == (third.name, "running"))
            assert fleet.json("show", "app1")["spec"]["volumes"] == []
            assert fleet.run("exec", "app1", "--", "ls", "/data", check=False).returncode != 0
            first.power_on()
            fleet.wait_until(lambda: fleet.json("failover", "list")[0]["phase"] == "done")
            assert fleet.json("volume", "show", "data")["host"]["name"] == first.name
            fleet.run("move", "app1", "--to", first.name)
            fleet.run("volume", "attach", "app1", "data:/data")
            fleet.run("restart", "app1")
            assert fleet.run("exec", "app1", "--", "cat", "/data/file").stdout == "kept\n"
            assert watched.most == 1


def _waits_for(fleet: Fleet) -> str:
    found = fleet.json("failover", "list")
    return str(found[0]["code"]) if found else ""
