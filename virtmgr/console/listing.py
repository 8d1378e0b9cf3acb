"""Lists: one page of a list of the API, with its filters and order in the page's address.

An address can be shared: it says all that is shown. Paging follows the API's cursors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from flask import g, request

SIZE: Final = 50  # rows of a page
_FIXED: Final = ("limit", "count", "fields")  # what an address cannot ask for


@dataclass(frozen=True)
class Choice:
    """A filter with the values to choose from; without any it is typed."""

    name: str
    title: str
    values: Sequence[str] = ()


@dataclass(frozen=True)
class Column:
    """A column's heading; ``sort`` is the API's name of it, where the API sorts by it."""

    title: str
    sort: str | None = None
    css: str = ""
    optional: bool = True  # may be hidden by the viewer


@dataclass(frozen=True, kw_only=True)
class ListPage:
    """What a list of the console offers."""

    noun: str  # plural, for people: workloads
    path: str  # of the API
    columns: Sequence[Column]
    choices: Sequence[Choice] = ()
    default_sort: str = "name"
    live: str = ""  # type of the events' targets after which the list is to be read again
    of_project: bool = False  # filtered by the project that the viewer has chosen
    searchable: bool = True
    own: Sequence[str] = ()  # parameters of the address that the page has for itself


@dataclass(frozen=True)
class Shown:
    """One page of a list, as templates want it."""

    page: ListPage
    items: Sequence[Mapping[str, Any]]
    next_cursor: str | None
    total: int | None
    given: Mapping[str, Any]  # filters, search and order of the address
    labels: Sequence[str] = field(default_factory=list)

    @property
    def sort(self) -> str:
        return str(self.given.get("sort") or self.page.default_sort)

    @property
    def filtered(self) -> bool:
        """Whether less is shown than there is."""
        return bool(self.labels) or any(
            name != "sort" and name not in self.page.own for name in self.given
        )

    @property
    def several(self) -> frozenset[str]:
        """The filters of which the address gives several values."""
        return frozenset(name for name, value in self.given.items() if not isinstance(value, str))

    @property
    def unseen(self) -> Sequence[tuple[str, str]]:
        """What the address filters by and no field shows: other filters, and several values."""
        seen = {"q", "sort", *self.page.own, *(choice.name for choice in self.page.choices)}
        return [
            (name, value)
            for name, values in self.given.items()
            for value in ([values] if isinstance(values, str) else values)
            if name not in seen or not isinstance(values, str)
        ]

    @property
    def address(self) -> str:
        """The address of exactly this page, for reading it again."""
        return self.link(cursor=request.args.get("cursor"))

    def link(self, **changed: str | Sequence[str] | None) -> str:
        """The address of this list with some parameters changed; None leaves one out."""
        given: dict[str, Any] = {**self.given, "label": list(self.labels), **changed}
        kept = {name: value for name, value in given.items() if value not in (None, "", [])}
        return f"{request.path}?{urlencode(kept, doseq=True)}" if kept else request.path

    def without(self, name: str, value: str) -> str:
        """The address of this list with one value of one filter taken off."""
        given = list(self.labels) if name == "label" else self.given[name]
        values = given if isinstance(given, list) else [given]
        kept = list(values)
        kept.remove(value)
        return self.link(**{name: kept})

    def sort_link(self, column: Column) -> str:
        """The list by this column; once more, the other way round."""
        return self.link(sort=f"-{column.sort}" if self.sort == column.sort else column.sort)

    @property
    def next_link(self) -> str | None:
        return self.link(cursor=self.next_cursor) if self.next_cursor else None

    @property
    def first_link(self) -> str | None:
        """Back to the first page, where this is a later one."""
        return self.link() if request.args.get("cursor") else None


def show(page: ListPage, **fixed: Any) -> Shown:
    """Read the page of the list that the address asks for.

    :param fixed: filters that the address cannot change.
    :raises Refusal: the API refused, such as for a filter that is not one.
    """
    given = _given()
    labels = [label for label in request.args.getlist("label") if label]
    asked: dict[str, Any] = {name: given[name] for name in given if name not in page.own}
    asked |= {"limit": SIZE, "cursor": request.args.get("cursor"), "count": "true"}
    asked["sort"] = given.get("sort") or page.default_sort
    asked["label"] = labels
    if page.of_project and g.project and "project" not in given:
        asked["project"] = g.project
    reply = g.rest.get(page.path, asked | fixed)
    document = reply.document
    return Shown(
        page, document["items"], document["next_cursor"], document.get("total"), given, labels
    )


def _given() -> dict[str, Any]:
    """What the address filters and sorts by; the API refuses what it does not know."""
    found: dict[str, Any] = {}
    for name, values in request.args.lists():
        kept = [value for value in values if value]
        if kept and name not in ("cursor", "label", *_FIXED):
            found[name] = kept[0] if len(kept) == 1 else kept
    return found
