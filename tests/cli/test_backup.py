"""The commands that keep, restore and move a control plane, as somebody types them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from virtmgr.cli.main import root


def _run(directory: Path, *arguments: str) -> tuple[int, str]:
    environment = {
        "VIRTMGR_DATA_DIRECTORY": str(directory / "data"),
        "VIRTMGR_RUN_DIRECTORY": str(directory / "run"),
        "VIRTMGR_DATABASE": "",
        "VIRTMGR_CONFIG": str(directory / "config.json"),
        "HOME": str(directory),
    }
    result = CliRunner().invoke(root, list(arguments), env=environment)
    return result.exit_code, result.output


def test_backup_restore_convert(tmp_path: Path) -> None:
    assert _run(tmp_path, "init", "--no-context")[0] == 0
    file = tmp_path / "backup.tar"
    code, output = _run(tmp_path, "backup", str(file))
    assert code == 0, output
    assert "users" in output
    assert "pki/ca.key" in output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, output = _run(tmp_path, "backup", str(file))
    assert code != 0
    assert "--yes" in output
    code, output = _run(tmp_path, "restore", str(file))
    assert code != 0
    assert "--yes" in output
    code, output = _run(tmp_path, "restore", str(file), "--yes")
    assert code == 0, output
    code, output = _run(tmp_path, "db", "convert", "--to", f"sqlite:///{tmp_path / 'new.db'}")
    assert code == 0, output
    assert "every table holds the same in both" in output
    code, output = _run(tmp_path, "db", "convert", "--to", f"sqlite:///{tmp_path / 'new.db'}")
    assert code != 0
    assert "not empty" in output


@pytest.mark.parametrize(
    "url", ["postgresql://me:SECRET@db/x", "postgresql://db/x?user=me&password=SECRET"]
)
@pytest.mark.parametrize("command", [("serve", "--database"), ("db", "convert", "--to")])
def test_no_password_in_arguments(tmp_path: Path, url: str, command: tuple[str, ...]) -> None:
    code, output = _run(tmp_path, *command, url)
    assert code == 2
    assert "SECRET" not in output
    assert "-file" in output
