"""Events in a few words, each with a link to what it is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from virtmgr.console.formatting import words

_OF_PROJECTS: Final = ("workload", "volume", "network")
_SHARED: Final = ("host", "cluster", "image", "project", "user", "network")


@dataclass(frozen=True)
class Line:
    """One event. ``name`` stands before ``text``, which does not have it in it."""

    sequence: int
    at: str
    name: str
    link: str | None
    text: str
    user: str


def lines(events: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The events as they are told."""
    return [_line(event) for event in events]


def _line(event: Mapping[str, Any]) -> Line:
    name, message = event["target"]["name"], event["message"]
    noun, _, verb = event["type"].partition(".")
    text = message or words(verb)
    if noun == "operation":
        text = f"{words(message)} {words(verb)}"
    said = name in message.split()
    return Line(
        sequence=event["sequence"],
        at=event["at"],
        name="" if said else name,
        link=link_to(event["target"]["type"], name, event["project"]),
        text=text,
        user=event["user"]["name"] if event["user"] else "virtmgr",
    )


def link_to(type: str, name: str, project: Mapping[str, Any] | None) -> str | None:
    """The page of what an event or operation is about; None: it has none."""
    if type in _OF_PROJECTS and project is not None:
        return f"/projects/{quote(project['name'], safe='')}/{type}s/{quote(name, safe='')}"
    return f"/{type}s/{quote(name, safe='')}" if type in _SHARED else None
