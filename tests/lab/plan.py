"""What a host of the lab is to be: names, addresses, files. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

# RFC 2544 sets 198.18.0.0/15 apart for test beds: no machine's own network is there.
NETWORK_PREFIX = 24
CONTROL_ADDRESS = "198.18.0.1"
UPLINK_CIDR = "198.18.1.0/24"
UPLINK_RESOLVER = "198.18.1.3"
MAX_HOSTS = 200

EVERYTHING = "*"
"""All peers, where peers are named."""
CONTROL = "control"
"""What the control plane's side of the lab's network is called where peers are named."""

ADMINISTRATOR = "operator"
"""May become root by sudo with a password."""
AUTOMATION = "automation"
"""May become root by sudo without one."""


class Release(StrEnum):
    """A Debian release, by its number."""

    BOOKWORM = "12"
    TRIXIE = "13"

    @property
    def suite(self) -> str:
        return {"12": "bookworm", "13": "trixie"}[self.value]


class Flavour(StrEnum):
    """``bare``: a plain Debian with sshd, to be enrolled. ``prepared``: with what hosts need."""

    BARE = "bare"
    PREPARED = "prepared"


@dataclass(frozen=True)
class HostPlan:
    """One host; everything else about it follows from these."""

    number: int
    release: Release
    flavour: Flavour

    @property
    def name(self) -> str:
        return f"h{self.number}"

    @property
    def address(self) -> str:
        return f"198.18.0.{10 + self.number}"

    @property
    def mac(self) -> str:
        return f"02:76:6d:00:00:{self.number:02x}"


def fleet(count: int, releases: Iterable[Release], flavour: Flavour) -> tuple[HostPlan, ...]:
    """``count`` hosts, their releases in turn.

    :raises ValueError: no release, or a number of hosts that the network has no room for.
    """
    turn = tuple(releases)
    if not turn or not 1 <= count <= MAX_HOSTS:
        raise ValueError(f"the lab takes 1 to {MAX_HOSTS} hosts, of one release at least")
    return tuple(
        HostPlan(number, turn[(number - 1) % len(turn)], flavour) for number in range(1, count + 1)
    )


def hosts_file(plans: Iterable[HostPlan]) -> str:
    """``/etc/hosts`` for the hosts and for the control plane."""
    lines = ["127.0.0.1 localhost", f"{CONTROL_ADDRESS} {CONTROL}"]
    lines += [f"{plan.address} {plan.name}" for plan in plans]
    return "\n".join(lines) + "\n"


def resolver_file() -> str:
    """``/etc/resolv.conf``: whom to ask by way of the uplink."""
    return f"nameserver {UPLINK_RESOLVER}\n"


def ssh_config(plans: Iterable[HostPlan], *, key: str, known_hosts: str) -> str:
    """A client's configuration: every host by its name, its key checked."""
    parts = [f"Host {plan.name}\n    HostName {plan.address}\n" for plan in plans]
    parts.append(
        "Host *\n    User root\n"
        f"    IdentityFile {key}\n    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {known_hosts}\n    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n    BatchMode yes\n    LogLevel ERROR\n"
    )
    return "".join(parts)


@dataclass(frozen=True)
class File:
    """A file of a host, owned by root unless ``owner`` names a user of it."""

    content: str
    mode: int = 0o644
    owner: str = "root"


_SERVICES: Mapping[str, str] = {
    "sshd": "mkdir -p /run/sshd\nexec /usr/sbin/sshd -D -e\n",
    "virtlogd": "exec /usr/sbin/virtlogd\n",
    "libvirtd": "exec /usr/sbin/libvirtd\n",
}


def host_files(
    plan: HostPlan, *, machine_id: str, public_key: str, host_key: str, host_public_key: str
) -> dict[str, File]:
    """What tells a new host from the root tree that it is made from, by path."""
    services = ("sshd",) if plan.flavour is Flavour.BARE else tuple(_SERVICES)
    files = {
        "/etc/hostname": File(plan.name + "\n"),
        "/etc/machine-id": File(machine_id + "\n", 0o444),
        "/etc/resolv.conf": File(resolver_file()),
        "/etc/ssh/ssh_host_ed25519_key": File(host_key, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": File(host_public_key),
        "/etc/ssh/sshd_config.d/virtmgr-lab.conf": File(
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\n"
            "MaxStartups 100\nMaxSessions 100\n"
        ),
        "/root/.ssh/authorized_keys": File(public_key, 0o600),
    }
    for user in (ADMINISTRATOR, AUTOMATION):
        files[f"/home/{user}/.ssh/authorized_keys"] = File(public_key, 0o600, user)
    for service in services:
        script = "#!/bin/sh\n" + _SERVICES[service]
        files[f"/etc/virtmgr-lab/services/{service}"] = File(script, 0o755)
    if plan.flavour is Flavour.PREPARED:
        # There is no polkit to ask; the socket is the group's.
        files["/etc/libvirt/libvirtd.conf"] = File(
            'host_uuid_source = "machine-id"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n'
        )
    return files
