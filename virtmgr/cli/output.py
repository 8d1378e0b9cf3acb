"""How results are shown: tables, JSON, YAML. Plain text where the output is no terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from virtmgr.cli.session import Session
from virtmgr.domain.difference import to_yaml

Item = Mapping[str, Any]

_COLOURS = {
    "running": "green",
    "ready": "green",
    "succeeded": "green",
    "failed": "red",
    "unreachable": "red",
    "fenced": "red",
    "waiting": "yellow",
    "install_failed": "red",
    "unknown": "yellow",
    "paused": "yellow",
    "cordoned": "yellow",
    "maintenance": "yellow",
    "cancelled": "yellow",
    "stopped": "bright_black",
}


@dataclass(frozen=True)
class Column:
    """A column: its title and how to get its text from an item. ``wide``: only with -o wide."""

    title: str
    value: Callable[[Item], Any]
    wide: bool = False


def column(title: str, path: str, *, wide: bool = False, shown: Any = None) -> Column:
    """A column that shows what is at the dotted ``path``, through ``shown`` if given."""

    def value(item: Item) -> Any:
        found = at(item, path)
        return shown(found) if shown and found is not None else found

    return Column(title, value, wide)


def at(item: Any, path: str) -> Any:
    """What is at a dotted path in nested mappings; None where there is nothing."""
    for part in path.split("."):
        if not isinstance(item, Mapping):
            return None
        item = item.get(part)
    return item


def show_items(session: Session, items: Sequence[Item], columns: Sequence[Column]) -> None:
    """A list, as ``-o`` asks."""
    if session.output == "json":
        click.echo(to_json(list(items)))
    elif session.output == "yaml":
        click.echo(to_yaml(list(items)), nl=False)
    elif session.output == "name":
        for item in items:
            click.echo(item.get("name") or item.get("id"))
    else:
        wide = session.output == "wide"
        click.echo(table(items, [c for c in columns if wide or not c.wide]))


def show_item(session: Session, item: Any, columns: Sequence[Column] = ()) -> None:
    """One thing: YAML for people, or as ``-o`` asks."""
    if session.output in ("table", "wide") and columns:
        show_items(session, [item], columns)
    elif session.output == "json":
        click.echo(to_json(item))
    elif session.output == "name":
        click.echo(item.get("name") or item.get("id"))
    else:
        click.echo(to_yaml(item), nl=False)


def table(items: Iterable[Item], columns: Sequence[Column]) -> str:
    """Aligned columns with a title line, two blanks between; ``-`` where there is nothing."""
    rows = [[cell(c.value(item)) for c in columns] for item in items]
    return aligned([c.title for c in columns], rows)


def aligned(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns. States are coloured; ``click.echo`` drops colours outside a terminal."""
    widths = [max(map(_width, texts)) for texts in zip(titles, *rows, strict=True)]
    lines = ["  ".join(t + " " * (w - _width(t)) for t, w in zip(titles, widths, strict=True))]
    for row in rows:
        lines.append("  ".join(_padded(text, w) for text, w in zip(row, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any) -> str:
    """A value as one line of text."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={each}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return printable(str(value))


def printable(text: str) -> str:
    """``text`` without control characters, which could rule the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def size(count: float) -> str:
    """Bytes in the largest binary unit that keeps it at least 1 (as ``domain.values`` does)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"


def age(timestamp: str, now: datetime | None = None) -> str:
    """How long ago, in one unit: ``42s``, ``5m``, ``3h``, ``12d``."""
    then = parse_time(timestamp)
    seconds = int(((now or datetime.now(UTC)) - then).total_seconds())
    for unit, length, least in (("d", 86400, 2), ("h", 3600, 2), ("m", 60, 2)):
        if seconds >= length * least:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def until(timestamp: str, now: datetime | None = None) -> str:
    """How long a time is ahead, in one unit; ``past`` when it is over."""
    seconds = int((parse_time(timestamp) - (now or datetime.now(UTC))).total_seconds())
    if seconds <= 0:
        return "past"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def parse_time(timestamp: str) -> datetime:
    """An RFC 3339 time."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00"))


def local_time(timestamp: str) -> str:
    """A time for people: their own zone, to the second."""
    return parse_time(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _padded(text: str, width: int) -> str:
    blanks = " " * (width - _width(text))
    colour = _COLOURS.get(text)
    return (click.style(text, fg=colour) if colour else text) + blanks


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
