"""The host network adapter: brings the host to the networks that are desired."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from virtmgr.domain.errors import HostError, NetworkError, Unsupported
from virtmgr.domain.network import NetworkType, bridge_name, port_name
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload
from virtmgr.drivers.network import tools
from virtmgr.drivers.network.dnsmasq import Dnsmasq
from virtmgr.drivers.network.links import Links
from virtmgr.drivers.network.ruleset import removal, ruleset


class LinuxNetwork:
    """Implements ``ports.host.HostNetwork``.

    Bridges carry ``virtmgr:TABLE:ID`` as their alias: only those are ever removed.
    """

    def __init__(self, *, run_directory: Path, table: str = "virtmgr") -> None:
        self._directory = run_directory
        self._table = table
        self._links = Links()
        self._lock = threading.Lock()
        self._bridges: dict[str, str] = {}
        self._applied = ""  # digest of the firewall that is in force

    def recover(self) -> None:
        """Forget what was applied, so that the next ``ensure`` looks at everything."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._applied = ""

    def ensure(
        self, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
    ) -> None:
        """Each network by itself: one that cannot be had keeps no other from being there.

        The error's ``detail["networks"]`` then says which failed, and why.
        """
        wanted, running = tuple(networks), tuple(workloads)
        with self._lock, _netlink_errors("setting up this host's networks"):
            failed = _try_each(wanted, self._ensure_link)
            self._ensure_firewall(wanted, running)
            linked = [network for network in wanted if network.id not in failed]
            failed |= _try_each(linked, self._ensure_names)
            self._remove_all_but({network.id for network in wanted})
        if failed:
            first = next(iter(failed.values()))
            why = {
                id: {"code": error.code, "message": error.message, "hint": error.hint}
                for id, error in failed.items()
            }
            raise NetworkError(
                first.message, code=first.code, hint=first.hint, detail={"networks": why}
            ) from first

    def connect(self, nic: DesiredNic, pid: int) -> None:
        with _netlink_errors(f"connecting eth{nic.index} of process {pid}"):
            self._links.connect(nic, self.bridge_of(nic.network_id), pid)

    def disconnect(self, nic_id: str) -> None:
        self.remove_port(nic_id)

    def remove_port(self, nic_id: str) -> None:
        name = port_name(nic_id)
        with _netlink_errors(f"removing {name}"):
            self._links.remove(name)

    def ports(self) -> tuple[str, ...]:
        return self._links.names("vmp")

    def bridge_of(self, network_id: str) -> str:
        """The bridge that a network's ports join on this host."""
        return self._bridges.get(network_id, bridge_name(network_id))

    def remove_all(self) -> None:
        with self._lock, _netlink_errors("removing this host's networks"):
            self._remove_all_but(set())
            for name in self._links.names("vmp"):
                self._links.remove(name)
            tools.apply(removal(self._table))
            self._applied = ""

    def close(self) -> None:
        self._links.close()

    def _ensure_link(self, network: DesiredNetwork) -> None:
        if network.type is NetworkType.OVERLAY:
            raise Unsupported(
                f"network {network.name!r}: this version has no overlay networks",
                hint="use a nat or bridge network",
            )
        if network.type is NetworkType.NAT:
            self._links.ensure_bridge(network, f"{self._mark}{network.id}")
        elif self._links.index(network.bridge) is None:
            raise NetworkError(
                f"network {network.name!r} joins bridge {network.bridge}, which this host lacks",
                code="bridge_missing",
                hint=f"make it ('ip link add {network.bridge} type bridge'), or place the "
                "workload on a host that has it",
            )
        self._bridges[network.id] = network.bridge

    def _ensure_names(self, network: DesiredNetwork) -> None:
        if network.type is NetworkType.NAT:
            Dnsmasq(self._directory, network.id).ensure(network)

    def _ensure_firewall(
        self, networks: tuple[DesiredNetwork, ...], workloads: tuple[DesiredWorkload, ...]
    ) -> None:
        commands = ruleset(networks, workloads, self._table)
        digest = hashlib.sha256(json.dumps(commands, sort_keys=True).encode()).hexdigest()
        if digest == self._applied and tools.tables(self._table):
            return
        tools.apply(commands)
        self._applied = digest

    def _remove_all_but(self, keep: set[str]) -> None:
        for name, alias in self._links.aliases(self._mark).items():
            network_id = alias.removeprefix(self._mark)
            if network_id not in keep:
                Dnsmasq(self._directory, network_id).remove()
                self._links.remove(name)
                self._bridges.pop(network_id, None)

    @property
    def _mark(self) -> str:
        return f"virtmgr:{self._table}:"


def _try_each(
    networks: Iterable[DesiredNetwork], work: Callable[[DesiredNetwork], None]
) -> dict[str, HostError]:
    """``work`` for every network; those that failed, by id, with their errors."""
    failed: dict[str, HostError] = {}
    for network in networks:
        try:
            with _netlink_errors(f"setting up network {network.name!r}"):
                work(network)
        except HostError as error:
            failed[network.id] = error
    return failed


@contextmanager
def _netlink_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise NetworkError(f"{what} failed: {error}", hint="see the agent's log") from error
