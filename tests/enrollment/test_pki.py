"""The certificate authority: what it vouches for, and what it refuses."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from virtmgr.domain.errors import InvalidRequest, Unavailable
from virtmgr.enrollment import authority, pki
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.ports.certificates import CONTROL_PLANE, Certificate, Life

HOST = "01997d2e-7c1e-7aaa-8000-00000000abcd"


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "pki")
    made.create()
    return made


def issue(ca: CertificateAuthority, *addresses: str) -> tuple[Certificate, bytes]:
    key = pki.new_key()
    return ca.issue_host(pki.signing_request(key), HOST, addresses), key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_hosts_certificate_names_it_and_verifies_against_the_ca(
    ca: CertificateAuthority,
) -> None:
    issued, key = issue(ca, "10.0.0.7", "node1.example")
    certificate = x509.load_pem_x509_certificate(issued.pem)
    root = x509.load_pem_x509_certificate(ca.certificate())
    certificate.verify_directly_issued_by(root)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert certificate.subject.rfc4514_string() == f"CN={HOST}"
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert names.get_values_for_type(x509.DNSName) == ["node1.example"]
    assert not constraints.ca
    assert f"{certificate.serial_number:x}" == issued.serial
    assert pki.certificate_life(issued.pem).ends == issued.expires_at.replace(microsecond=0)
    private = serialization.load_pem_private_key(key, None)
    assert certificate.public_key() == private.public_key()


def test_a_host_cannot_choose_its_own_names(ca: CertificateAuthority) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CONTROL_PLANE)])
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("control")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    issued = ca.issue_host(request.public_bytes(serialization.Encoding.PEM), HOST, ["10.0.0.7"])
    certificate = x509.load_pem_x509_certificate(issued.pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.subject.rfc4514_string() == f"CN={HOST}"
    assert names.get_values_for_type(x509.DNSName) == []
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_with_any_byte_changed_is_refused(ca: CertificateAuthority) -> None:
    """All that is signed, and the signature itself; not the one byte of padding between them."""
    request = x509.load_pem_x509_csr(pki.signing_request(pki.new_key()))
    der = request.public_bytes(serialization.Encoding.DER)
    padding = der.index(request.signature) - 1
    for position in range(len(der)):
        if position == padding:
            continue
        changed = bytearray(der)
        changed[position] ^= 0x01
        pem = b"-----BEGIN CERTIFICATE REQUEST-----\n"
        pem += base64.encodebytes(bytes(changed)) + b"-----END CERTIFICATE REQUEST-----\n"
        with pytest.raises(InvalidRequest):
            ca.issue_host(pem, HOST, ["10.0.0.7"])


@pytest.mark.parametrize("request_pem", [b"", b"nonsense", b"\xff\xfe\x00", pki.new_key()])
def test_what_is_no_request_is_refused(ca: CertificateAuthority, request_pem: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ca.issue_host(request_pem, HOST, ["10.0.0.7"])
    assert refused.value.field == "signing_request"


def test_keys_that_are_not_elliptic_are_refused(ca: CertificateAuthority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(InvalidRequest, match="elliptic"):
        ca.issue_host(pem, HOST, ["10.0.0.7"])


def test_private_files_are_private_and_the_ca_certificate_is_not(
    ca: CertificateAuthority,
) -> None:
    _, server_key = ca.ensure_server(["127.0.0.1"])
    assert mode(ca.directory) == 0o700
    assert mode(ca.directory / "ca.key") == 0o600
    assert mode(server_key) == 0o600
    assert mode(ca.certificate_path) == 0o644
    assert not list(ca.directory.glob("*.new"))


def test_a_private_file_stays_private_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o666)
    leftover = tmp_path / "key.new"
    leftover.write_text("torn")
    leftover.chmod(0o666)
    pki.write_private(path, b"secret")
    assert path.read_bytes() == b"secret"
    assert mode(path) == 0o600
    assert not leftover.exists()


def test_the_ca_is_made_once_and_never_replaced(ca: CertificateAuthority) -> None:
    before = ca.certificate_path.read_bytes()
    ca.create()
    assert ca.certificate_path.read_bytes() == before
    (ca.directory / "ca.key").unlink()
    with pytest.raises(Unavailable, match="missing"):
        ca.create()
    assert ca.certificate_path.read_bytes() == before
    with pytest.raises(Unavailable, match="cannot be read"):
        issue(ca, "10.0.0.7")


def test_a_ca_whose_making_was_cut_short_is_made_anew(ca: CertificateAuthority) -> None:
    ca.certificate_path.unlink()
    ca.create()
    issued, _ = issue(ca, "10.0.0.7")
    root = x509.load_pem_x509_certificate(ca.certificate())
    x509.load_pem_x509_certificate(issued.pem).verify_directly_issued_by(root)


def test_the_servers_certificate_is_kept_until_its_names_change(
    ca: CertificateAuthority,
) -> None:
    path, key = ca.ensure_server(["127.0.0.1", "manager.example"])
    first = path.read_bytes()
    ca.ensure_server(["manager.example", "127.0.0.1"])
    assert path.read_bytes() == first
    ca.ensure_server(["127.0.0.1", "other.example"])
    assert path.read_bytes() != first
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key)
    subject = x509.load_pem_x509_certificate(path.read_bytes()).subject
    assert subject.rfc4514_string() == f"CN={CONTROL_PLANE}"


def test_the_servers_certificate_is_renewed_before_it_expires(
    ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = ca.ensure_server(["127.0.0.1"])
    first = path.read_bytes()
    assert pki.certificate_life(first).ends - datetime.now(UTC) > timedelta(days=60)
    soon = datetime.now(UTC) + timedelta(days=10)
    with monkeypatch.context() as patched:
        life = Life(soon - timedelta(days=90), soon)
        patched.setattr(authority, "certificate_life", lambda _: life)
        ca.ensure_server(["127.0.0.1"])
    assert path.read_bytes() != first


def test_a_third_of_its_life_is_left_to_renew_a_certificate() -> None:
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    assert Life(begins, begins + timedelta(days=90)).renewal_due == begins + timedelta(days=60)
    assert Life(begins, begins + timedelta(hours=3)).renewal_due == begins + timedelta(hours=2)


# ---- the TLS contexts, over a real connection


def greet(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes:
    """What the client is answered; raises whatever its side of TLS refuses."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        with contextlib.suppress(OSError):  # a refused client is the point
            plain, _ = listener.accept()
            plain.settimeout(10)
            with plain, server.wrap_socket(plain, server_side=True) as connection:
                connection.sendall(b"welcome")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as plain,
            client.wrap_socket(plain, server_hostname=name) as connection,
        ):
            return connection.recv(100)
    finally:
        thread.join()
        listener.close()


@pytest.fixture
def host(ca: CertificateAuthority, tmp_path: Path) -> tuple[Path, Path]:
    issued, key = issue(ca, "127.0.0.1")
    pki.write_private(tmp_path / "host.crt", issued.pem)
    pki.write_private(tmp_path / "host.key", key)
    return tmp_path / "host.crt", tmp_path / "host.key"


def test_enrolled_hosts_and_control_plane_trust_each_other(
    ca: CertificateAuthority, host: tuple[Path, Path]
) -> None:
    server = pki.server_context(
        *ca.ensure_server(["127.0.0.1", "manager.example"]), client_ca=ca.certificate_path
    )
    client = pki.client_context(ca.certificate_path, *host)
    assert greet(server, client, "127.0.0.1") == b"welcome"
    assert greet(server, client, "manager.example") == b"welcome"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(server, client, "somebody.else")


def test_strangers_are_refused(
    ca: CertificateAuthority, host: tuple[Path, Path], tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    other.create()
    server = pki.server_context(*ca.ensure_server(["127.0.0.1"]), client_ca=ca.certificate_path)
    anonymous = pki.client_context(ca.certificate_path)
    stranger = pki.client_context(ca.certificate_path, *other.ensure_server(["127.0.0.1"]))
    for client in (anonymous, stranger):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert greet(server, client, "127.0.0.1") == b"refused"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(server, pki.client_context(other.certificate_path, *host), "127.0.0.1")


def test_old_tls_versions_are_refused(ca: CertificateAuthority, host: tuple[Path, Path]) -> None:
    server = pki.server_context(*host)
    client = pki.client_context(ca.certificate_path)
    assert server.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client.verify_mode is ssl.CERT_REQUIRED
    assert client.check_hostname
    assert server.num_tickets == 0
