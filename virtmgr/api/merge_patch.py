"""JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from virtmgr.api.problems import FieldError, InvalidFields, from_validation

M = TypeVar("M", bound=BaseModel)


def merge(target: Any, patch: Any) -> Any:
    """``target`` with ``patch`` applied; both stay as they are (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def _removed_in_vain(model: type[BaseModel], patch: dict[str, Any], prefix: str = "") -> list[str]:
    """Members that the patch removes and that no value of ``model`` has: most likely misspelt.

    What it sets to a value is checked with the result, where a removed one leaves no trace.
    """
    if model.model_config.get("extra") != "forbid":
        return []
    found = []
    for name, value in patch.items():
        field = model.model_fields.get(name)
        if value is None and field is None:
            found.append(prefix + name)
        elif isinstance(value, dict) and field is not None:
            inner = _model_of(field.annotation)
            found += _removed_in_vain(inner, value, f"{prefix}{name}.") if inner else []
    return found


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The one model that a field may hold, beside null; None: it holds something else."""
    models = [
        part
        for part in (annotation, *get_args(annotation))
        if isinstance(part, type) and issubclass(part, BaseModel)
    ]
    return models[0] if len(models) == 1 else None


class Patch(Generic[M]):
    """A merge patch of the fields that ``M`` describes."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def apply(self, current: M) -> M:
        """``current`` with the patch applied. What the patch removes takes its default.

        :raises InvalidFields: the result breaks the schema.
        """
        unknown = [
            FieldError(field=name, code="extra_forbidden", message="is not known here")
            for name in _removed_in_vain(type(current), self.document)
        ]
        if unknown:
            raise InvalidFields(unknown)
        before = current.model_dump(mode="json", exclude_unset=True)
        try:
            merged = json.dumps(merge(before, self.document))
            return type(current).model_validate_json(merged, strict=True)
        except ValidationError as error:
            raise from_validation(error) from error
