"""Values as people read them: amounts with units, times, states."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from markupsafe import Markup

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BROWSERS: Final = (  # whoever comes later calls itself by the names before, too
    ("Edg/", "Edge"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chromium"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)
_SPANS: Final = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

TONES: Final = {
    "running": "green",
    "active": "green",
    "ready": "green",
    "available": "green",
    "succeeded": "green",
    "done": "green",
    "pending": "blue",
    "starting": "blue",
    "creating": "blue",
    "importing": "blue",
    "stopping": "blue",
    "enrolling": "blue",
    "probing": "blue",
    "moving": "blue",
    "planned": "blue",
    "preparing": "blue",
    "migrating": "blue",
    "copying": "blue",
    "cleaning": "blue",
    "retreating": "orange",
    "draining": "yellow",
    "paused": "yellow",
    "cordoned": "yellow",
    "maintenance": "yellow",
    "unreachable": "red",
    "unknown": "orange",
    "failed": "red",
    "locked": "red",
    "error": "red",
    "lost": "red",
    "fenced": "red",
    "install_failed": "red",
    "cancelled": "secondary",
    "stopped": "secondary",
    "removing": "orange",
    "deleting": "orange",
}
"""The colour of each state; a state that is not here is neutral. Colour is never all that tells."""


def amount(number: float | None) -> str:
    """Bytes with the largest unit that keeps at least one whole: 1.5 GiB."""
    if number is None:
        return "–"
    value, unit = float(number), 0
    while abs(value) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    shown = f"{value:.1f}".removesuffix(".0") if unit else f"{value:.0f}"
    return f"{shown} {_UNITS[unit]}"


def exact_size(count: int) -> str | int:
    """Bytes in the largest unit that says them exactly: 1536MiB; without one where none does."""
    for power, unit in reversed(list(enumerate(_UNITS[1:], start=1))):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power}{unit}"
    return count


def number(value: int | float | None) -> str:
    """A number without zeros that say nothing: 2, 0.5."""
    if isinstance(value, int):
        return str(value)  # however large
    return "–" if value is None else f"{value:g}"


def percent(part: float | None, whole: float | None) -> float:
    """``part`` of ``whole``, 0 to 100; 0 where there is no whole."""
    return min(100.0, round(100 * (part or 0) / whole, 1)) if whole else 0.0


def parse_time(value: str | datetime) -> datetime:
    """A time of the API, with its zone."""
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def now() -> str:
    """The server's time, by which the page's scripts tell ages."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def span(seconds: float) -> str:
    """A duration in its two largest units at most: 3 min, 2 d 4 h."""
    rest, words = int(abs(seconds)), []
    for length, unit in _SPANS:
        count, rest = divmod(rest, length)
        if count:
            words.append(f"{count} {unit}")
        if words and (len(words) == 2 or length <= 60):
            break
    return " ".join(words) or "0 s"


def age(value: str | datetime | None, at_time: datetime | None = None) -> Markup:
    """A ``time`` element: how long ago or until when.

    console.js adds the viewer's own zone, and lets the words go with the time (``data-age``).
    """
    if value is None:
        return Markup("–")
    at = parse_time(value)
    away = at - (at_time or datetime.now(UTC))
    words = span(away.total_seconds())
    if abs(away) < timedelta(seconds=1):
        words = "now"
    else:
        words = f"in {words}" if away > timedelta(0) else f"{words} ago"
    moment = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC" data-age>{}</time>').format(
        moment.isoformat(timespec="seconds"), f"{moment:%Y-%m-%d %H:%M:%S}", words
    )


def words(name: Any) -> str:
    """An identifier for people: install_failed → install failed."""
    return str(name).replace("_", " ").replace(".", " ")


def tone(state: Any) -> str:
    """The colour of a state."""
    return TONES.get(str(state), "secondary")


def sentence(text: Any) -> str:
    """A message of the API, which begins as the middle of a sentence would, as one by itself.

    What is the name of something (``web1: …``) is left as it is.
    """
    told = str(text)
    first = re.match(r"[a-z]+(?=[ ,;]|$)", told)
    return told[:1].upper() + told[1:] if first else told


def browser(user_agent: str) -> str:
    """What a session was begun with, as the browser says itself: Firefox on Linux."""
    name = next((title for mark, title in _BROWSERS if mark in user_agent), None)
    system = next((title for mark, title in _SYSTEMS if mark in user_agent), None)
    return " on ".join(filter(None, (name, system))) or user_agent[:40]


FILTERS: Final = {
    "browser": browser,
    "amount": amount,
    "number": number,
    "age": age,
    "sentence": sentence,
    "span": span,
    "words": words,
    "tone": tone,
}
GLOBALS: Final = {"percent": percent, "now": now}
