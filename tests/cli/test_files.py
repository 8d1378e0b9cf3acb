"""Copying files, and archives that are not to be trusted."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fake_server import State
from virtmgr.cli.archive import pack, unpack
from virtmgr.cli.files import Place, destination
from virtmgr.cli.images import inspected
from virtmgr.domain.errors import InvalidRequest


def archive(*members: tuple[str, str, str]) -> Iterator[bytes]:
    """A tar of (name, type, link or content); in odd pieces."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o4755
            if kind == "file":
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
                continue
            types = {"dir": b"5", "symlink": b"2", "hardlink": b"1", "device": b"3"}
            info.type, info.linkname = types[kind], text
            tar.addfile(info)
    data = buffer.getvalue()
    return (data[i : i + 777] for i in range(0, len(data), 777))


def test_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "data").write_bytes(os.urandom(1_000_000))
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "link").symlink_to("inner/data")
    (source / "hard").hardlink_to(source / "run.sh")
    (source / ("long" * 50)).touch()
    target = tmp_path / "target"
    unpack(pack(source, "source"), target)
    assert (target / "inner/data").read_bytes() == (source / "inner/data").read_bytes()
    assert (target / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (target / "link").readlink() == Path("inner/data")
    assert (target / "hard").samefile(target / "run.sh")
    assert {p.name for p in target.iterdir()} == {p.name for p in source.iterdir()}


def test_into_a_directory_or_under_a_new_name(tmp_path: Path) -> None:
    unpack(archive(("hosts", "file", "x")), tmp_path)
    assert (tmp_path / "hosts").read_text() == "x"
    unpack(archive(("hosts", "file", "y")), tmp_path / "other")
    assert (tmp_path / "other").read_text() == "y"
    assert (tmp_path / "other").stat().st_mode & 0o7777 == 0o755  # no setuid


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/passwd", "file", "x")],
        [("../escape", "file", "x")],
        [("a", "dir", ""), ("a/../../escape", "file", "x")],
        [("a", "dir", ""), ("a/l", "symlink", "/etc"), ("a/l/x", "file", "x")],
        [("a", "dir", ""), ("a/l", "symlink", "../.."), ("a/l/x", "file", "x")],
        [("a", "dir", ""), ("a/d", "dir", ""), ("a/l", "symlink", "d"), ("a/l/x", "file", "x")],
        [("a", "dir", ""), ("a/h", "hardlink", "/etc/passwd")],
        [("a", "dir", ""), ("a/h", "hardlink", "a/../../x")],
        [("a", "file", "x"), ("b", "file", "x")],
    ],
)
def test_archives_that_lead_out_are_refused(
    tmp_path: Path, members: list[tuple[str, str, str]]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(InvalidRequest):
        unpack(archive(*members), root)
    assert list(tmp_path.iterdir()) == [root]


def test_an_existing_link_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("safe")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "d").symlink_to(outside)
    (root / "a" / "f").symlink_to(victim)
    with pytest.raises(InvalidRequest):
        unpack(archive(("a", "dir", ""), ("a/d/x", "file", "x")), root)
    unpack(archive(("a", "dir", ""), ("a/f", "file", "new")), root)
    assert (victim.read_text(), (root / "a/f").read_text()) == ("safe", "new")
    assert not any(outside.iterdir())


def test_devices_are_left_out(tmp_path: Path) -> None:
    unpack(archive(("a", "dir", ""), ("a/null", "device", "")), tmp_path)
    assert list((tmp_path / "a").iterdir()) == []


def test_cp_out_and_in(virtmgr: Run, state: State, tmp_path: Path) -> None:
    assert virtmgr("cp", "web1:/etc", str(tmp_path / "etc")).exit_code == 0
    assert (tmp_path / "etc/hosts").read_text() == "hosts"
    assert state.requests[-1][1].endswith("/web1/files?path=%2Fetc")
    page = tmp_path / "page.html"
    page.write_text("<p>")
    result = virtmgr("cp", str(page), "web1:/www/index.html")
    assert result.exit_code == 0, result.output
    assert state.requests[-1][1].endswith("files?path=%2Fwww")
    with tarfile.open(fileobj=io.BytesIO(state.pushed)) as tar:
        assert tar.getnames() == ["index.html"]
    raw = virtmgr("cp", "web1:/etc", "-")
    with tarfile.open(fileobj=io.BytesIO(raw.stdout_bytes)) as tar:
        assert tar.getnames() == ["etc", "etc/hosts"]


def test_cp_usage(virtmgr: Run) -> None:
    assert virtmgr("cp", "a", "b").exit_code == 2
    assert virtmgr("cp", "a:/x", "b:/y").exit_code == 2
    assert virtmgr("cp", "a:x", "b").exit_code == 2
    missing = virtmgr("cp", "/nonexistent/file", "a:/x")
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr


def test_places() -> None:
    assert Place.parse("web1:/a:b") == Place("web1", "/a:b")
    assert Place.parse("./a:b") == Place(None, "./a:b")
    assert destination("/a/", "f") == ("/a", "f")
    assert destination("/a/.", "f") == ("/a", "f")
    assert destination("/a/b", "f") == ("/a", "b")


def test_image_upload(virtmgr: Run, state: State, tmp_path: Path) -> None:
    disk = tmp_path / "debian.qcow2"
    disk.write_bytes(b"QFI\xfb" + bytes(3_000_000))
    result = virtmgr("image", "import", str(disk))
    assert (result.exit_code, result.stdout) == (0, "image debian imported\n")
    assert state.uploaded == disk.read_bytes()
    assert state.requests[-2][2]["source"] == f"upload:part-{disk.stat().st_size}"
    wrong = virtmgr("image", "import", str(disk), "--checksum", "sha256:" + "0" * 64)
    assert wrong.exit_code == 1


def test_image_upload_goes_on(virtmgr: Run, state: State, tmp_path: Path) -> None:
    disk = tmp_path / "debian.qcow2"
    disk.write_bytes(os.urandom(3_000_000))
    state.uploaded = disk.read_bytes()[:500_000]  # of a command that was killed
    state.cut_uploads = 1_000_000
    result = virtmgr("image", "import", str(disk))
    assert result.exit_code == 0, result.output
    assert state.uploaded == disk.read_bytes()


def test_what_inspect_shows() -> None:
    disk = {"format": "qcow2", "virtual_size": 2**30}
    found = {"name": "d", "type": "disk", "failure": None, "manifest": {"disk": disk, "layers": []}}
    assert inspected(found, ["b/y", "a/x", "b/y"]) == {
        "name": "d",
        "type": "disk",
        "disk": disk,
        "used_by": ["a/x", "b/y"],
    }
    assert inspected({"name": "d", "manifest": None}, [])["used_by"] == []
