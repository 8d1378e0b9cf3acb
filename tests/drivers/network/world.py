"""Desired things to test with, and guests that are a process in a network namespace."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from virtmgr.domain.ids import new_id
from virtmgr.domain.network import NetworkType, bridge_name, gateway, mac_address
from virtmgr.domain.sync import DesiredNetwork, DesiredNic, DesiredWorkload, NetworkName
from virtmgr.domain.workload import Init, Kind, Port, PowerState, WorkloadSpec
from virtmgr.drivers.network.namespace import in_namespace_of

TABLE = "virtmgr-test"


def nat_network(name: str = "blue", octet: int = 71, *, id: str = "") -> DesiredNetwork:
    id = id or new_id()
    ipv4, ipv6 = f"10.{octet}.0.0/16", f"fd00:{octet}::/64"
    return DesiredNetwork(
        id=id,
        name=name,
        type=NetworkType.NAT,
        bridge=bridge_name(id),
        ipv4=ipv4,
        ipv6=ipv6,
        gateway4=gateway(ipv4),
        gateway6=gateway(ipv6),
        dns_domain=f"{name}.virt",
    )


def nic_on(
    network: DesiredNetwork, host: int, *, index: int = 0, id: str = "", known: bool = True
) -> DesiredNic:
    """A NIC with the network's address number ``host``; without addresses unless ``known``."""
    id = id or new_id()
    base4, base6 = network.ipv4, network.ipv6
    return DesiredNic(
        id=id,
        index=index,
        network_id=network.id,
        mac=mac_address(id),
        ipv4=base4.replace("0.0/", f"0.{host}/") if base4 and known else None,
        ipv6=base6.replace("::/", f"::{host:x}/") if base6 and known else None,
        gateway4=network.gateway4,
        gateway6=network.gateway6,
        dns_domain=network.dns_domain,
        mtu=network.mtu,
    )


def workload(
    name: str,
    *nics: DesiredNic,
    ports: tuple[Port, ...] = (),
    state: PowerState = PowerState.RUNNING,
    id: str = "",
) -> DesiredWorkload:
    return DesiredWorkload(
        id=id or new_id(),
        project="default",
        name=name,
        kind=Kind.CONTAINER,
        init=Init.APP,
        generation=1,
        revision=1,
        spec=WorkloadSpec(name=name, kind=Kind.CONTAINER, image="any", ports=ports),
        state=state,
        nics=nics,
    )


def with_names(network: DesiredNetwork, *workloads: DesiredWorkload) -> DesiredNetwork:
    """The network with the names of these workloads' NICs on it."""
    names = tuple(
        NetworkName(name=each.name, mac=nic.mac, ipv4=plain(nic.ipv4), ipv6=plain(nic.ipv6))
        for each in workloads
        for nic in each.nics
        if nic.network_id == network.id
    )
    return network.model_copy(update={"names": names})


def plain(address: str | None) -> str | None:
    return address.split("/")[0] if address else None


def run(*command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


class Guest:
    """A process that sleeps in a network namespace of its own."""

    def __init__(self) -> None:
        own = Path("/proc/thread-self/ns/net").readlink()
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._children: list[subprocess.Popen[bytes]] = []
        eventually(lambda: Path(f"/proc/{self.pid}/ns/net").readlink() != own)
        eventually(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "sleep\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run("nsenter", f"--net=/proc/{self.pid}/ns/net", *command)

    def pings(self, address: str) -> bool:
        return self.run("ping", "-c1", "-W1", address).returncode == 0

    def reaches(self, address: str) -> bool:
        """The same for an address that is to answer: a busy machine may lose the first one."""
        return any(self.pings(address) for _ in range(10))

    def serve(self, directory: Path, port: int, text: str) -> None:
        """Answer HTTP on every address with a page that holds ``text``."""
        directory.mkdir()
        (directory / "index.html").write_text(text)
        self._start("busybox", "httpd", "-f", "-p", f"[::]:{port}", "-h", str(directory))
        eventually(lambda: f":{port} " in self.run("ss", "-Hltn").stdout)

    def echo_udp(self, port: int) -> None:
        self._start("socat", f"UDP4-LISTEN:{port},fork", "EXEC:cat")
        eventually(lambda: f":{port} " in self.run("ss", "-Hlun").stdout)

    def inside(self, work: Callable[[], None]) -> None:
        in_namespace_of(self.pid, work)

    def packet_socket(self) -> socket.socket:
        """A socket that sends and sees raw Ethernet frames on the guest's eth0."""
        found: list[socket.socket] = []

        def open_it() -> None:
            every_protocol = 3  # ETH_P_ALL
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(every_protocol))
            raw.bind(("eth0", every_protocol))
            raw.settimeout(0.3)
            found.append(raw)

        self.inside(open_it)
        return found[0]

    def close(self) -> None:
        for process in (*self._children, self._process):
            process.kill()
            process.wait()

    def _start(self, *command: str) -> None:
        enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        self._children.append(subprocess.Popen([*enter, *command]))


def eventually(condition: Callable[[], bool], *, patience: float = 10.0) -> None:
    """Wait until ``condition`` holds; fail after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def fetch(url: str) -> str:
    """The page, or the empty string where there is none within two seconds."""
    return run("curl", "-gsm2", url).stdout


@contextlib.contextmanager
def closing_all(*sockets: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for each in sockets:
            each.close()
