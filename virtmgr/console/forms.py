"""What people type into forms, as the API wants it. What is wrong is left for the API to refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def filled(form: Mapping[str, str], names: Iterable[str]) -> dict[str, Any]:
    """The named fields that something was typed into."""
    typed = {name: form.get(name, "").strip() for name in names}
    return {name: text for name, text in typed.items() if text}


def number(text: str) -> int | float | str | None:
    """A typed number; None where nothing was typed, and what is none as it is."""
    text = text.strip()
    if not text:
        return None
    if re.fullmatch(r"\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"\d*\.\d+|\d+\.", text) else text


def names(text: str) -> list[str]:
    """Names that are separated by commas or white space."""
    return [name for name in re.split(r"[\s,]+", text) if name]


def labels(text: str) -> dict[str, str]:
    """One ``key=value`` a line, or separated by commas."""
    pairs = (line.partition("=") for line in re.split(r"[\n,]+", text) if line.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def labels_text(found: Mapping[str, str]) -> str:
    """Labels as ``labels`` reads them."""
    return "\n".join(f"{key}={value}" for key, value in sorted(found.items()))


def patch(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch from one to the other: null takes away, in objects too."""
    changed: dict[str, Any] = {}
    for name, value in wanted.items():
        old = before.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            gone = {key: None for key in old if key not in value}
            inner = gone | {key: new for key, new in value.items() if old.get(key) != new}
            if inner:
                changed[name] = inner
        elif old != value:
            changed[name] = value
    return changed
