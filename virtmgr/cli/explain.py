"""``explain``: what every field of a workload means, from the server's own schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from virtmgr.cli.command import command, output_option
from virtmgr.cli.output import show_item, to_json
from virtmgr.cli.session import Session, pass_session
from virtmgr.domain.errors import NotFound

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One field of a JSON schema, for people."""

    name: str
    type: str
    required: bool
    default: Any
    description: str
    schema: Schema


@command("explain")
@click.argument("field", default="workload")
@click.option("--recursive", "-r", is_flag=True, help="Fields of fields too.")
@output_option
@pass_session
def explain(session: Session, field: str, recursive: bool) -> None:
    """Describe FIELD of a workload: restart, resources.memory, nics.address, …; default: all."""
    path = [name for name in field.split(".") if name]
    if path[:1] in (["workload"], ["workloads"]):
        path = path[1:]
    root = schema_in(session.client.get("/schema/workload"))
    found = walk(root, path)
    if session.output in ("json", "yaml"):
        show_item(session, dict(found))
        return
    click.echo("\n".join(describe(root, found, field, recursive=recursive)))


def schema_in(answer: Mapping[str, Any]) -> Schema:
    """The JSON schema itself, whether the answer is it or wraps it."""
    wrapped = answer.get("schema")
    return wrapped if isinstance(wrapped, Mapping) else answer


def walk(root: Schema, path: list[str]) -> Schema:
    """The schema of the field at ``path``; entries of lists are looked through. Pure.

    :raises NotFound: there is no such field.
    """
    current = resolve(root, root)
    for name in path:
        inner = properties(root, current)
        if name not in inner:
            raise NotFound(
                f"a workload has no field {'.'.join(path)!r}",
                hint="one of: " + ", ".join(inner) if inner else None,
            )
        current = inner[name]
    return current


def describe(root: Schema, schema: Schema, name: str, *, recursive: bool) -> list[str]:
    """The lines that describe a field and the fields in it. Pure."""
    lines = [f"{name} ({type_of(root, schema)})"]
    described = schema.get("description") or resolve(root, schema).get("description")
    if described:
        lines.append(f"    {_one_line(described)}")
    lines += [f"    {each}" for each in _limits(resolve(root, schema))]
    inner = list(fields(root, schema))
    if inner:
        lines += ["", "FIELDS"]
    for each in inner:
        lines += _field_lines(root, each, 1, recursive=recursive)
    return lines


def _field_lines(root: Schema, field: Field, depth: int, *, recursive: bool) -> Iterator[str]:
    indent = "    " * depth
    note = "  required" if field.required else ""
    if field.default not in (None, "", [], {}):
        note = f"  default: {to_json(field.default) if field.default is True else field.default}"
    yield f"{indent}{field.name} ({field.type}){note}"
    if field.description:
        yield f"{indent}    {_one_line(field.description)}"
    if recursive:
        for each in fields(root, field.schema):
            yield from _field_lines(root, each, depth + 1, recursive=True)


def fields(root: Schema, schema: Schema) -> Iterator[Field]:
    """The fields in a schema, in its order."""
    holder = _object(root, schema)
    required = holder.get("required", ())
    for name, each in properties(root, schema).items():
        target = resolve(root, each)
        yield Field(
            name,
            type_of(root, each),
            name in required,
            each.get("default", target.get("default")),
            each.get("description") or target.get("description") or "",
            each,
        )


def properties(root: Schema, schema: Schema) -> Mapping[str, Schema]:
    found = _object(root, schema).get("properties", {})
    return found if isinstance(found, Mapping) else {}


def _object(root: Schema, schema: Schema) -> Schema:
    """The object that a schema is about: itself, or what its list has for entries."""
    found = resolve(root, schema)
    while isinstance(found.get("items"), Mapping):
        found = resolve(root, found["items"])
    return found


def resolve(root: Schema, schema: Schema) -> Schema:
    """Follow references, and choices of which only one is not null."""
    while True:
        if "$ref" in schema:
            target: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target[part]
            schema = target
            continue
        choices = [c for c in schema.get("anyOf", ()) if c.get("type") != "null"]
        if len(choices) != 1:
            return schema
        schema = choices[0]


def type_of(root: Schema, schema: Schema) -> str:
    """The type for people: ``string``, ``list of object``, ``one of a, b``."""
    found = resolve(root, schema)
    if "enum" in found:
        return "one of " + ", ".join(map(str, found["enum"]))
    if "const" in found:
        return str(found["const"])
    choices = [type_of(root, c) for c in found.get("anyOf", ()) if c.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(choices))
    kind = str(found.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(root, found.get('items', {}))}"
    if kind == "object" and "properties" not in found:
        return "map"
    return kind


def _limits(schema: Schema) -> list[str]:
    names = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most",
             "maxLength": "characters at most:", "maxItems": "entries at most:"}  # fmt: skip
    return [f"{text} {schema[key]}" for key, text in names.items() if key in schema]


def _one_line(text: str) -> str:
    return " ".join(text.split())
