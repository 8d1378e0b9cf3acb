"""Secrets open with the key and for the purpose that they were sealed for."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from virtmgr.domain.errors import Unavailable
from virtmgr.enrollment.vault import KeyFileVault


def test_what_is_sealed_opens(tmp_path: Path) -> None:
    path = tmp_path / "pki" / "key"
    sealed = KeyFileVault(path).seal(b"hunter2", "host 1")
    assert KeyFileVault(path).open(sealed, "host 1") == b"hunter2"
    assert b"hunter2" not in base64.b64decode(sealed)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["key"]


def test_another_purpose_another_key_or_a_change_does_not(tmp_path: Path) -> None:
    vault = KeyFileVault(tmp_path / "key")
    sealed = vault.seal(b"hunter2", "host 1")
    changed = bytearray(base64.b64decode(sealed))
    changed[-1] ^= 1
    for other, text, purpose in (
        (vault, sealed, "host 2"),
        (KeyFileVault(tmp_path / "other"), sealed, "host 1"),
        (vault, base64.b64encode(changed).decode(), "host 1"),
        (vault, "no base64!", "host 1"),
        (vault, "", "host 1"),
    ):
        with pytest.raises(Unavailable) as refused:
            other.open(text, purpose)
        assert refused.value.code == "credentials_unreadable"


def test_processes_that_begin_together_agree_on_a_key(tmp_path: Path) -> None:
    def seal(number: int) -> str:
        return KeyFileVault(tmp_path / "key").seal(b"x", str(number))

    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(seal, range(32)))
    vault = KeyFileVault(tmp_path / "key")
    assert [vault.open(text, str(number)) for number, text in enumerate(sealed)] == [b"x"] * 32
