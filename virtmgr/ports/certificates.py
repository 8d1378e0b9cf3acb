"""What agent and services need of the certificate authority and of keys."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from virtmgr.domain.authority import Authorities

CONTROL_PLANE: Final = "virtmgr-control-plane"
"""Common name of the control plane's own certificate; a host's is the host's id."""


@dataclass(frozen=True)
class Life:
    """When a certificate begins to be valid, and when it ends."""

    begins: datetime
    ends: datetime

    @property
    def renewal_due(self) -> datetime:
        """When to get the next one: a third is left to do it in."""
        return self.begins + (self.ends - self.begins) * 2 / 3


class Peer(Protocol):
    """A TLS connection's other side: a socket or an object of the ``ssl`` module."""

    def getpeercert(self) -> Any:
        """Its verified certificate as a dictionary; None or empty without one."""
        ...


def common_name(peer: Peer | None) -> str | None:
    """The one common name in the certificate that a peer showed; None where there is none.

    TLS has verified it against the private CA: it says who the peer is, wherever it calls from.
    """
    return subject_of(peer.getpeercert() if peer is not None else None)


def subject_of(certificate: Mapping[str, Any] | None) -> str | None:
    """The one common name in a certificate as ``Peer.getpeercert`` answers it."""
    subject = (certificate or {}).get("subject", ())
    names = [value for rdn in subject for key, value in rdn if key == "commonName"]
    return names[0] if len(names) == 1 else None


@dataclass(frozen=True)
class Certificate:
    """An issued certificate as PEM, and what the inventory keeps of it."""

    pem: bytes
    serial: str  # hexadecimal
    expires_at: datetime
    issuer: str  # fingerprint of the CA


@dataclass(frozen=True)
class AuthorityCertificate:
    """A CA's own certificate."""

    fingerprint: str
    life: Life


class Authority(Protocol):
    """Issues certificates to hosts, and changes the CA that does it.

    All control planes of a database have one and the same; what one changes, the others see.
    """

    def issue_host(self, request_pem: bytes, host_id: str, addresses: Sequence[str]) -> Certificate:
        """A certificate for a host's signing request; the common name is the host's id.

        :raises InvalidRequest: the request is malformed or not signed by its own key.
        """
        ...

    def certificate(self) -> bytes:
        """What everybody is to trust, as PEM: the CA's own certificate, and that of another CA
        while it is being changed. The first one issues."""
        ...

    def authorities(self) -> Authorities:
        """Which CAs there are, and where the change of them is. Cheap.

        :raises Unavailable: they cannot be read.
        """
        ...

    def certificates(self) -> tuple[AuthorityCertificate, ...]:
        """Those of ``authorities().trusted``, in its order."""
        ...

    def rotate(self) -> None:
        """Make the next CA and let it be trusted; nothing where one is being made known."""
        ...

    def replace(self) -> None:
        """Let the next CA issue from now on; nothing where it does."""
        ...

    def retire(self) -> None:
        """Drop the CA that does not issue any more; nothing where there is none."""
        ...


class KeyTools(Protocol):
    """Keys, requests and TLS contexts of a host."""

    def new_key(self) -> bytes:
        """A new private key as PEM."""
        ...

    def signing_request(self, key_pem: bytes) -> bytes: ...

    def certificate_life(self, certificate_pem: bytes) -> Life: ...

    def fingerprints(self, certificates_pem: bytes) -> tuple[str, ...]:
        """SHA-256 of each of some certificates, in hexadecimal.

        :raises InvalidRequest: there is none, or they cannot be read.
        """
        ...

    def is_issued_by_first(self, certificate_pem: bytes, authorities_pem: bytes) -> bool:
        """Whether a certificate is of the first of some CAs."""
        ...

    def write_private(self, path: Path, content: bytes) -> None:
        """Write a file that only its owner may read, atomically and durably."""
        ...

    def client_context(
        self, ca: Path, certificate: Path | None = None, key: Path | None = None
    ) -> ssl.SSLContext: ...

    def server_context(
        self, certificate: Path, key: Path, *, client_ca: Path | None = None
    ) -> ssl.SSLContext: ...
