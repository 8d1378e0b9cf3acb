"""Secrets in answers: shown once, never kept."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


def secret_field(description: str) -> Any:
    """A field of a view that holds a secret; null where the answer is given again."""
    return Field(description=description, json_schema_extra={"x-secret": True})


def redacted(view: BaseModel) -> BaseModel:
    """``view`` with null for every field that ``secret_field`` made."""
    secret = {
        name: None
        for name, field in type(view).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("x-secret")
    }
    return view.model_copy(update=secret) if secret else view
