"""The host network adapter: brings the host to the networks that are desired."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from virtmgr.domain.errors import HostError, NetworkError
from virtmgr.domain.network import NetworkType, bridge_name, port_name, tunnel_name, vlan_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload
from virtmgr.drivers.network.bridges import Bridges
from virtmgr.drivers.network.container import connect_container
from virtmgr.drivers.network.dnsmasq import Dnsmasq
from virtmgr.drivers.network.facts import NetworkFacts, network_facts
from virtmgr.drivers.network.firewall import Firewall
from virtmgr.drivers.network.forwarding import elsewhere
from virtmgr.drivers.network.netlink import delete_link, device_index, netlink
from virtmgr.drivers.network.publications import (
    Publication,
    publications,
    routed_ids,
    unreachable,
    wanted,
)
from virtmgr.drivers.network.reservations import Reservations
from virtmgr.drivers.network.ruleset import ruleset
from virtmgr.drivers.network.tunnels import Tunnels
from virtmgr.drivers.network.vlans import Vlans
from virtmgr.drivers.sysctl import enable_forwarding

_PORT_PREFIX = port_name("0")[:3]
_TRUST = 30.0  # seconds after which the kernel is asked again whether a bridge is as it was made


class LinuxNetwork:
    """Implements ``ports.host.HostNetwork`` with netlink, nftables and dnsmasq.

    Bridges, tunnels and VLANs carry ``virtmgr:TABLE:ID`` as their alias: only those are removed.
    Forwarding, once switched on, stays on: others on the host may rely on it by then.
    """

    def __init__(
        self,
        *,
        run_directory: Path,
        table: str = "virtmgr",
        resolv_file: Path = Path("/etc/resolv.conf"),
    ) -> None:
        """Make an adapter; nothing on the host changes yet.

        :param run_directory: for dnsmasq's files, one directory a network.
        :param table: name of the nftables tables and mark of the bridges; one a manager.
        :param resolv_file: names the servers that guests' other questions go to.
        """
        self._directory = run_directory
        self._resolv_file = resolv_file
        self._lock = threading.Lock()
        self._links = Bridges(f"virtmgr:{table}:")
        self._tunnels = Tunnels(f"virtmgr:{table}:")
        self._vlans = Vlans(f"virtmgr:{table}:")
        self._table = table
        self._firewall = Firewall(table)
        self._reservations = Reservations()
        self._dnsmasq: dict[str, Dnsmasq] = {}
        self._networks: Mapping[str, DesiredNetwork] = {}
        self._seen: dict[str, _Seen] = {}

    def recover(self) -> None:
        """Find the dnsmasq processes of an earlier agent; forget what was believed in force."""
        with self._lock:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._firewall.forget()
            self._seen.clear()
            self._tunnels.forget()
            self._dnsmasq = {path.name: self._dnsmasq_of(path.name) for path in self._files()}

    def ensure(
        self, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
    ) -> None:
        """As the port says. One network that fails keeps no other one from its work."""
        networks, workloads = tuple(networks), tuple(workloads)
        problems = Problems()
        with self._lock:
            ensure_link = partial(self._ensure_link, workloads)
            usable = [e for e in networks if problems.attempt(e.id, ensure_link, e)]
            self._networks = {each.id: each for each in networks}
            self._ensure_firewall(networks, workloads)
            for network in usable:
                if network.is_routed:
                    dnsmasq = self._dnsmasq_of(network.id)
                    problems.attempt(network.id, dnsmasq.ensure, network)
            self._remove_others(each.id for each in networks if each.is_own)
        problems.raise_first()

    def port_conflicts(self, workloads: Iterable[DesiredWorkload]) -> dict[str, str]:
        """Workloads with a port that cannot be published, each with the reason, for people.

        Ports that are free are held for them until an ``ensure`` that does not have them. A
        port that cannot be published is left out by ``ensure``, and nothing else with it.
        """
        reachable = routed_ids(self._networks.values())
        found = {}
        with self._lock:
            for workload in workloads:
                why = unreachable(workload, reachable)
                refused = self._reservations.hold(wanted(workload, reachable))
                for publication, reason in refused.items():
                    why = why or f"port {publication} cannot be published: {reason}"
                if why is not None:
                    found[workload.id] = why
        return found

    def connect(self, nic: DesiredNic, pid: int) -> None:
        connect_container(nic, self.bridge_of(nic.network_id), pid)

    def disconnect(self, nic_id: str) -> None:
        self.remove_port(nic_id)

    def remove_port(self, nic_id: str) -> None:
        self._remove_device(port_name(nic_id))

    def ports(self) -> tuple[str, ...]:
        names = (name for _, name in socket.if_nameindex())
        return tuple(sorted(name for name in names if name.startswith(_PORT_PREFIX)))

    def bridge_of(self, network_id: str) -> str:
        """The bridge that a network's ports join on this host."""
        known = self._networks.get(network_id)
        return known.bridge if known is not None else bridge_name(network_id)

    def healthy(self) -> bool:
        """Whether every network's dnsmasq runs; ``ensure`` restarts those that do not."""
        return all(each.is_running() for each in tuple(self._dnsmasq.values()))

    def facts(self) -> NetworkFacts:
        """What this host has and can, for its fingerprint."""
        return network_facts()

    def remove_all(self) -> None:
        with self._lock:
            for name in self.ports():
                self._remove_device(name)
            self._remove_others(frozenset())
            self._firewall.remove()
            self._reservations.close()
            self._networks = {}
            self._seen.clear()
            self._tunnels.forget()
            if self._directory.exists():
                self._directory.rmdir()

    def close(self) -> None:
        """Give published ports' sockets back. Networks go on."""
        with self._lock:
            self._reservations.close()

    def _ensure_link(self, workloads: Sequence[DesiredWorkload], network: DesiredNetwork) -> None:
        if network.type is NetworkType.BRIDGE:
            self._links.check_host_bridge(network)
            return
        needed = network.model_copy(update={"names": elsewhere(network)})
        seen = self._seen.get(network.id)
        if seen is not None and seen.holds(needed):
            return
        self._links.ensure_own(network)
        nics = (nic for workload in workloads for nic in workload.nics)
        ports = [port_name(nic.id) for nic in nics if nic.network_id == network.id]
        self._links.join(network.bridge, ports)  # a bridge that is made again has none
        if network.type is NetworkType.OVERLAY:
            self._tunnels.ensure(network)
        if network.type is NetworkType.VLAN:
            self._vlans.ensure(network)
        else:
            enable_forwarding()
        self._seen[network.id] = _Seen(needed, _devices(network), time.monotonic())

    def _ensure_firewall(
        self, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
    ) -> None:
        networks, workloads = tuple(networks), tuple(workloads)
        asked = publications(networks, workloads)
        self._reservations.keep_only(asked)
        refused = self._reservations.hold(asked)
        published: list[Publication] = [each for each in asked if each not in refused]
        self._firewall.apply(ruleset(networks, workloads, published=published, table=self._table))

    def _remove_others(self, keep: Iterable[str]) -> None:
        """Take down every network of ours but these."""
        keep = frozenset(keep)
        for network_id in sorted({path.name for path in self._files()} - keep):
            self._dnsmasq_of(network_id).remove()
            self._dnsmasq.pop(network_id)
        known = [seen.network for id, seen in self._seen.items() if id in keep]
        tunnels = self._tunnels.own(unless={tunnel_name(each.id) for each in known})
        vlans = self._vlans.own(unless={vlan_name(each.id) for each in known})
        bridges = self._links.own(unless={each.bridge for each in known})
        for network_id, device in (*tunnels.items(), *vlans.items(), *bridges.items()):
            if network_id not in keep:
                self._remove_device(device)

    def _dnsmasq_of(self, network_id: str) -> Dnsmasq:
        if network_id not in self._dnsmasq:
            self._dnsmasq[network_id] = Dnsmasq(self._directory / network_id, self._resolv_file)
        return self._dnsmasq[network_id]

    def _files(self) -> list[Path]:
        return list(self._directory.iterdir()) if self._directory.exists() else []

    def _remove_device(self, name: str) -> None:
        with netlink(f"removing {name}") as ip:
            delete_link(ip, name)


@dataclass(frozen=True)
class _Seen:
    """What a network's devices were made for, and when that was so."""

    network: DesiredNetwork  # as far as its devices depend on it
    devices: tuple[int, ...]
    at: float

    def holds(self, network: DesiredNetwork) -> bool:
        """Whether the network's devices may be believed to be as they should."""
        recent = time.monotonic() - self.at < _TRUST
        return recent and self.network == network and self.devices == _devices(network)


def _devices(network: DesiredNetwork) -> tuple[int, ...]:
    names = (network.bridge, tunnel_name(network.id), vlan_name(network.id))
    return tuple(device_index(name) for name in names)


class Problems:
    """Failures of one network that must not keep the others from their work."""

    def __init__(self) -> None:
        self._failures: dict[str, HostError] = {}

    def attempt(
        self, network_id: str, work: Callable[[DesiredNetwork], None], network: DesiredNetwork
    ) -> bool:
        """Run ``work`` on the network; whether it succeeded."""
        try:
            work(network)
        except HostError as error:
            self._failures[network_id] = error
            return False
        return True

    def raise_first(self) -> None:
        """:raises NetworkError: the first; ``detail["networks"]`` has all of them by network id."""
        if not self._failures:
            return
        why = {
            network_id: {"code": error.code, "message": error.message, "hint": error.hint}
            for network_id, error in self._failures.items()
        }
        first = next(iter(self._failures.values()))
        raise NetworkError(
            first.message, code=first.code, hint=first.hint, detail={"networks": why}
        ) from first
