"""A certificate of the operator's own for API and streams; agents are shown the private CA's."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.bootstrap.test_certificate_and_end import (
    answers,
    dial,
    eventually,
    running,
    settings,
)
from virtmgr.bootstrap.certificate import OwnCertificate
from virtmgr.bootstrap.setup import initialise
from virtmgr.bootstrap.supervisor import supervise
from virtmgr.config.settings import Endpoint, ServerSettings
from virtmgr.domain.errors import Unavailable
from virtmgr.enrollment import pki

__all__ = ["settings"]  # a fixture

_DAY = timedelta(days=1)


class Corporate:
    """An operator's CA, with a certificate for 127.0.0.1 that it makes anew when asked."""

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "corporate.crt"
        self.certificate, self.key = directory / "given.crt", directory / "given.key"
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Corp CA")])
        ends = datetime.now(UTC) + 30 * _DAY
        self._ca = pki.ca_certificate(self._ca_key.public_key(), name, self._ca_key, ends)
        self.ca_file.write_bytes(pki.public_pem(self._ca))
        self.issue()

    def issue(self, life: timedelta = _DAY) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        made = pki.leaf_certificate(
            key.public_key(), "manager", ["127.0.0.1"], life, self._ca, self._ca_key
        )
        pki.write_private(self.key, pki.private_pem(key))
        pki.write_private(self.certificate, pki.public_pem(made))

    @property
    def serial(self) -> str:
        found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return f"{found.serial_number:X}"


@pytest.fixture
def corporate(tmp_path: Path) -> Corporate:
    return Corporate(tmp_path)


@pytest.fixture
def given(settings: ServerSettings, corporate: Corporate) -> ServerSettings:
    return replace(settings, certificate=corporate.certificate, key=corporate.key)


def _serial(corporate: Corporate, endpoint: Endpoint) -> str:
    """Of what is shown to a client that trusts the corporate CA alone; empty: it is refused."""
    context = ssl.create_default_context(cafile=str(corporate.ca_file))
    with socket.create_connection((endpoint.host, endpoint.port), timeout=60) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=endpoint.host) as connection:
                found = connection.getpeercert()
        except ssl.SSLCertVerificationError:
            return ""
    assert found is not None
    return str(found["serialNumber"]).lstrip("0")


@pytest.mark.parametrize(
    ("module", "listener"),
    [("virtmgr.bootstrap.web", "listen"), ("virtmgr.bootstrap.hub", "stream_listen")],
)
def test_clients_are_shown_it_and_its_successor_and_agents_are_not(
    given: ServerSettings, corporate: Corporate, module: str, listener: str
) -> None:
    assert initialise(given).ca_file is None  # clients go by what their system trusts
    endpoint = getattr(given, listener)
    with running(module, given):
        eventually(lambda: _reachable(endpoint))
        assert _serial(corporate, endpoint) == corporate.serial.lstrip("0")
        assert not answers(given, endpoint)  # to those who trust the private CA only
        if module.endswith("web"):
            with dial(given, given.agent_listen):
                pass
            assert _serial(corporate, given.agent_listen) == ""
        before = corporate.serial
        corporate.issue()
        assert corporate.serial != before
        eventually(lambda: _serial(corporate, endpoint) == corporate.serial.lstrip("0"))


def _reachable(endpoint: Endpoint) -> bool:
    try:
        socket.create_connection((endpoint.host, endpoint.port), 5).close()
    except OSError:
        return False
    return True


def _another_key(corporate: Corporate) -> None:
    pki.write_private(corporate.key, pki.new_key())


def _expired(corporate: Corporate) -> None:
    corporate.issue(-pki.SKEW / 2)


def _not_yet(corporate: Corporate) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "later")])
    begins = datetime.now(UTC) + _DAY
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begins).not_valid_after(begins + _DAY)
    made = builder.sign(key, hashes.SHA256())
    pki.write_private(corporate.key, pki.private_pem(key))
    pki.write_private(corporate.certificate, pki.public_pem(made))


_BROKEN: list[tuple[Callable[[Corporate], object], str]] = [
    (_expired, "has expired"),
    (_not_yet, "is valid from"),
    (_another_key, "is not its key"),
    (lambda each: each.key.chmod(0o644), "read by every user"),
    (lambda each: each.key.unlink(), "given.key cannot be read: No such file"),
    (lambda each: each.certificate.unlink(), "given.crt cannot be read: No such file"),
    (lambda each: each.certificate.write_text("nonsense"), "is not understood"),
    (lambda each: each.key.write_text("nonsense"), "is not understood"),
]


@pytest.mark.parametrize(("breaks", "words"), _BROKEN, ids=[words for _, words in _BROKEN])
def test_what_nobody_could_use_is_refused_at_the_start_and_keeps_no_process_from_running(
    given: ServerSettings, corporate: Corporate, breaks: Callable[[Corporate], object], words: str
) -> None:
    initialise(given)
    breaks(corporate)
    with pytest.raises(Unavailable, match=words) as refused:
        supervise(given)
    assert refused.value.code == "certificate_unusable"
    assert refused.value.hint
    own = OwnCertificate(given)
    own.for_clients()  # of the private CA meanwhile
    corporate.issue()
    corporate.key.chmod(0o640)  # a group of those who may is fine
    assert own.take_up()
    breaks(corporate)
    assert not own.take_up()  # the one before stays


def test_certificate_and_key_go_together() -> None:
    with pytest.raises(ValueError, match="--certificate and --key go together"):
        ServerSettings.load({"certificate": "/x"}, {})
    found = ServerSettings.load({}, {"VIRTMGR_CERTIFICATE": "/c", "VIRTMGR_KEY": "/k"})
    assert found.given_certificate == (Path("/c"), Path("/k"))
    assert ServerSettings.load({}, {}).given_certificate is None


def test_addresses_of_control_planes() -> None:
    given = {"control_plane_addresses": "10.0.0.11, 10.0.1.0/24,fd00::1"}
    found = ServerSettings.load(given, {})
    assert found.control_plane_addresses == ("10.0.0.11", "10.0.1.0/24", "fd00::1")
    with pytest.raises(ValueError, match="--control-plane-addresses"):
        ServerSettings.load({"control_plane_addresses": "cp1.example.org"}, {})
