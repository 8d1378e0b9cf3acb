"""The private certificate authority: mutual TLS between control plane and agents from day one.

The CA's key stays in the control plane's data directory. A host makes its own key and sends a
signing request (PKCS #10, RFC 2986); only certificates leave the CA.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from virtmgr.domain.errors import InvalidRequest, Unavailable
from virtmgr.ports.certificates import CONTROL_PLANE, Certificate, Life

_CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
HOST_LIFE = timedelta(days=90)
SKEW = timedelta(minutes=5)  # clocks of hosts may be behind


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever an earlier try left there
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes out that ask for the same ``lock``."""
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def new_key() -> bytes:
    """A new P-256 key as PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def signing_request(key_pem: bytes) -> bytes:
    """A signing request for a key; the CA sets every name itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtmgr-host")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(_load(key_pem), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def certificate_life(pem: bytes) -> Life:
    certificate = x509.load_pem_x509_certificate(pem)
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()


class CertificateAuthority:
    """Issues certificates from the CA in ``directory`` (``ca.crt``, ``ca.key``).

    Several control planes may share it. Each keeps the certificate that it shows itself
    (``server.crt``, ``server.key``) in ``own_directory``, by default the same.
    """

    def __init__(self, directory: Path, *, own_directory: Path | None = None) -> None:
        self.directory = directory
        self._own = own_directory or directory
        self.certificate_path = directory / "ca.crt"
        self._key_path = directory / "ca.key"

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
        now = datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtmgr CA")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        write_private(self._key_path, _pem(key))
        write_private(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        self.certificate_path.chmod(0o644)

    def certificate(self) -> bytes:
        """The CA's own certificate as PEM."""
        return self.certificate_path.read_bytes()

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

        Processes that share ``own_directory`` do it one after the other.
        """
        key_path, path = self._own / "server.key", self._own / "server.crt"
        names_path = self._own / "server.names"
        names = "\n".join(sorted(set(addresses)))
        with _alone(self._own / "server.lock"):
            fresh = (
                path.exists()
                and key_path.exists()
                and names_path.exists()
                and names_path.read_text() == names
                and datetime.now(UTC) < certificate_life(path.read_bytes()).renewal_due
                and self._issued(path.read_bytes())
            )
            if not fresh:
                names_path.unlink(missing_ok=True)  # what a crash leaves half done is made again
                key = new_key()
                public_key = _load(key).public_key()
                issued = self._issue(public_key, CONTROL_PLANE, addresses, SERVER_LIFE)
                write_private(key_path, key)
                write_private(path, issued.pem)
                write_private(names_path, names.encode())
        return path, key_path

    def _issued(self, pem: bytes) -> bool:
        """Whether a certificate is of this CA, and not of one that was here before a restore."""
        try:
            x509.load_pem_x509_certificate(pem).verify_directly_issued_by(
                x509.load_pem_x509_certificate(self.certificate())
            )
        except (ValueError, InvalidSignature, OSError):
            return False
        return True

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        common_name: str,
        addresses: Sequence[str],
        life: timedelta,
    ) -> Certificate:
        try:
            ca_key = _load(self._key_path.read_bytes())
            ca = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        except OSError as error:
            raise Unavailable(
                f"the certificate authority in {self.directory} cannot be read: {error}",
                hint="run 'virtmgr init', or restore the directory from a backup",
            ) from error
        now = datetime.now(UTC)
        expires = now + life
        serial = x509.random_serial_number()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(ca.subject)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(now - SKEW)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in addresses]), False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
            )
            .sign(ca_key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return Certificate(pem=pem, serial=f"{serial:x}", expires_at=expires)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unavailable(
            "the private key is not an elliptic-curve key", hint="restore it from a backup"
        )
    return key


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(
    certificate: Path, key: Path, *, client_ca: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2+ server context; with ``client_ca`` every client must show its certificate.

    It sends no session tickets: a client that reads and writes in two threads may take one up in
    the middle of its first write, which then never leaves (Python before 3.13 does not lock).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2+ client context that trusts only ``ca`` and shows ``certificate`` where given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(ca)
    if certificate is not None and key is not None:
        context.load_cert_chain(certificate, key)
    return context
