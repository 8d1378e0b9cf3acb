"""DHCP and DNS of one network by dnsmasq: fixed leases for known MACs, names of workloads.

The process outlives the agent. Names and leases are files that it reads again at SIGHUP.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import time
from pathlib import Path

from virtmgr.domain.errors import NetworkError
from virtmgr.domain.sync import DesiredNetwork
from virtmgr.drivers.network import tools

_USER = "nobody"
_STOP_SECONDS = 5.0


class Dnsmasq:
    """One network's dnsmasq, with its files in a directory of its own."""

    def __init__(self, directory: Path, network_id: str) -> None:
        self._directory = directory / network_id
        self._configuration = self._directory / "dnsmasq.conf"
        self._hosts = self._directory / "hosts"
        self._leases = self._directory / "dhcp-hosts"
        self._pid_file = self._directory / "dnsmasq.pid"

    def ensure(self, network: DesiredNetwork) -> None:
        """Let it run with the network's settings and names."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        state = self._directory / "state"
        state.mkdir(exist_ok=True)
        shutil.chown(state, _USER)
        renamed = _write(self._hosts, hosts_file(network))
        renamed |= _write(self._leases, leases_file(network))
        changed = _write(self._configuration, self._settings(network))
        pid = self.pid()
        if pid is not None and changed:
            self.stop()
            pid = None
        if pid is None:
            tools.start_dnsmasq(str(self._configuration), network.bridge)
        elif renamed:
            os.kill(pid, signal.SIGHUP)

    def pid(self) -> int | None:
        """The pid of our own dnsmasq, if it runs."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        ours = f"--conf-file={self._configuration}".encode()
        return pid if ours in command else None

    def stop(self) -> None:
        """End it and wait until it has ended."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self.pid() is not None:
            if time.monotonic() > deadline:
                raise NetworkError(f"dnsmasq (pid {pid}) does not end", hint="see 'ps' on the host")
            time.sleep(0.01)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _settings(self, network: DesiredNetwork) -> str:
        """The configuration file (dnsmasq(8)); every value comes from checked types."""
        lines = [
            f"interface={network.bridge}",
            "except-interface=lo",
            "bind-interfaces",
            "no-hosts",
            "domain-needed",
            "bogus-priv",
            "dhcp-authoritative",
            "dhcp-ignore=tag:!known",
            f"user={_USER}",
            f"pid-file={self._pid_file}",
            f"addn-hosts={self._hosts}",
            f"dhcp-hostsfile={self._leases}",
            f"dhcp-leasefile={self._directory / 'state' / 'leases'}",
            f"domain={network.dns_domain}",
            f"local=/{network.dns_domain}/",
            f"dhcp-option=option:mtu,{network.mtu}",
            f"dhcp-option=option:domain-search,{network.dns_domain}",
        ]
        if network.ipv4 is not None:
            v4 = ipaddress.ip_network(network.ipv4)
            lines.append(f"dhcp-range={v4.network_address},static,{v4.netmask},infinite")
        if network.ipv6 is not None:
            v6 = ipaddress.ip_network(network.ipv6)
            lines += [f"dhcp-range={v6.network_address},static,{v6.prefixlen}", "enable-ra"]
        return "\n".join(lines) + "\n"


def hosts_file(network: DesiredNetwork) -> str:
    """Names in the form of hosts(5)."""
    lines = []
    gateways = (network.gateway4, network.gateway6)
    lines += [f"{address} gateway.{network.dns_domain}" for address in gateways if address]
    for name in network.names:
        for address in (name.ipv4, None if name.asks_dhcp else name.ipv6):
            if address is not None:
                lines.append(f"{address} {name.name}.{network.dns_domain} {name.name}")
    return "\n".join(lines) + "\n"


def leases_file(network: DesiredNetwork) -> str:
    """Fixed leases in the form of dnsmasq's ``dhcp-host``."""
    lines = []
    for name in network.names:
        parts = [name.mac]
        parts += [name.ipv4] if name.ipv4 is not None else []
        parts += [f"[{name.ipv6}]"] if name.ipv6 is not None else []
        lines.append(",".join((*parts, name.name)))
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> bool:
    """Replace the file if its content differs; whether it did."""
    if path.exists() and path.read_text() == text:
        return False
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(path)
    return True
