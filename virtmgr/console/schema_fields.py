"""A JSON schema as a list of fields for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Schema = Mapping[str, Any]

_DEEPEST: Final = 4


@dataclass(frozen=True)
class SchemaField:
    """One field, by its dotted name; ``[]`` stands for each entry of a list."""

    name: str
    kind: str
    required: bool
    about: str


def fields_of(root: Schema) -> list[SchemaField]:
    """All fields of the schema, each before those in it."""
    return list(_walk(root, root, "", 0))


def _walk(root: Schema, schema: Schema, prefix: str, depth: int) -> Iterator[SchemaField]:
    required = schema.get("required", ())
    for name, found in schema.get("properties", {}).items():
        inner, kind = _meant(root, found)
        about = str(found.get("description") or inner.get("description") or "")
        yield SchemaField(prefix + name, kind, name in required, about)
        if depth < _DEEPEST:
            each = f"{prefix}{name}{'[]' if kind.startswith('list') else ''}."
            yield from _walk(root, inner, each, depth + 1)


def _meant(root: Schema, schema: Schema) -> tuple[Schema, str]:
    """What a schema refers to (of a list: its entries), and its kind in words."""
    if "$ref" in schema:
        return _meant(root, root["$defs"][str(schema["$ref"]).rpartition("/")[2]])
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        return _meant(root, choices[0])
    if choices:
        return schema, " or ".join(dict.fromkeys(str(one.get("type", "value")) for one in choices))
    if "enum" in schema:
        return schema, " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        inner, kind = _meant(root, schema.get("items", {}))
        return inner, f"list of {kind}"
    kind = str(schema.get("type", "value"))
    is_map = kind == "object" and "properties" not in schema
    return schema, "map" if is_map else kind
