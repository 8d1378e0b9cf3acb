"""Query parameters that all routes of a sort share (docs/api.md, Conventions)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from virtmgr.ports.unit_of_work import ListQuery


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it is beyond the years that can be told in UTC") from error


_NUMBER = re.compile(r"[-+]?[\d._]+(e[-+]?\d+)?", re.IGNORECASE)


def _no_number(given: Any) -> Any:
    """Numbers would be taken for seconds since 1970."""
    if isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
        raise ValueError("write the time with its zone, such as 2026-01-31T12:00:00Z")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
"""A time with its zone, as a query parameter."""


class Query(BaseModel):
    """Base of all query models: unknown parameters are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UsageQuery(Query):
    """From when on."""

    since: Moment | None = Field(
        None,
        description="What was used since then, RFC 3339: by minutes for the last hour, by quarters "
        "of an hour for the last day.",
    )


class ChangeQuery(Query):
    """What every change takes."""

    dry_run: bool = Field(
        False, description="Check everything and say what would happen, but do nothing."
    )


class StartQuery(ChangeQuery):
    """What every asynchronous change takes."""

    wait: float = Field(
        0, ge=0, le=300, description="Wait so many seconds for the operation to finish."
    )


class ListParameters(Query):
    """What every list takes. Subclasses add their filters as further fields."""

    default_sort: ClassVar[str] = "name"

    limit: int = Field(100, ge=1, le=500, description="At most so many items.")
    cursor: str | None = Field(
        None, max_length=1024, description="Where to go on: next_cursor of the page before."
    )
    sort: str | None = Field(
        None,
        max_length=64,
        pattern=r"^-?[a-z_.]+$",
        description="Field to sort by; '-' in front for descending.",
    )
    q: str | None = Field(None, max_length=128, description="Only names that contain this text.")
    label: list[str] = Field(
        default_factory=list, max_length=64, description="key:value; repeat it for several."
    )
    fields: str | None = Field(
        None,
        max_length=1024,
        description="Only these fields of each item, comma-separated, dots for inner ones: "
        "name,status.state. Items then lack the others, required or not.",
    )

    count: bool = Field(False, description="Also count how many match on all pages: total.")

    @field_validator("label")
    @classmethod
    def _labels_are_pairs(cls, pairs: list[str]) -> list[str]:
        for pair in pairs:
            if not pair.partition(":")[0] or ":" not in pair:
                raise ValueError(f"{pair!r} is no label; write key:value")
        return pairs

    def filters(self) -> dict[str, Any]:
        """The filters that were given: what subclasses add, unset ones left out."""
        own = type(self).model_fields.keys() - ListParameters.model_fields.keys()
        return {name: getattr(self, name) for name in own if getattr(self, name) is not None}

    def query(self, *, project_ids: frozenset[str] | None = None, **replaced: Any) -> ListQuery:
        """As the inventory's query; ``replaced`` are filters by id instead of by name."""
        return ListQuery(
            filters=self.filters() | replaced,
            labels=dict(tuple(pair.split(":", 1)) for pair in self.label),  # type: ignore[misc]
            text=self.q,
            sort=self.sort or self.default_sort,
            limit=self.limit,
            cursor=self.cursor,
            project_ids=project_ids,
            count=self.count,
        )
