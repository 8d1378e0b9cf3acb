"""Keys, certificates and TLS contexts: mutual TLS between control plane and agents from day one.

The CA's key stays in the control plane's data directory (``authority.py``). A host makes its own
key and sends a signing request (PKCS #10, RFC 2986); only certificates leave the CA.
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
from virtmgr.ports.certificates import Life

SKEW = timedelta(minutes=5)  # clocks of hosts may be behind


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that only its owner may read, atomically and durably.

    :param mode: another one for what is not private.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # whatever an earlier try left there
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make what was renamed and removed in a directory durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
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
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def signing_request(key_pem: bytes) -> bytes:
    """A signing request for a key; the CA sets every name itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "virtmgr-host")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(load_key(key_pem), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def certificate_life(pem: bytes) -> Life:
    certificate = x509.load_pem_x509_certificate(pem)
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def fingerprints(certificates_pem: bytes) -> tuple[str, ...]:
    """See ``ports.certificates.KeyTools``."""
    try:
        found = x509.load_pem_x509_certificates(certificates_pem)
    except ValueError as error:
        raise InvalidRequest(f"the CA's certificates cannot be read: {error}") from error
    return tuple(fingerprint(each) for each in found)


def is_issued_by_first(certificate_pem: bytes, authorities_pem: bytes) -> bool:
    """See ``ports.certificates.KeyTools``."""
    return is_issued_by(certificate_pem, x509.load_pem_x509_certificates(authorities_pem)[0])


def is_issued_by(certificate_pem: bytes, ca: x509.Certificate) -> bool:
    """Whether a CA has signed the (first) certificate."""
    try:
        x509.load_pem_x509_certificate(certificate_pem).verify_directly_issued_by(ca)
    except (ValueError, InvalidSignature):
        return False
    return True


def public_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def ca_certificate(
    public_key: ec.EllipticCurvePublicKey,
    name: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    ends: datetime,
) -> x509.Certificate:
    """A CA's certificate, signed by its own key or by that of the CA of before.

    Every CA has the same name, so that the one that is signed by another counts as self-issued and
    the limit of the path's length does not count it (RFC 5280, 4.2.1.9).
    """
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
        .sign(signer, hashes.SHA256())
    )


def leaf_certificate(
    public_key: ec.EllipticCurvePublicKey,
    common_name: str,
    addresses: Sequence[str],
    life: timedelta,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    """A certificate for a host or for the control plane, which is server and client alike."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
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


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(key_pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key.

    :raises Unavailable: it is another one than virtmgr's.
    """
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


def check_given(certificate: Path, key: Path) -> None:
    """Refuse a certificate and key of the operator's own that nobody could use.

    :raises Unavailable: one cannot be read, is expired or not valid yet, does not go with the
        other, or every user of the machine can read the key.
    """

    def refuse(path: Path, why: str, hint: str) -> Unavailable:
        message = f"show the certificate {certificate} to clients: {path.name} {why}"
        return Unavailable(message, code="certificate_unusable", hint=hint)

    try:
        found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        mode = key.stat().st_mode
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        path = Path(error.filename or certificate)
        raise refuse(path, f"cannot be read: {error.strerror}", "see path and owner") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = "both are wanted in PEM form, the key without a passphrase"
        raise refuse(certificate, f"or {key.name} is not understood: {error}", hint) from error
    if mode & 0o007:
        raise refuse(key, "can be read by every user of the machine", f"chmod 600 {key}")
    if private.public_key() != found.public_key():
        hint = "give the key that it was requested with; of a chain the server's own comes first"
        raise refuse(key, "is not its key", hint)
    now = datetime.now(UTC)
    if now >= found.not_valid_after_utc:
        ended = f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise refuse(certificate, f"has expired at {ended}", "get a new one, in the same files")
    if now < found.not_valid_before_utc:
        begins = f"{found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise refuse(certificate, f"is valid from {begins} on", "is this machine's clock right?")


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
