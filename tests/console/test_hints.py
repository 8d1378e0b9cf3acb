"""Where a hint names a command, the console leads to its own way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import NotFound

import virtmgr
from virtmgr.console.app import create_console
from virtmgr.console.hints import Piece, pieces, plain


@pytest.mark.parametrize(
    ("hint", "shown", "path"),
    [
        (
            "put it right, then 'virtmgr host retry h1'",
            "Retry the installation",
            "/hosts/h1/again/retry",
        ),
        ("see 'virtmgr host show h1.example'", "Summary", "/hosts/h1.example"),
        ("see it with 'virtmgr host show'", "Hosts", "/hosts"),
        ("make a new one with 'virtmgr host token NAME'", "Hosts", "/hosts"),
        ("set one with 'virtmgr host fence set h1'", "Fencing", "/hosts/h1/fencing"),
        ("move it with 'virtmgr move web1', or …", "Move", "/projects/shop/workloads/web1/move"),
        ("see 'virtmgr logs web1'", "Log", "/projects/shop/workloads/web1/console?show=log"),
        ("correct it with 'virtmgr edit web1'", "YAML", "/projects/shop/workloads/web1/yaml"),
        ("see 'virtmgr network list'", "Networks", "/networks"),
        ("see its NICs with 'virtmgr show'", "Disks and NICs", "/workloads"),
    ],
)
def test_a_command_becomes_a_link(hint: str, shown: str, path: str) -> None:
    found = pieces(hint, "shop")
    assert Piece(shown, path) in found
    assert f"“{shown}”" in plain(found)
    assert "virtmgr" not in plain(found)


def test_what_the_console_has_not_stays() -> None:
    told = "run 'virtmgr host-clean' on the machine"
    assert pieces(told) == [Piece(told)]
    assert pieces("") == []
    assert pieces("'virtmgr move <script>'") == [Piece("Move", "/workloads")]
    assert pieces("copy them (--with-volumes), or stop") == [Piece("copy them, or stop")]
    assert pieces("see the log (virtmgr operation log ID)") == [Piece("see the log")]
    assert pieces("'virtmgr host show'", host="h2") == [Piece("Summary", "/hosts/h2")]


def test_hints_of_the_source_lead_to_pages() -> None:
    """Every command that a hint in the source names, with its names filled in."""
    nothing: Any = None
    routes = create_console(nothing).url_map.bind("console")
    package = Path(virtmgr.__file__).parent
    texts = [
        path.read_text()
        for part in ("domain", "services", "agent", "enrollment")
        for path in sorted((package / part).rglob("*.py"))
    ]
    hints = {
        re.sub(r"\{[^}]*\}", "x", found)
        for text in texts
        for found in re.findall(r"'virtmgr [^'\n\"]+'", text)
    }
    led = 0
    for hint in hints:
        for piece in pieces(hint, "shop", "x"):
            if piece.path is not None:
                led += 1
                try:
                    routes.match(piece.path.partition("?")[0], method="GET")
                except NotFound:
                    pytest.fail(f"{hint} leads to {piece.path}, which is not there")
    assert led > 20
