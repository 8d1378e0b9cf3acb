"""Hints of the API name commands; people are led to what does the same in the console. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

_COMMAND: Final = re.compile(r"'virtmgr (?P<words>[^']+)'")
_ASIDE: Final = re.compile(r" \((?:--|virtmgr )[^()]*\)")  # how the command line has it
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_PLACES: Final = {
    "list": ("Workloads", "/workloads"),
    "migration list": ("Migrations", "/migrations"),
    "migration cancel": ("Migrations", "/migrations"),
    "host list": ("Hosts", "/hosts"),
    "host scan": ("Add host", "/hosts/add"),
    "host renew-certificates": ("Hosts", "/hosts"),
    "cluster list": ("Clusters", "/clusters"),
    "network list": ("Networks", "/networks"),
    "network addresses": ("Networks", "/networks"),
    "volume list": ("Volumes", "/volumes"),
    "volume create": ("Create volume", "/volumes/create"),
    "image list": ("Images", "/images"),
    "image search": ("Import image", "/images/import"),
    "ca show": ("Settings", "/settings"),
    "ca retire": ("Settings", "/settings"),
    "ca rotate": ("Settings", "/settings"),
    "operation log": ("Operations", "/operations"),
    "login": ("Log in", "/login"),
}
"""Where the same is that a command does, whatever it is given."""

_OF_HOSTS: Final = {
    "host show": ("Summary", ""),
    "host retry": ("Retry the installation", "/again/retry"),
    "host upgrade": ("Upgrade its agent", "/again/upgrade"),
    "host uncordon": ("Uncordon", ""),
    "host drain": ("Drain", "/drain"),
    "host confirm-off": ("Confirm that it is off", ""),
    "host token": ("Join token", "/join-token"),
    "host fence set": ("Fencing", "/fencing"),
}
_OF_WORKLOADS: Final = {
    "show": ("Disks and NICs", "/devices"),
    "move": ("Move", "/move"),
    "stop": ("Stop", "/stop"),
    "resize": ("Resize", "/edit"),
    "logs": ("Log", "/console?show=log"),
    "console": ("Console", "/console"),
    "edit": ("YAML", "/yaml"),
}


@dataclass(frozen=True)
class Piece:
    """Part of a hint; ``path`` leads to what it names."""

    text: str
    path: str | None = None


def pieces(hint: str, project: str | None = None, host: str | None = None) -> Sequence[Piece]:
    """A hint with each command that the console has another way for replaced by that.

    :param project: where the workloads are that commands name; None: that is not known.
    :param host: the host that is meant where a command names none.
    """
    hint = _ASIDE.sub("", hint)
    found: list[Piece] = []
    at = 0
    for command in _COMMAND.finditer(hint):
        way = _way(command["words"].split(), project, host)
        if way is None:
            continue
        found += [Piece(hint[at : command.start()]), way]
        at = command.end()
    return [piece for piece in (*found, Piece(hint[at:])) if piece.text]


def plain(found: Sequence[Piece]) -> str:
    """The same as text."""
    return "".join(f"“{piece.text}”" if piece.path else piece.text for piece in found)


def _way(words: Sequence[str], project: str | None, host: str | None) -> Piece | None:
    for length in (3, 2, 1):
        name, given = " ".join(words[:length]), _first_name(words[length:])
        if name in _OF_HOSTS and (given or host):
            title, path = _OF_HOSTS[name]
            return Piece(title, f"/hosts/{quote(given or host or '', safe='')}{path}")
        if name in _OF_HOSTS:
            return Piece("Hosts", "/hosts")
        if name in _OF_WORKLOADS and given and project:
            title, path = _OF_WORKLOADS[name]
            place = f"/projects/{quote(project, safe='')}/workloads/{quote(given, safe='')}"
            return Piece(title, place + path)
        if name in _OF_WORKLOADS:
            return Piece(
                _OF_WORKLOADS[name][0], f"/workloads?q={quote(given)}" if given else "/workloads"
            )
        if name in _PLACES:
            return Piece(*_PLACES[name])
    return None


def _first_name(words: Sequence[str]) -> str:
    """What a command is about; NAME and --options are not names."""
    return words[0] if words and _NAME.fullmatch(words[0]) else ""
