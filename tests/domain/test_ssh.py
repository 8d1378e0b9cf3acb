"""Fingerprints are ssh's own, and keys that nobody could use are refused without being shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from virtmgr.domain.errors import Conflict, InvalidRequest
from virtmgr.domain.ssh import (
    HostKey,
    check_private_key,
    fingerprint_of,
    parse_keys,
    trusted_key,
)

_BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIAz1HAgd/rWl0RvJrrkYYTjXQPWagEbaJcVao1jKi1v7"
_KEY = HostKey("ssh-ed25519", _BLOB)
_RSA = HostKey("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAABAQC7")


def _private_key(directory: Path, passphrase: str = "") -> str:
    file = directory / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(file)]
    subprocess.run(command, check=True)
    return file.read_text()


def test_the_fingerprint_is_ssh_keygens(tmp_path: Path) -> None:
    file = tmp_path / "key.pub"
    file.write_text(f"ssh-ed25519 {_BLOB} root@host\n")
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(file)], capture_output=True, text=True, check=True
    ).stdout
    assert _KEY.fingerprint == shown.split()[1]
    assert fingerprint_of(file.read_text()) == _KEY.fingerprint
    assert fingerprint_of(f" {_KEY.fingerprint}\n") == _KEY.fingerprint


@pytest.mark.parametrize(
    "text", ["", "MD5:aa:bb", "SHA256:short", "ssh-ed25519 !!", "ssh-dss AAAA"]
)
def test_what_is_no_host_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fingerprint_of(text)
    assert refused.value.code == "bad_host_key"


def test_keys_are_parsed_and_the_best_comes_first() -> None:
    scanned = (
        "# host:22 SSH-2.0-OpenSSH_9.2\n"
        f"host ssh-rsa {_RSA.blob}\nhost {_KEY.type} {_KEY.blob}\n"
        "host sk-unknown AAAA\nhost ssh-ed25519 not-base64\nrubbish\n"
    )
    assert parse_keys(scanned) == (_KEY, _RSA)


def test_only_the_key_that_was_agreed_on_is_trusted() -> None:
    assert trusted_key([_RSA, _KEY], _KEY.fingerprint, "host") is _KEY
    with pytest.raises(Conflict) as refused:
        trusted_key([_RSA], _KEY.fingerprint, "host")
    assert refused.value.code == "host_key_changed"
    assert refused.value.detail["shown"] == [_RSA.fingerprint]


def test_known_hosts_name_the_port_where_it_is_another() -> None:
    assert _KEY.known_hosts_line("10.0.0.1", 22).startswith("10.0.0.1 ssh-ed25519 ")
    assert _KEY.known_hosts_line("10.0.0.1", 2222).startswith("[10.0.0.1]:2222 ssh-ed25519 ")


def test_a_private_key_is_taken_as_ssh_wants_it(tmp_path: Path) -> None:
    key = _private_key(tmp_path)
    assert check_private_key("\n" + key.replace("\n", "\r\n")) == key


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ssh-ed25519 AAAA", "bad_private_key"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "encrypted_private_key",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA",
            "encrypted_private_key",
        ),
    ],
)
def test_a_private_key_that_cannot_be_used_is_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_private_key(text)
    assert refused.value.code == code
    assert text.splitlines()[1:2] == [] or text.splitlines()[1] not in refused.value.message


def test_a_private_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_private_key(_private_key(tmp_path, "secret"))
    assert refused.value.code == "encrypted_private_key"
