"""virtmgr on several hosts: they join, run workloads, lose their power and come back."""

from __future__ import annotations

import os

import pytest

from tests.lab.fleet import Lab
from tests.multihost.fleet import running_fleet

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]


def test_a_host_that_loses_its_power_is_unreachable_and_comes_back(whole_lab: Lab) -> None:
    first, _, third = whole_lab.hosts()  # both of the machine's release
    with running_fleet(whole_lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("host", "cordon", third.name)
        fleet.run("run", "busybox", "--name", "app1", "sleep", "1000")
        fleet.run("host", "uncordon", third.name)
        fleet.run("host", "cordon", first.name)
        fleet.run("run", "busybox", "--name", "app2", "sleep", "1000")
        fleet.run("host", "uncordon", first.name)

        def states() -> dict[str, str]:
            return {each["host"]["name"]: each["status"]["state"] for each in fleet.json("list")}

        fleet.wait_until(lambda: states() == {first.name: "running", third.name: "running"})

        first.power_off()
        fleet.wait_until(lambda: fleet.host_state(first.name) == "unreachable")
        assert states() == {first.name: "unknown", third.name: "running"}

        first.power_on()
        fleet.wait_until(lambda: fleet.host_state(first.name) == "ready")
        fleet.wait_until(lambda: states() == {first.name: "running", third.name: "running"})
