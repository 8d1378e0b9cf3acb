"""What the pages of screens, files and uploads decide, without any browser."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from virtmgr.console.pages.consoles import exec_body, screens_of
from virtmgr.console.pages.files import unpacked
from virtmgr.console.pages.uploads import import_body


def test_vms_have_a_display_and_containers_have_none() -> None:
    assert [screen.name for screen in screens_of("vm")] == ["display", "serial", "shell", "log"]
    assert [screen.name for screen in screens_of("container")] == ["shell", "serial", "log"]


def test_a_command_is_split_into_words_and_no_shell_sees_it() -> None:
    body = exec_body({"command": " top  -d 1 ", "user": "www", "rows": 40, "columns": 120})
    assert body["command"] == ["top", "-d", "1"]
    assert (body["user"], body["rows"], body["columns"]) == ("www", 40, 120)


def test_without_a_command_it_is_the_best_shell() -> None:
    body = exec_body({})
    assert body["command"][:2] == ["sh", "-c"]
    assert "user" not in body


def _archive(*members: tuple[str, bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _pieces(content: bytes, size: int = 700) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def test_a_file_comes_out_of_its_archive() -> None:
    content = bytes(range(256)) * 1000
    found = unpacked(_pieces(_archive(("hosts", content))), "hosts")
    assert (found.name, found.size) == ("hosts", len(content))
    assert b"".join(found.pieces) == content


def test_a_folder_stays_an_archive_to_the_byte() -> None:
    archive = _archive(("etc", None), ("etc/hosts", b"localhost"))
    found = unpacked(_pieces(archive), "etc")
    assert (found.name, found.size) == ("etc.tar", None)
    assert b"".join(found.pieces) == archive


def test_what_is_no_archive_is_given_as_it_came() -> None:
    found = unpacked(_pieces(b"nonsense" * 300), "x")
    assert b"".join(found.pieces) == b"nonsense" * 300


def test_an_import_says_what_was_filled_in_only() -> None:
    form = {"name": "tiny", "upload": "part-1-a", "aliases": "a, b", "format": "", "checksum": "AB"}
    assert import_body(form) == {
        "name": "tiny",
        "source": "upload:part-1-a",
        "aliases": ["a", "b"],
        "checksum": "sha256:ab",
    }
