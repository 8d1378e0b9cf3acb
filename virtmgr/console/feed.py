"""Events in a few words, each with a link to what it is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from virtmgr.console import links
from virtmgr.console.formatting import words


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


def operation_words(message: str, outcome: str) -> str:
    """An operation's event without its target: "update: at the next start" has succeeded."""
    verb, _, rest = message.partition(": ")
    told = f"{words(verb) or 'it'} {words(outcome)}"
    return f"{told}: {rest}" if rest else told


def _line(event: Mapping[str, Any]) -> Line:
    name, message = event["target"]["name"], event["message"]
    noun, _, verb = event["type"].partition(".")
    text = message or words(verb)
    if noun == "operation":
        text = operation_words(message, verb)
    elif message.startswith("it was "):  # what it is now says the event's type
        text = f"{words(verb)}: {message}"
    said = name in message.split() or name == event["target"]["id"]  # which is no name for people
    return Line(
        sequence=event["sequence"],
        at=event["at"],
        name="" if said else name,
        link=None if verb == "deleted" else links.to(event["target"], event["project"]),
        text=text,
        user=event["user"]["name"] if event["user"] else "virtmgr",
    )
