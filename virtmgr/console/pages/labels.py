"""Labels as people type them: a line or comma for each, key=value. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from virtmgr.console.rest import Refusal


def write_labels(labels: Mapping[str, str]) -> str:
    """One line each."""
    return "\n".join(f"{key}={value}" for key, value in sorted(labels.items()))


def parse_labels(text: str, before: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """What ``text`` says; those of ``before`` that it leaves out are None, as a merge patch wants.

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
