"""What dnsmasq reads: its settings, the names it answers, the leases it gives. Pure."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from virtmgr.domain.sync import DesiredNetwork, NetworkName

_LEASE = "1h"
_MOST_LEASES = 65536


def settings(network: DesiredNetwork, directory: Path, user: str, resolv_file: Path) -> str:
    """The configuration file (dnsmasq(8)); every value is of a checked type."""
    lines = [
        f"interface={network.bridge}",
        "except-interface=lo",
        "bind-dynamic",
        "no-hosts",
        f"resolv-file={resolv_file}",
        "domain-needed",
        "bogus-priv",
        "cache-size=1000",
        f"user={user}",
        f"pid-file={directory / 'dnsmasq.pid'}",
        f"addn-hosts={directory / 'hosts'}",
        f"dhcp-hostsfile={directory / 'dhcp-hosts'}",
        f"dhcp-leasefile={directory / 'leases'}",
        f"dhcp-lease-max={_MOST_LEASES}",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    ]
    if network.dns_domain:
        lines += [
            f"domain={network.dns_domain}",
            f"local=/{network.dns_domain}/",
            f"dhcp-option=option:domain-search,{network.dns_domain}",
            f"dhcp-option=option6:domain-search,{network.dns_domain}",
        ]
    return "\n".join([*lines, *_ranges(network)]) + "\n"


def _ranges(network: DesiredNetwork) -> list[str]:
    """Only known MACs get a lease; ``enable-ra`` tells VMs their router and to ask DHCPv6."""
    lines = [f"dhcp-option=option:mtu,{network.mtu}"]
    if network.ipv4 is not None:
        subnet = ip_network(network.ipv4, strict=False)
        lines.append(f"dhcp-range={subnet.network_address},static,{subnet.netmask},{_LEASE}")
    if network.ipv6 is not None:
        subnet6 = ip_network(network.ipv6, strict=False)
        lines += [
            f"dhcp-range={subnet6.network_address},static,{subnet6.prefixlen},{_LEASE}",
            "enable-ra",
            f"ra-param={network.bridge},mtu:{network.mtu},0,1800",
        ]
    return lines


def hosts(network: DesiredNetwork) -> str:
    """Names in the form of hosts(5)."""
    suffix = f".{network.dns_domain}" if network.dns_domain else ""
    return "".join(
        f"{address} {name.name}{suffix}\n"
        for name in network.names
        for address in (name.ipv4, None if name.asks_dhcp else name.ipv6)
        if address is not None
    )


def dhcp_hosts(network: DesiredNetwork) -> str:
    """Fixed leases in the form of dnsmasq's ``dhcp-host``."""
    return "".join(f"{_dhcp_host(name)}\n" for name in network.names)


def _dhcp_host(name: NetworkName) -> str:
    parts = [name.mac]
    parts += [name.ipv4] if name.ipv4 is not None else []
    parts += [f"[{name.ipv6}]"] if name.ipv6 is not None else []
    return ",".join((*parts, name.name))


def without_stale(leases: str, known: str, network: DesiredNetwork) -> str:
    """The lease file's text without leases of addresses that have a new owner or none.

    dnsmasq would keep such an address from its new owner until the lease runs out.

    :param leases: the lease file: ``expiry MAC-or-IAID address name client-id`` a line.
    :param known: the ``dhcp-hosts`` text that the leases were given by.
    """
    before = _owners(known)
    after = _owners(dhcp_hosts(network))
    return "".join(
        line
        for line in leases.splitlines(keepends=True)
        if not _is_stale(line.split(), before, after)
    )


def _owners(text: str) -> dict[str, str]:
    """Address to MAC, from a ``dhcp-hosts`` text."""
    found = {}
    for line in text.splitlines():
        mac, *rest = line.split(",")
        found.update({address.strip("[]"): mac for address in rest[:-1]})
    return found


def _is_stale(parts: list[str], before: dict[str, str], after: dict[str, str]) -> bool:
    if len(parts) < 4:  # dnsmasq's own DUID: "duid 00:01:…"
        return False
    holder, address = parts[1], parts[2]
    owner = after.get(address)
    if ":" in holder and ":" not in address:  # DHCPv4 leases name the MAC
        return owner is None or owner.lower() != holder.lower()
    return owner is None or before.get(address, owner) != owner
