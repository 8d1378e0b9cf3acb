"""JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from virtmgr.api.problems import from_validation

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


class Patch(Generic[M]):
    """A merge patch of the fields that ``M`` describes."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def apply(self, current: M) -> M:
        """``current`` with the patch applied. What the patch removes takes its default.

        :raises InvalidFields: the result breaks the schema.
        """
        before = current.model_dump(mode="json", exclude_unset=True)
        try:
            merged = json.dumps(merge(before, self.document))
            return type(current).model_validate_json(merged, strict=True)
        except ValidationError as error:
            raise from_validation(error) from error
