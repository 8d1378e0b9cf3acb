"""YAML documents that ``apply`` takes: which noun each is, and where it lives in the API. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from virtmgr.domain.errors import InvalidRequest

Normalise = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Noun:
    """A kind of document. ``spec_in``: the field of an answer that holds what can be applied."""

    name: str
    plural: str
    in_project: bool = False
    spec_in: str | None = None
    sizes: tuple[str, ...] = ()  # fields that hold bytes, at any depth
    renamed: Mapping[str, str] = field(default_factory=dict)  # in the document → in the API


NOUNS = {
    noun.name: noun
    for noun in (
        Noun("project", "projects"),
        Noun("quota", "quota", sizes=("limit_memory", "limit_disk")),
        Noun("cluster", "clusters"),
        Noun("network", "networks", in_project=True, renamed={"network_type": "type"}),
        Noun("volume", "volumes", in_project=True, sizes=("size",)),
        Noun("workload", "workloads", in_project=True, spec_in="spec", sizes=("memory", "size")),
    )
}
"""In the order in which they are applied, so that what others need comes first."""


@dataclass(frozen=True)
class Document:
    """One thing that is wanted."""

    noun: Noun
    name: str
    project: str | None
    wanted: Mapping[str, Any]

    @property
    def title(self) -> str:
        return f"{self.noun.name} {self.name}"


def parse(raw: object, position: int) -> Document:
    """One YAML document; ``type`` names the noun (default workload), ``project`` its project.

    :raises InvalidRequest: it is no mapping, of an unknown type, or has no name.
    """
    where = f"document {position}"
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"{where} is no mapping of fields")
    fields = dict(raw)
    noun = NOUNS.get(str(fields.pop("type", "workload")))
    if noun is None:
        raise InvalidRequest(
            f"{where} is of unknown type {raw['type']!r}",
            field="type",
            hint="one of " + ", ".join(NOUNS),
        )
    project = fields.pop("project", None)
    name = project if noun.name == "quota" else fields.get("name")
    if not isinstance(name, str) or not name:
        needed = "project" if noun.name == "quota" else "name"
        raise InvalidRequest(f"{where} ({noun.name}) has no {needed}", field=needed)
    fields = {noun.renamed.get(key, key): value for key, value in fields.items()}
    return Document(noun, name, project, plain_sizes(fields, noun.sizes))


def in_order(documents: list[Document]) -> list[Document]:
    """Projects before what is in them, networks and volumes before workloads."""
    places = {name: place for place, name in enumerate(NOUNS)}
    return sorted(documents, key=lambda document: places[document.noun.name])


def plain_sizes(value: Any, names: tuple[str, ...]) -> Any:
    """``value`` with sizes such as ``2GiB`` as numbers, so that they compare."""
    if isinstance(value, Mapping):
        return {key: _size(each) if key in names else plain_sizes(each, names)
                for key, each in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [plain_sizes(each, names) for each in value]
    return value


def _size(value: Any) -> Any:
    from virtmgr.domain.values import parse_bytes

    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError:
        return value  # the server says what is wrong with it


def comparable(noun: Noun, spec: Mapping[str, Any]) -> dict[str, Any]:
    """``spec`` with every default filled in, where this version knows the schema.

    A spec that does not fit it (a newer server's, or a mistake that the server will name) is
    compared as it stands.
    """
    if noun.name != "workload":
        return dict(spec)
    from pydantic import ValidationError

    from virtmgr.domain.workload import WorkloadSpec

    try:
        return WorkloadSpec.model_validate(spec).model_dump(mode="json", exclude_none=True)
    except ValidationError:
        return dict(spec)
