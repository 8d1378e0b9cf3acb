"""What handlers return; ``dispatch`` makes HTTP responses of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from virtmgr.domain.operation import Operation
from virtmgr.ports.unit_of_work import Page

T = TypeVar("T")
V = TypeVar("V", bound=BaseModel)


class View(BaseModel):
    """Base of all resources as the API shows them, read from entities' attributes."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """A view of all its fields, which are right already: ``model_construct`` without looking
        for what is missing, which is most of what long lists cost otherwise."""
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", fields)
        object.__setattr__(made, "__pydantic_fields_set__", set(fields))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made


class Listing(BaseModel, Generic[V]):
    """One page of a list."""

    items: list[V]
    next_cursor: str | None = Field(
        description="Pass it as 'cursor' for the next page; null: this is the last one."
    )
    total: int | None = Field(
        None, description="How many match on all pages; null: 'count' was not asked for."
    )

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        return str(params[0].__name__).removesuffix("View") + "List"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """A finished request: the view, its version for the ETag, and where a new resource is.

    A deletion answers 204; its ``view`` is what a dry run shows. ``status`` is for a route that
    begins something or finishes at once, as it is asked: the one of the latter.
    """

    view: T
    version: int | None = None
    location: str | None = None
    status: int | None = None  # None: the route's


@dataclass(frozen=True)
class Started:
    """Asynchronous work was begun: 202 with the operation, or with all of them if ``many``.

    ``would`` gives what a dry run shows beside the operations, such as the placement.
    """

    operations: Sequence[Operation]
    many: bool = False
    would: Callable[[], Mapping[str, Any]] | None = None


def listing(page: Page[T], present: Callable[[T], V]) -> Answer[Listing[V]]:
    """``page`` with each item presented."""
    items = [present(item) for item in page.items]
    kind: Any = type(items[0]) if items else View
    # The items are views already; checking each again would double the cost of a long list.
    return Answer(
        Listing[kind].model_construct(items=items, next_cursor=page.next_cursor, total=page.total)
    )
