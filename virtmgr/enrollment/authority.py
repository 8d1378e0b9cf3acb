"""The private certificate authority in its directory, and how another one takes its place.

    ca.key         issues
    ca.crt         the certificates of all CAs that are trusted, the one that issues first
    ca-next.key    of the CA that is being made known
    ca-link.crt    the next CA's certificate as the one of before has signed it

Each step of a change is one file that is replaced, so a crash leaves the one or the other, and
another control plane, on the same directory, sees the one or the other: ``ca.crt`` with a second
certificate begins it, ``ca-next.key`` becomes ``ca.key`` in the middle, and ``ca.crt`` with one
ends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from virtmgr.domain.authority import Authorities, Phase
from virtmgr.domain.errors import InvalidRequest, Unavailable
from virtmgr.enrollment.pki import (
    alone,
    ca_certificate,
    certificate_life,
    fingerprint,
    is_issued_by,
    leaf_certificate,
    load_key,
    new_key,
    private_pem,
    public_pem,
    sync_directory,
    write_private,
)
from virtmgr.ports.certificates import CONTROL_PLANE, AuthorityCertificate, Certificate, Life

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
HOST_LIFE = timedelta(days=90)
_END = b"-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class _Present:
    """What is in the directory. ``link`` leads from the CA that issues to the one of before."""

    phase: Phase
    trusted: tuple[x509.Certificate, ...]  # the one that issues first
    key: ec.EllipticCurvePrivateKey
    link: x509.Certificate | None = None


class CertificateAuthority:
    """Implements ``ports.certificates.Authority`` with the CA in ``directory``.

    ``ca.key`` issues; ``ca.crt`` has the certificate of every CA that is trusted.

    Several control planes may share it. Each keeps the certificate that it shows itself
    (``server.crt``, ``server.key``) in ``own_directory``, by default the same.
    """

    def __init__(self, directory: Path, *, own_directory: Path | None = None) -> None:
        self.directory = directory
        self._own = own_directory or directory
        self.certificate_path = directory / "ca.crt"
        self._key_path = directory / "ca.key"
        self._next_key_path = directory / "ca-next.key"
        self._link_path = directory / "ca-link.crt"
        self._seen: tuple[object, _Present] | None = None

    def create(self) -> None:
        """Make the CA unless it is there.

        :raises Unavailable: its key is lost; a new CA would lock every enrolled host out.
        """
        if self.certificate_path.exists():
            if self._key_path.exists():
                return
            raise Unavailable(
                f"the certificate authority's key {self._key_path} is missing",
                hint="restore it from a backup; or remove ca.crt as well and enrol every host anew",
            )
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtmgr CA")])
        certificate = ca_certificate(key.public_key(), name, key, datetime.now(UTC) + CA_LIFE)
        write_private(self._key_path, private_pem(key))
        write_private(self.certificate_path, public_pem(certificate), 0o644)

    def certificate(self) -> bytes:
        """What everybody is to trust as PEM; the first one issues."""
        return b"".join(public_pem(each) for each in self._present().trusted)

    def authorities(self) -> Authorities:
        """See ``ports.certificates.Authority``."""
        present = self._present()
        issuing, *others = (fingerprint(each) for each in present.trusted)
        return Authorities(present.phase, issuing, others[0] if others else None)

    def certificates(self) -> tuple[AuthorityCertificate, ...]:
        """See ``ports.certificates.Authority``."""
        return tuple(
            AuthorityCertificate(
                fingerprint(each), Life(each.not_valid_before_utc, each.not_valid_after_utc)
            )
            for each in self._present().trusted
        )

    def rotate(self) -> None:
        """See ``ports.certificates.Authority``."""
        with alone(self._lock):
            present = self._present()
            if present.phase is not Phase.STEADY:
                return
            before = present.trusted[0]
            key = ec.generate_private_key(ec.SECP256R1())
            ends = datetime.now(UTC) + CA_LIFE
            following = ca_certificate(key.public_key(), before.subject, key, ends)
            link = ca_certificate(
                key.public_key(), before.subject, present.key, before.not_valid_after_utc
            )
            write_private(self._next_key_path, private_pem(key))
            write_private(self._link_path, public_pem(link), 0o644)
            self._write_trusted(before, following)

    def replace(self) -> None:
        """See ``ports.certificates.Authority``."""
        with alone(self._lock):
            if self._present().phase is Phase.SPREADING:
                self._next_key_path.replace(self._key_path)
                sync_directory(self.directory)
                self._write_trusted(*self._present().trusted)  # the one that issues first

    def retire(self) -> None:
        """See ``ports.certificates.Authority``."""
        with alone(self._lock):
            present = self._present()
            if present.phase is Phase.REPLACING:
                self._write_trusted(present.trusted[0])
                self._link_path.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.directory / "ca.lock"

    def _write_trusted(self, *certificates: x509.Certificate) -> None:
        content = b"".join(map(public_pem, certificates))
        write_private(self.certificate_path, content, 0o644)

    def _present(self) -> _Present:
        """What is in the directory now, which another control plane may have changed.

        :raises Unavailable: it cannot be read.
        """
        try:
            stamp = tuple(_stamp(path) for path in (self._key_path, self.certificate_path))
            if self._seen is None or self._seen[0] != stamp:
                self._seen = (stamp, self._read())
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the certificate authority in {self.directory} cannot be read: {error}",
                hint="run 'virtmgr init', or restore the directory from a backup",
            ) from error
        return self._seen[1]

    def _read(self) -> _Present:
        key = load_key(self._key_path.read_bytes())
        found = x509.load_pem_x509_certificates(self.certificate_path.read_bytes())
        issuing = [each for each in found if each.public_key() == key.public_key()]
        if not issuing:
            raise ValueError(
                f"{self._key_path.name} is not the key of {self.certificate_path.name}"
            )
        others = [each for each in found if each.public_key() != key.public_key()]
        if not others:
            return _Present(Phase.STEADY, (issuing[0],), key)
        trusted = (issuing[0], others[0])
        if self._next_key_path.exists():
            following = load_key(self._next_key_path.read_bytes()).public_key()
            if following == others[0].public_key():
                return _Present(Phase.SPREADING, trusted, key)
        return _Present(Phase.REPLACING, trusted, key, self._link(trusted))

    def _link(self, trusted: Sequence[x509.Certificate]) -> x509.Certificate | None:
        if not self._link_path.exists():
            return None
        link = x509.load_pem_x509_certificate(self._link_path.read_bytes())
        leads = link.public_key() == trusted[0].public_key()
        return link if leads and is_issued_by(public_pem(link), trusted[1]) else None

    def issue_host(self, request_pem: bytes, host_id: str, addresses: Sequence[str]) -> Certificate:
        """A certificate for a host's signing request; the common name is the host's id.

        :raises InvalidRequest: the request is malformed or not signed by its own key.
        """
        try:
            request = x509.load_pem_x509_csr(request_pem)
            signed = request.is_signature_valid
            public_key = request.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise InvalidRequest(
                "the certificate signing request cannot be read",
                field="signing_request",
                hint="send a PKCS #10 request in PEM form",
            ) from error
        if not signed:
            raise InvalidRequest(
                "the certificate signing request is not signed by its key",
                field="signing_request",
            )
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise InvalidRequest(
                "the certificate signing request's key is not an elliptic-curve key",
                field="signing_request",
                hint="make a P-256 key",
            )
        return self._issue(public_key, host_id, addresses, HOST_LIFE)

    def ensure_server(self, addresses: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of the control plane itself, renewed when a third of life is left.

        While a CA is being replaced, the certificate comes with the link to the CA of before, for
        those who trust only that one yet.

        Processes that share ``own_directory`` do it one after the other.
        """
        key_path, path = self._own / "server.key", self._own / "server.crt"
        names_path = self._own / "server.names"
        names = "\n".join(sorted(set(addresses)))
        with alone(self._own / "server.lock"):
            present = self._present()
            chain = b"" if present.link is None else public_pem(present.link)
            shown = path.read_bytes() if path.exists() and key_path.exists() else b""
            fresh = (
                shown != b""
                and names_path.exists()
                and names_path.read_text() == names
                and datetime.now(UTC) < certificate_life(shown).renewal_due
                and is_issued_by(shown, present.trusted[0])  # not by one of before a restore
                and shown.partition(_END)[2].strip() == chain.strip()
            )
            if not fresh:
                names_path.unlink(missing_ok=True)  # what a crash leaves half done is made again
                key = new_key()
                public_key = load_key(key).public_key()
                issued = self._issue(public_key, CONTROL_PLANE, addresses, SERVER_LIFE)
                write_private(key_path, key)
                write_private(path, issued.pem + chain)
                write_private(names_path, names.encode())
        return path, key_path

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        common_name: str,
        addresses: Sequence[str],
        life: timedelta,
    ) -> Certificate:
        present = self._present()
        ca = present.trusted[0]
        made = leaf_certificate(public_key, common_name, addresses, life, ca, present.key)
        return Certificate(
            pem=public_pem(made),
            serial=f"{made.serial_number:x}",
            expires_at=made.not_valid_after_utc,
            issuer=fingerprint(ca),
        )


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return (found.st_mtime_ns, found.st_ino)
