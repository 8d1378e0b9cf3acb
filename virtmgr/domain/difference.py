"""What changes between two documents: as a JSON merge patch and as a text for people. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

OPEN_MAPS = frozenset({"labels", "env", "require", "prefer"})
"""Fields whose keys are the user's own: a document that gives one gives the whole of it."""


def merged(current: Any, patch: Any) -> Any:
    """``current`` with ``patch`` applied (RFC 7396, section 2)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(current) if isinstance(current, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def patch_between(before: Any, after: Any) -> dict[str, Any]:
    """The merge patch that turns ``before`` into ``after``, both whole documents."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := patch_between(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


def patch_for(current: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that brings ``current`` to all that ``wanted`` says, and no further.

    What ``wanted`` leaves out stays as it is; what it gives as null takes its default. Of an open
    map, keys that it leaves out are removed.
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        old = current.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = patch_for(old, value)
            if key in OPEN_MAPS:
                inner = {**{name: None for name in old if name not in value}, **inner}
            if inner:
                patch[key] = inner
        elif value is None and old is None:
            continue
        elif key not in current or old != value:
            patch[key] = value
    return patch


def unified(before: Any, after: Any, name: str) -> list[str]:
    """The lines that differ, as ``diff -u`` shows them; empty where nothing does."""
    old = to_yaml(before).splitlines() if before is not None else []
    new = to_yaml(after).splitlines() if after is not None else []
    return list(difflib.unified_diff(old, new, f"{name} (now)", f"{name} (then)", lineterm="", n=2))


def to_yaml(value: Any) -> str:
    """``value`` as YAML for people: in its own order, texts of several lines as blocks."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """SafeDumper with blocks."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100))
