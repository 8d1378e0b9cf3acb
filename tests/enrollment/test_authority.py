"""One CA takes another's place in the directory that control planes share."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.enrollment.test_pki import greet
from virtmgr.domain.authority import Phase
from virtmgr.enrollment import authority as authorities
from virtmgr.enrollment import pki
from virtmgr.enrollment.authority import CertificateAuthority

HOST = "01997d2e-7c1e-7aaa-8000-00000000abcd"


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path / "shared", own_directory=tmp_path / "own")
    made.create()
    return made


def _issuer(ca: CertificateAuthority) -> str:
    return ca.issue_host(pki.signing_request(pki.new_key()), HOST, ["10.0.0.7"]).issuer


def _trusting(tmp_path: Path, pem: bytes) -> ssl.SSLContext:
    file = tmp_path / "trusted.crt"
    file.write_bytes(pem)
    return pki.client_context(file)


def test_the_next_one_is_made_known_then_issues_then_is_the_only_one(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    (old,) = ca.authorities().trusted
    old_pem = ca.certificate()
    other = CertificateAuthority(ca.directory, own_directory=tmp_path / "second")  # it sees all

    ca.rotate()
    ca.rotate()  # nothing more
    spreading = other.authorities()
    assert (spreading.phase, spreading.issuing) == (Phase.SPREADING, old)
    new = spreading.other
    assert new is not None
    assert _issuer(ca) == _issuer(other) == old

    ca.replace()
    ca.replace()
    replacing = other.authorities()
    assert (replacing.phase, replacing.trusted) == (Phase.REPLACING, (new, old))
    assert pki.fingerprints(other.certificate()) == (new, old)
    assert pki.fingerprints(ca.certificate_path.read_bytes()) == (new, old)
    assert _issuer(ca) == _issuer(other) == new

    ca.retire()
    ca.retire()
    steady = other.authorities()
    assert (steady.phase, steady.trusted) == (Phase.STEADY, (new,))
    assert [each.fingerprint for each in other.certificates()] == [new]
    assert old_pem not in ca.certificate_path.read_bytes()
    ca.rotate()  # and again
    assert ca.authorities().phase is Phase.SPREADING


def test_keys_stay_private(ca: CertificateAuthority) -> None:
    for step in (ca.rotate, ca.replace, ca.retire):
        step()
        ca.ensure_server(["127.0.0.1"])
        for path in (*ca.directory.glob("*.key"), *ca._own.glob("*.key")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(ca.certificate_path.stat().st_mode) == 0o644
        assert not list(ca.directory.glob("*.new"))


def test_who_knows_only_the_one_before_can_verify_until_it_is_retired(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    """New-with-old (RFC 4210, 4.4), through OpenSSL on both sides."""
    old = _trusting(tmp_path, ca.certificate())
    ca.rotate()
    both = _trusting(tmp_path, ca.certificate())
    ca.replace()
    server = pki.server_context(*ca.ensure_server(["127.0.0.1"]))
    first, end, _ = ca.certificate().partition(b"-----END CERTIFICATE-----\n")
    new = _trusting(tmp_path, first + end)
    for client in (old, both, new):
        assert greet(server, client, "127.0.0.1") == b"welcome"

    ca.retire()
    server = pki.server_context(*ca.ensure_server(["127.0.0.1"]))
    assert greet(server, both, "127.0.0.1") == b"welcome"
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(server, old, "127.0.0.1")


def test_the_servers_certificate_is_made_anew_at_each_step_that_concerns_it(
    ca: CertificateAuthority,
) -> None:
    def shown() -> bytes:
        path, _ = ca.ensure_server(["127.0.0.1"])
        assert ca.ensure_server(["127.0.0.1"])[0].read_bytes() == path.read_bytes()
        return path.read_bytes()

    first = shown()
    ca.rotate()
    assert shown() == first
    ca.replace()
    second = shown()
    assert len(pki.fingerprints(second)) == 2  # with the link
    ca.retire()
    third = shown()
    assert len(pki.fingerprints(third)) == 1
    assert len({first, second, third}) == 3


class _CrashError(Exception):
    """The machine's power, at the worst moment."""


def _crashes(monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]) -> Iterator[int]:
    """Do ``step`` with a crash at its n-th change of a file, for n = 0, 1, …; until it is done."""
    write = authorities.write_private
    for number in range(10):
        left = [number]

        def may_crash(
            path: Path, content: bytes, mode: int = 0o600, left: list[int] = left
        ) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise _CrashError
            write(path, content, mode)

        monkeypatch.setattr(authorities, "write_private", may_crash)
        done = False
        with suppress(_CrashError):
            step()
            done = True
        monkeypatch.setattr(authorities, "write_private", write)
        yield number
        if done:
            return


def test_a_crash_leaves_it_as_before_or_as_after(
    ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = ca.authorities().trusted
    for _ in _crashes(monkeypatch, ca.rotate):
        found = ca.authorities()
        assert found.phase in (Phase.STEADY, Phase.SPREADING)
        assert _issuer(ca) == old
    assert found.phase is Phase.SPREADING
    for _ in _crashes(monkeypatch, ca.replace):
        found = ca.authorities()
        assert set(found.trusted) >= {old, found.issuing}
        assert _issuer(ca) == found.issuing == pki.fingerprints(ca.certificate())[0]
    assert found.phase is Phase.REPLACING
    for _ in _crashes(monkeypatch, ca.retire):
        assert ca.authorities().issuing == found.issuing
    assert ca.authorities().trusted == (found.issuing,)


def test_a_lost_key_of_the_next_one_leads_back_to_the_one_before(ca: CertificateAuthority) -> None:
    (old,) = ca.authorities().trusted
    ca.rotate()
    (ca.directory / "ca-next.key").unlink()
    ca.replace()
    assert ca.authorities().issuing == old
    ca.retire()
    assert ca.authorities().trusted == (old,)
