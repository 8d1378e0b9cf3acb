"""A workload's spec as people read and write it: as YAML, and as a form for changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from virtmgr.console.formatting import exact_size
from virtmgr.console.workload_form import Reader
from virtmgr.domain.difference import patch_for, to_yaml
from virtmgr.domain.values import parse_bytes

_SIZES: Final = ("memory", "size", "read_bytes_per_second", "write_bytes_per_second")
_BYTE_RATES: Final = _SIZES[2:]
_OPERATION_RATES: Final = ("read_operations_per_second", "write_operations_per_second")


def readable(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec without what is not given, and with sizes as people write them."""
    found: dict[str, Any] = {}
    for name, value in spec.items():
        shown = readable(value) if isinstance(value, Mapping) else value
        if isinstance(value, list):
            shown = [readable(one) if isinstance(one, Mapping) else one for one in value]
        if name in _SIZES and isinstance(value, int):
            shown = exact_size(value)
        if isinstance(value, float) and value.is_integer():
            shown = int(value)
        if shown not in (None, "", {}) and not (shown == [] and name != "nics"):
            found[name] = shown
    return found


def as_text(spec: Mapping[str, Any]) -> str:
    """The spec as YAML to be edited."""
    return to_yaml(readable(spec))


def from_text(text: str) -> dict[str, Any]:
    """The spec that somebody wrote.

    :raises ValueError: it is no YAML, or no mapping of fields.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("this is no spec: write FIELD: VALUE on each line")
    return found


# ---- the form for changes


def edit_fields(spec: Mapping[str, Any]) -> dict[str, str]:
    """The fields of the form, as the spec has them."""
    resources, io = spec["resources"], spec["resources"]["io"]
    found = {
        "name": spec["name"],
        "description": spec["description"],
        "labels": "\n".join(f"{key}={value}" for key, value in spec["labels"].items()),
        "resources.vcpus": f"{resources['vcpus']:g}",
        "resources.memory": str(exact_size(resources["memory"])),
        "resources.pids": resources["pids"],
        "restart": spec["restart"],
        "stop_timeout": spec["stop_timeout"],
        "protected": "true" if spec["protected"] else "",
        "ha.enabled": "true" if spec["ha"]["enabled"] else "",
        "ha.priority": spec["ha"]["priority"],
    }
    for name, value in io.items():
        is_size = name in _BYTE_RATES and value is not None
        found[f"resources.io.{name}"] = exact_size(value) if is_size else value
    return {name: "" if value is None else str(value) for name, value in found.items()}


def edit_patch(
    spec: Mapping[str, Any], fields: Mapping[str, str]
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """The merge patch that the form asks for, and what of it cannot be read, by field."""
    kind = spec["init"] or "vm" if spec["kind"] == "container" else "vm"
    reader = Reader({**fields, "kind_of": kind})
    rates: dict[str, Any] = {
        name: _bytes(reader.text(f"resources.io.{name}")) for name in _BYTE_RATES
    }
    rates |= {name: reader.whole(f"resources.io.{name}") for name in _OPERATION_RATES}
    resources = {
        "vcpus": reader.number("resources.vcpus"),
        "memory": _bytes(reader.text("resources.memory")),
        "pids": reader.whole("resources.pids"),
        "io": rates,
    }
    wanted = {
        "name": reader.text("name"),
        "description": reader.text("description") or "",
        "labels": reader.pairs("labels"),
        "resources": resources,
        "restart": reader.text("restart"),
        "stop_timeout": reader.whole("stop_timeout"),
        "protected": reader.on("protected"),
        "ha": {"enabled": reader.on("ha.enabled"), "priority": reader.whole("ha.priority") or 0},
    }
    return patch_for(spec, wanted), reader.wrong


def _bytes(text: str | None) -> Any:
    """A size as the API keeps it, so that one that stays the same is no change."""
    try:
        return None if text is None else parse_bytes(text if not text.isdecimal() else int(text))
    except ValueError:
        return text  # the API says what is wrong with it
