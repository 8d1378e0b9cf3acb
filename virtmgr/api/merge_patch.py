"""JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from virtmgr.api.problems import FieldError, InvalidFields, from_validation
from virtmgr.api.sparse import models_in
from virtmgr.domain.difference import merged

M = TypeVar("M", bound=BaseModel)


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
            inner = models_in(field.annotation)
            if len(inner) == 1:
                found += _removed_in_vain(inner[0], value, f"{prefix}{name}.")
    return found


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
            document = json.dumps(merged(before, self.document))
            return type(current).model_validate_json(document, strict=True)
        except ValidationError as error:
            raise from_validation(error) from error
