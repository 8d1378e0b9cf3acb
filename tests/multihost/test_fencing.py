"""A host hangs; its power is cut by a device that only other hosts reach."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.fence.bmc import PASSWORD, USER
from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.multihost.bmc import PORT, running_bmc
from tests.multihost.fleet import Fleet, running_fleet
from tests.multihost.test_failover import types_of_events, where
from tests.multihost.test_moving import pids

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_SECONDS = "84999"  # that the container sleeps, by which its process is known
# RFC 5737 sets 198.51.100.0/24 apart for documents: it is nobody's.
_MANAGEMENT, _BMC = "198.51.100.{}/24", "198.51.100.9"


def _operation(fleet: Fleet, verb: str) -> Any:
    return fleet.json("operations", "list", "--verb", verb)[0]


def _set(fleet: Fleet, host: LabHost, password: Path, via: str) -> None:
    fleet.run(
        "host", "fence", "set", host.name, "--agent", "redfish", "--address", _BMC,
        "--port", str(PORT), "--user", USER, "--password-file", str(password), "--no-verify",
        "--via", via,
    )  # fmt: skip


def test_power_is_cut_through_another_host(three: Lab, tmp_path: Path) -> None:
    first, second, third = three.hosts()
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    for number, host in enumerate((second, third), 2):
        host.run("ip", "address", "add", _MANAGEMENT.format(number), "dev", "eth0")
    second.run("ip", "address", "add", f"{_BMC}/24", "dev", "eth0")
    with (
        running_bmc(three, first, second, _BMC, tmp_path),
        running_fleet(three) as fleet,
    ):
        for host in three.hosts():
            fleet.join(host)
        # So that a fence device is what frees the workload, not the end of its lease.
        fleet.run("cluster", "edit", "default", "--ha-margin", "120")
        _set(fleet, first, password, third.name)
        fleet.run("host", "fence", "test", first.name)
        assert _operation(fleet, "fence_test")["message"] == f"bmc through host {third.name}: on"
        _set(fleet, first, password, "any")
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        for host in (second, third):
            fleet.run("host", "cordon", host.name)
        fleet.run("run", "busybox", "--name", "app1", "--ha", "--", "sleep", _SECONDS)
        for host in (second, third):
            fleet.run("host", "uncordon", host.name)
        begun = time.monotonic()
        first.hang()  # its workload stands still, and would go on
        fleet.wait_until(lambda: where(fleet, "app1")[0] != first.name)
        fleet.wait_until(lambda: where(fleet, "app1")[1] == "running")
        print(f"{_operation(fleet, 'fence')['message']}, after {time.monotonic() - begun:.1f} s")
        assert not first.is_on
        assert fleet.host_state(first.name) == "fenced"
        assert "host.fenced" in types_of_events(fleet)
        assert len(pids("sleep", _SECONDS)) == 1
        first.power_on()
        fleet.wait_until(lambda: fleet.host_state(first.name) == "ready")
        assert len(pids("sleep", _SECONDS)) == 1
