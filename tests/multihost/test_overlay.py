"""An overlay network between two hosts, with the whole product: containers on both are on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.lab.fleet import Lab
from tests.lab.host import LabHost
from tests.lab.network import port
from tests.lab.plan import CONTROL_ADDRESS
from tests.multihost.fleet import Fleet, running_fleet

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

# Prints "ready", then the target of each frame that is within a VXLAN frame on a device.
_SNIFFER = """
import socket, struct, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind((sys.argv[1], 3))
print("ready", flush=True)
while True:
    frame = raw.recv(9000)
    if frame[12:14] == b"\\x08\\x00" and frame[23] == 17 and frame[36:38] == b"\\x12\\xb5":
        print(frame[50:56].hex(":"), flush=True)
"""


def test_containers_on_two_hosts_are_on_one_network(whole_lab: Lab) -> None:
    first, _, third = whole_lab.hosts()  # both of the machine's release
    with running_fleet(whole_lab) as fleet:
        for host in (first, third):
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        cidrs = ("--ipv4", "10.91.0.0/24", "--ipv6", "fd00:91::/64")
        fleet.run("network", "create", "far", "--type", "overlay", *cidrs)
        assert fleet.json("network", "show", "far")["mtu"] == 1450
        for name, host in (("a1", first), ("a2", first), ("b1", third)):
            start(fleet, name, host)

        with frames_to(fleet, first) as targets:
            fleet.wait_until(lambda: pings(fleet, "a1", "b1.far.virt"))
            fleet.wait_until(lambda: pings(fleet, "b1", "a2.far.virt"))
            for source, *addresses in (
                ("a1", "10.91.0.4", "fd00:91::4", "10.91.0.3", "10.91.0.1", "fd00:91::1"),
                ("b1", "10.91.0.2", "fd00:91::2", "10.91.0.1", "fd00:91::1"),
            ):
                for address in (*addresses, CONTROL_ADDRESS):  # which is outside
                    assert pings(fleet, source, address), (source, address)
            for nobodys in ("10.91.0.99", "fd00:91::99", "10.91.0.255"):
                assert not pings(fleet, "a1", nobodys)
        members = {mac(fleet, name) for name in ("a1", "a2", "b1")}
        assert targets
        assert set(targets) <= members  # no broadcast, no multicast, nobody unknown

        # Who comes, goes or changes its name later is known on the other host too.
        start(fleet, "b2", third)
        fleet.wait_until(lambda: pings(fleet, "a1", "b2.far.virt"))
        fleet.run("delete", "b2", "--yes")
        fleet.wait_until(lambda: "b2" not in known_names(first))
        fleet.run("rename", "b1", "b9")
        fleet.wait_until(lambda: pings(fleet, "a1", "b9.far.virt"))

        # Who moves takes its addresses along, and is found at its new host.
        fleet.run("host", "cordon", third.name)
        fleet.run("run", "busybox", "--name", "m1", "--network", "far", "sleep", "9500")
        fleet.run("host", "uncordon", third.name)
        addresses = fleet.json("get", "m1")["nics"][0]["addresses"]
        fleet.wait_until(lambda: pings(fleet, "b9", addresses[0]))
        fleet.run("move", "m1", "--to", third.name)
        moved = fleet.json("get", "m1")
        assert (moved["host"]["name"], moved["nics"][0]["addresses"]) == (third.name, addresses)
        for source in ("a1", "b9"):
            for address in addresses:
                fleet.wait_until(partial(pings, fleet, source, address))
        for target in ("10.91.0.2", "10.91.0.1", "a2.far.virt", CONTROL_ADDRESS):
            fleet.wait_until(partial(pings, fleet, "m1", target))

        # Frames pass without agents.
        a1 = first.run("pgrep", "-x", "-f", "sleep 9001").stdout.split()[0]
        for host in (first, third):
            host.run("chmod", "-x", "/etc/virtmgr-lab/services/agent")
            host.run("pkill", "-KILL", "-f", "bin/virtmgr agent")
        for address in ("10.91.0.4", "fd00:91::4", "10.91.0.1", CONTROL_ADDRESS):
            ping = ("/bin/busybox", "ping", "-c", "1", "-W", "2", address)
            first.run("nsenter", "--target", a1, "--net", "--mount", *ping)
        for host in (first, third):
            host.run("chmod", "+x", "/etc/virtmgr-lab/services/agent")
        fleet.wait_until(lambda: pings(fleet, "a1", "b9.far.virt"))


def test_a_host_without_a_tunnel_takes_no_workload_of_an_overlay(whole_lab: Lab) -> None:
    first, _, _ = whole_lab.hosts()
    with running_fleet(whole_lab) as fleet:
        fleet.join(first, "--tunnel-address", "192.0.2.1")  # which it does not have
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        fleet.run("network", "create", "far", "--type", "overlay", "--ipv4", "10.91.0.0/24")
        refused = fleet.run("run", "busybox", "--network", "far", "sleep", "9", check=False)
        assert refused.returncode != 0
        assert "no tunnel" in refused.stderr
        fleet.run("run", "busybox", "--name", "here", "sleep", "9000")
        refused = fleet.run("attach-nic", "here", "far", check=False)
        assert "no network device of this host has the address 192.0.2.1" in refused.stderr


def start(fleet: Fleet, name: str, host: LabHost) -> None:
    """A container on the overlay; the time that it sleeps for tells its process."""
    seconds = str(9000 + int(name[1:]))
    fleet.run("run", "busybox", "--name", name, "--network", "far", "--host", host.name,
              "sleep", seconds)  # fmt: skip


def pings(fleet: Fleet, name: str, target: str) -> bool:
    ping = ("exec", name, "--", "ping", "-c", "1", "-W", "2", target)
    return fleet.run(*ping, check=False).returncode == 0


def mac(fleet: Fleet, name: str) -> str:
    return str(fleet.json("get", name)["nics"][0]["mac"])


def known_names(host: LabHost) -> str:
    """What the DNS of the host's networks answers."""
    return host.run("sh", "-c", "cat /run/virtmgr-agent/network/*/hosts").stdout


@contextmanager
def frames_to(fleet: Fleet, host: LabHost) -> Iterator[list[str]]:
    """The MACs that frames in VXLAN frames on the host's cable are for."""
    targets: list[str] = []
    command = fleet.lab.attached(sys.executable, "-c", _SNIFFER, port(host.name))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        try:
            yield targets
        finally:
            sniffer.terminate()
            targets += sniffer.stdout.read().split()
