"""The directory of a simulated fleet: which hosts it has, and their keys and certificates.

fleet.json        the control plane's address and the hosts, in order
ca.crt            what they trust
hosts/NAME.pem    a host's key and certificate
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from virtmgr.domain.errors import InvalidRequest

_FLEET: Final = "fleet.json"


@dataclass(frozen=True)
class SimulatedIdentity:
    """Who a simulated host is. ``number`` counts from 0, and makes its machine."""

    number: int
    id: str
    name: str


@dataclass(frozen=True)
class Fleet:
    """A fleet that was prepared."""

    directory: Path
    server: str  # https://… of the agents' listener
    hosts: tuple[SimulatedIdentity, ...]

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.crt"

    def certificate_file(self, host: SimulatedIdentity) -> Path:
        """Key and certificate in one file."""
        return self.directory / "hosts" / f"{host.name}.pem"


def keep(fleet: Fleet, authorities: bytes, secrets: Iterable[bytes]) -> None:
    """Write a fleet's directory; ``fleet.json`` last, so that half of one is none.

    :param secrets: each host's key and certificate, in the order of ``fleet.hosts``.
    """
    hosts = fleet.directory / "hosts"
    hosts.mkdir(parents=True, exist_ok=True, mode=0o700)
    for host, secret in zip(fleet.hosts, secrets, strict=True):
        path = fleet.certificate_file(host)
        path.touch(0o600)
        path.write_bytes(secret)
    fleet.ca_file.write_bytes(authorities)
    document = {"server": fleet.server, "hosts": [asdict(host) for host in fleet.hosts]}
    half = fleet.directory / f"{_FLEET}.new"
    half.write_text(json.dumps(document))
    half.replace(fleet.directory / _FLEET)


def load(directory: Path) -> Fleet:
    """The fleet that was prepared in a directory.

    :raises InvalidRequest: there is none.
    """
    try:
        document = json.loads((directory / _FLEET).read_text())
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"run the simulated fleet in {directory}: there is none",
            code="no_fleet",
            hint="make one with 'virtmgr sim prepare', on the control plane's machine",
        ) from error
    hosts = tuple(SimulatedIdentity(**host) for host in document["hosts"])
    return Fleet(directory, document["server"], hosts)
