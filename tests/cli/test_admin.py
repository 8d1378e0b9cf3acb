"""What runs virtmgr itself says what is wrong and what to do, and shows no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtmgr.cli.admin import telling
from virtmgr.domain.errors import Unavailable

pytestmark = pytest.mark.timeout(180)


def fails(directory: Path, *arguments: str, **environment: str) -> str:
    """What a command that fails says."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VIRTMGR_")}
    done = subprocess.run(
        [sys.executable, "-c", "from virtmgr.cli.main import main; main()", *arguments],
        env={**kept, "XDG_CONFIG_HOME": str(directory / "config"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode > 0, done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def nothing(tmp_path: Path) -> str:
    """A data directory that is not there, and cannot be made."""
    (tmp_path / "file").touch()
    return str(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "command",
    [("serve",), ("init",), ("db", "upgrade"), ("db", "current"), ("agent",), ("host-stop", "-y")],
    ids=" ".join,
)
def test_without_a_data_directory(tmp_path: Path, nothing: str, command: tuple[str, ...]) -> None:
    said = fails(tmp_path, *command, "--data-directory", nothing)
    assert said.startswith("error: ")
    assert nothing in said
    assert "\nhint: " in said


@pytest.mark.parametrize("command", [("serve",), ("init",), ("db", "current")], ids=" ".join)
def test_a_database_that_is_none(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    at = f"sqlite:///{tmp_path / 'db'}"
    data = str(tmp_path / "data")
    said = fails(tmp_path, *command, "--data-directory", data, VIRTMGR_DATABASE=at)
    assert at in said
    assert "\nhint: " in said


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("VIRTMGR_LISTEN", "7443", "--listen"),
        ("VIRTMGR_DATABASE", "no url, but a secret", "URL"),
        ("VIRTMGR_DATABASE_FILE", "/nowhere/file", "--database-file"),
        ("VIRTMGR_REGISTRY_MIRRORS", "nonsense", "nonsense"),
    ],
)
def test_a_broken_setting_is_named(tmp_path: Path, name: str, value: str, named: str) -> None:
    data = str(tmp_path / "data")
    said = fails(tmp_path, "serve", "--data-directory", data, **{name: value})
    assert named in said
    assert "secret" not in said


def test_a_new_data_directory_wants_init(tmp_path: Path) -> None:
    said = fails(tmp_path, "serve", "--data-directory", str(tmp_path))
    assert "virtmgr init" in said


def test_an_agent_without_its_files(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    files = ("--ca-file", missing, "--join-token-file", missing)
    server = ("--server", "https://127.0.0.1:1")
    said = fails(tmp_path, "agent", "--data-directory", str(tmp_path), *server, *files)
    assert missing in said
    assert "\nhint: " in said


def test_missing_rights_are_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused, telling():
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    assert str(tmp_path) in refused.value.message
    assert "root" in str(refused.value.hint)
