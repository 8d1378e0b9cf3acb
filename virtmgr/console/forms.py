"""What people type into forms, as the API wants it. What is wrong is left for the API to refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from virtmgr.console.rest import Refusal


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


def labels_text(found: Mapping[str, str]) -> str:
    """Labels as ``labels`` reads them."""
    return "\n".join(f"{key}={value}" for key, value in sorted(found.items()))


def labels(text: str, before: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """One ``key=value`` a line, or separated by commas; those of ``before`` that are left out are
    None, as a merge patch wants.

    :raises Refusal: a line is no label; about the field ``labels``.
    """
    found: dict[str, str | None] = dict.fromkeys(before or ())
    for line in re.split(r"[\n,]", text):
        if not line.strip():
            continue
        key, separator, value = line.partition("=")
        if not separator or not key.strip():
            message = f"{line.strip()!r} is no label: write key=value"
            raise Refusal(422, {"detail": message, "field": "labels"})
        found[key.strip()] = value.strip()
    return found
