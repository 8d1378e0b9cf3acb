"""An overlay network between two hosts, with the whole product: two containers on each."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.plan import CONTROL_ADDRESS
from tests.multihost.fleet import Fleet, running_fleet
from virtmgr.drivers.network.namespace import in_namespace_of

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

_VXLAN = 4789
_INNER = 14 + 20 + 8 + 8  # where the frame within a frame of the underlay starts


def test_containers_on_two_hosts_are_on_one_network(whole_lab: Lab) -> None:
    first, _, third = whole_lab.hosts()  # both of the machine's release
    with running_fleet(whole_lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("network", "create", "far", "--type", "overlay",
                  "--ipv4", "10.91.0.0/24", "--ipv6", "fd00:91::/64")  # fmt: skip
        made = fleet.json("network", "show", "far")
        assert (made["mtu"], 0 < made["vni"] < 2**24) == (1450, True)
        for name, host in (("a1", first), ("a2", first), ("b1", third)):
            _run(fleet, name, host)
        _check_reach(fleet)

        with _frames(first) as frames:
            _check_reach(fleet)
            assert not _pings(fleet, "a1", "10.91.0.200")  # nobody's
            assert not _pings(fleet, "a1", "fd00:91::200")
        macs = {_mac(fleet, name) for name in ("a1", "a2", "b1")}
        assert {frame[:6] for frame in frames} <= macs  # neither broadcast nor unknown
        assert len(frames) > 0

        # Later members are known where earlier ones are, and those that went are not.
        _run(fleet, "b2", third)
        fleet.wait_until(lambda: _pings(fleet, "a1", "b2"))
        fleet.run("delete", "b2", "--yes")
        fleet.wait_until(lambda: not _resolves(fleet, "a1", "b2"))
        fleet.run("rename", "b1", "b9")
        fleet.wait_until(lambda: _pings(fleet, "a1", "b9"))
        fleet.run("rename", "b9", "b1")

        # Traffic does not need the agents.
        before = _from_inside(fleet, "a1")
        for host in (first, third):
            host.run("pkill", "-KILL", "-f", "virtmgr.agen[t]|virtmgr agen[t]")
        assert before("10.91.0.4")
        assert before("fd00:91::4")


def _run(fleet: Fleet, name: str, host: LabHost) -> None:
    fleet.run("run", "busybox", "--name", name, "--network", "far", "--require", "x=y", "sleep", "3000") \
        if False else fleet.run("run", "busybox", "--name", name, "--network", "far",
                                "--host", host.name, "sleep", "3000")  # fmt: skip
    fleet.wait_until(lambda: fleet.json("show", name)["status"]["state"] == "running")
