"""The lab's network: a bridge in a namespace of its own, one port a host, and faults on the ports.

The namespace is the switch, and the control plane's place in the network. ``wire`` between a port
and the bridge makes it slow or lossy; rules of nftables cut hosts off.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tests.lab.kernel import Process, checked, in_network
from tests.lab.plan import CONTROL, CONTROL_ADDRESS, EVERYTHING, NETWORK_PREFIX, HostPlan
from tests.lab.state import HostState

BRIDGE = "br0"
UPLINK = "up0"


def port(name: str) -> str:
    """The switch's end of a host's cable."""
    return f"p-{name}"


def wire_ends(name: str) -> tuple[str, str]:
    """The TAP devices of a slow wire: towards the host, and towards the bridge."""
    return f"a-{name}", f"b-{name}"


def _middle(name: str) -> str:
    return f"m-{name}"


def ip(switch: Process, *lines: str) -> None:
    """Several commands of ip(8) in one go."""
    checked(in_network(switch, ["ip", "-batch", "-"]), "\n".join(lines) + "\n")


def make_switch(switch: Process) -> None:
    """The bridge, and the control plane's address on it."""
    ip(
        switch,
        "link set lo up",
        # a fixed address: else the bridge takes that of a port, and changes it with the ports
        f"link add {BRIDGE} address 02:76:6d:00:01:00 type bridge forward_delay 0",
        f"link set {BRIDGE} up",
        f"addr add {CONTROL_ADDRESS}/{NETWORK_PREFIX} dev {BRIDGE}",
    )


def route_to_uplink(switch: Process) -> None:
    """Hosts reach by the uplink what the machine reaches."""
    checked(in_network(switch, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]))
    rules = (
        "table ip uplink\ndelete table ip uplink\ntable ip uplink {\n"
        "  chain leave {\n    type nat hook postrouting priority srcnat;\n"
        f'    oifname "{UPLINK}" masquerade\n  }}\n}}\n'
    )
    checked(in_network(switch, ["nft", "-f", "-"]), rules)


def plug_in(switch: Process, plan: HostPlan, host: Process) -> None:
    """Lay a cable from the bridge to ``eth0`` of a host that has none, and configure it."""
    ip(
        switch,
        f"link add {port(plan.name)} type veth"
        f" peer name eth0 address {plan.mac} netns {host.namespace('net')}",
        f"link set {port(plan.name)} master {BRIDGE} up",
    )
    ip(
        host,
        "link set lo up",
        f"addr add {plan.address}/{NETWORK_PREFIX} dev eth0",
        "link set eth0 up",
        f"route add default via {CONTROL_ADDRESS}",
    )


def unplug(switch: Process, name: str) -> None:
    """Take the cable away, so that nothing which ends on the host can say so. Safe to repeat."""
    there = _links(switch)
    gone = [link for link in (port(name), _middle(name)) if link in there]
    if gone:
        ip(
            switch,
            *(f"link set {link} down" for link in gone),
            *(f"link delete {link}" for link in gone),
        )


def _links(process: Process) -> set[str]:
    lines = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines}


def insert_wire(switch: Process, name: str) -> None:
    """Lead the port's frames through the wire, whose ends are there, instead of to the bridge."""
    near, far = wire_ends(name)
    ip(
        switch,
        f"link add {_middle(name)} type bridge forward_delay 0",
        # It must not answer for the control plane's address, which is in the same namespace.
        f"link set {_middle(name)} arp off addrgenmode none",
        f"link set {_middle(name)} up",
        f"link set {near} master {_middle(name)} up",
        f"link set {far} master {BRIDGE} up",
        f"link set {port(name)} master {_middle(name)}",
    )


def remove_wire(switch: Process, name: str) -> None:
    """Let the port be the bridge's own again. Safe to repeat."""
    if _middle(name) in _links(switch):
        ip(
            switch,
            f"link set {port(name)} master {BRIDGE}",
            f"link delete {_middle(name)}",
        )


def partition_rules(hosts: Iterable[HostState]) -> str:
    """The rules of nftables by which hosts are cut off from each other; pure.

    A cut is one of frames, both ways, ARP included; carriers stay up, as with a broken switch.
    """
    forward: list[str] = []
    to_control: list[str] = []
    from_control: list[str] = []
    for host in hosts:
        name = host.plan.name
        here = _ports(name)
        for peer in sorted(host.cut_from):
            if peer == EVERYTHING:
                forward += [f"iifname {here} drop", f"oifname {here} drop"]
            elif peer != CONTROL:
                there = _ports(peer)
                forward += [
                    f"iifname {here} oifname {there} drop",
                    f"iifname {there} oifname {here} drop",
                ]
            if peer in (EVERYTHING, CONTROL):
                to_control.append(f"iifname {here} drop")
                from_control.append(f"oifname {here} drop")
    chains = {"forward": forward, "input": to_control, "output": from_control}
    body = "".join(
        f"  chain {hook} {{\n    type filter hook {hook} priority 0;\n"
        + "".join(f"    {rule}\n" for rule in rules)
        + "  }\n"
        for hook, rules in chains.items()
    )
    table = "table bridge partitions"
    return f"{table}\ndelete {table}\n{table} {{\n{body}}}\n"


def _ports(name: str) -> str:
    # The bridge sees a host that has a slow wire at the wire's far end.
    return f'{{ "{port(name)}", "{wire_ends(name)[1]}" }}'


def partition(switch: Process, hosts: Iterable[HostState]) -> None:
    """Cut off who is to be, at once and together."""
    checked(in_network(switch, ["nft", "-f", "-"]), partition_rules(hosts))
