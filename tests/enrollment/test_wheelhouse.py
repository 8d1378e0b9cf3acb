"""What hosts install from."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from virtmgr.config.resources import resource_path
from virtmgr.domain.errors import InvalidRequest
from virtmgr.enrollment import wheelhouse
from virtmgr.enrollment.collection import install_collection
from virtmgr.enrollment.wheelhouse import (
    content_digest,
    is_current,
    make_wheelhouse,
    own_wheel,
    requirements_for,
)

_LOCK = """\
# for: 00
# Made by 'make lock'; not to be edited.
alembic==1.20.1 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via virtmgr (setup.cfg)
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:cc
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
psycopg[binary]==3.3.9 \\
    --hash=sha256:ee
win-inet-pton==1.1.0 ; sys_platform == 'win32' \\
    --hash=sha256:ff
"""


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4.6"), ("3.13", "2.5.5")])
def test_requirements_are_those_of_the_hosts_python(python: str, numpy: str) -> None:
    names = [line.split()[0] for line in requirements_for(_LOCK, python).splitlines()]
    assert names == ["alembic==1.20.1", f"numpy=={numpy}", "psycopg[binary]==3.3.9"]


def test_every_digest_is_kept_and_no_marker() -> None:
    text = requirements_for(_LOCK, "3.11")
    assert text.splitlines()[0] == "alembic==1.20.1 --hash=sha256:aa --hash=sha256:bb"
    assert ";" not in requirements_for(resource_path("requirements-host.lock").read_text(), "3.12")


def test_a_version_of_python_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        make_wheelhouse(tmp_path, ("3",))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_wheelhouse_is_whole(tmp_path: Path) -> None:
    old = tmp_path / "virtmgr-0.0.1-cp311-x86_64.tar"
    old.touch()
    release = make_wheelhouse(tmp_path, ("3.13",))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["release"] == release
    archive = tmp_path / manifest["archives"]["3.13"]["file"]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "manifest.json", archive]
    with tarfile.open(archive) as opened:
        names = opened.getnames()
        requirements = opened.extractfile("requirements.txt")
        assert requirements is not None
        wanted = requirements.read().decode().splitlines()
    assert len(names) == len(wanted) + 1  # a wheel for every line, and the lines
    assert all("--hash=sha256:" in line for line in wanted)


@pytest.mark.slow
def test_the_own_wheel_has_everything_and_is_the_same_again(tmp_path: Path) -> None:
    own = own_wheel(tmp_path / "own")
    assert own.read_bytes() == own_wheel(tmp_path / "again").read_bytes()
    with zipfile.ZipFile(own) as wheel:
        names = set(wheel.namelist())
    assert "virtmgr/_resources/ansible/galaxy.yml" in names
    assert "virtmgr/_resources/requirements-host.lock" in names
    assert "virtmgr/bootstrap/agent.py" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_collection_is_replaced_whole(tmp_path: Path) -> None:
    place = install_collection(tmp_path)
    (place / "left-over").touch()
    assert install_collection(tmp_path) == place
    assert (place / "galaxy.yml").exists()
    assert not (place / "left-over").exists()
    assert [path.name for path in place.parent.iterdir()] == ["core"]


def _made(directory: Path, **changes: object) -> Path:
    (directory / "a.tar").touch()
    manifest = {"content": content_digest(), "archives": {"3.11": {"file": "a.tar"}}, **changes}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def test_a_wheelhouse_is_of_the_virtmgr_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_current(tmp_path)
    assert is_current(_made(tmp_path))
    assert not is_current(_made(tmp_path, content="of another one"))
    assert not is_current(_made(tmp_path, archives=None))
    (_made(tmp_path) / "a.tar").unlink()
    assert not is_current(tmp_path)
    _made(tmp_path)
    files = wheelhouse._files_of_tree(resource_path("requirements-host.lock").parent)
    changed = {**files, "requirements-host.lock": b"another one"}
    monkeypatch.setattr(wheelhouse, "_files_of_tree", lambda _: changed)
    assert not is_current(tmp_path)  # of the same version
