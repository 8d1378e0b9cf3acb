"""Events: who did what, when and why."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flask import Blueprint, Response, g, render_template, request

from virtmgr.console import formatting, listing
from virtmgr.console.feed import operation_words
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.rest import Rest

blueprint = Blueprint("events", __name__, url_prefix="/events")

_TYPES: Final = (
    "workload",
    "host",
    "image",
    "volume",
    "network",
    "project",
    "quota",
    "user",
    "token",
    "role_binding",
    "cluster",
    "ca",
)
SPANS: Final = {
    "15min": ("last 15 minutes", timedelta(minutes=15)),
    "1h": ("last hour", timedelta(hours=1)),
    "24h": ("last day", timedelta(days=1)),
    "7d": ("last 7 days", timedelta(days=7)),
    "30d": ("last 30 days", timedelta(days=30)),
}
_FILTERS: Final = (
    "q",
    "type",
    "target_type",
    "user",
    "project",
    "host",
    "target",
    "operation",
    "span",
    "since",
    "until",
)
_EXPORTED: Final = 500  # events of a page of an export

LIST: Final = ListPage(
    noun="events",
    path="/events",
    columns=(
        Column("When", "sequence", optional=False),
        Column("What"),
        Column("Target"),
        Column("Who"),
        Column("Project"),
        Column("Host"),
        Column("Operation"),
    ),
    choices=tuple(Choice(name, name) for name in (*_FILTERS[1:], "live")),
    default_sort="-sequence",
    of_project=True,
    own=("live",),
)


def times(given: Mapping[str, str], now: datetime) -> dict[str, str | None]:
    """The API's ``since`` and ``until`` of a typed span or of typed times, which are UTC."""
    named = SPANS.get(given.get("span", ""))
    since = (now - named[1]).isoformat() if named else _moment(given.get("since"))
    return {"since": since, "until": _moment(given.get("until"))}


def _moment(typed: str | None) -> str | None:
    """A time as browsers write it, with its zone; what is no time is left for the API to refuse."""
    if not typed:
        return None
    try:
        moment = datetime.fromisoformat(typed)
    except ValueError:
        return typed
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _asked() -> dict[str, Any]:
    """The API's filters of the page's address; None takes one away that only the page has."""
    only_ours = dict.fromkeys(("span", "live"))
    return only_ours | times(request.args, datetime.now(UTC))


@blueprint.app_template_global("event_sentence")
def sentence(event: Mapping[str, Any]) -> str:
    """What happened, in words; some events say it by their type alone."""
    noun, _, verb = event["type"].partition(".")
    message, name = event["message"], event["target"]["name"]
    if message and name == event["target"]["id"]:  # it has no name: its id says nothing to people
        return str(message)
    if noun == "operation":
        return f"{name}: {operation_words(message, verb)}"
    if not message:
        return f"{name} is {formatting.words(verb)}"
    if message.startswith("it was "):
        return f"{name} is {formatting.words(verb)}: {message}"
    return str(message) if name in message else f"{name}: {message}"


@blueprint.app_template_global("event_details")
def details(event: Mapping[str, Any]) -> list[str]:
    """What else it says that fits into a line."""
    found = []
    for name, value in event["data"].items():
        if isinstance(value, str):
            found.append(f"{formatting.words(name)}: {value}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            size = name.endswith(("memory", "disk", "size"))
            shown = formatting.amount(value) if size else formatting.number(value)
            found.append(f"{formatting.words(name)}: {shown}")
    return found


@blueprint.get("")
def list_() -> str:
    """The log, newest first."""
    tail = request.args.get("live") != "off" and not request.args.get("cursor")
    page = replace(LIST, live="event" if tail else "")
    shown = listing.show(page, count=None, **_asked())  # to count a long log takes long
    return render_template("events/list.html", list=shown, types=_TYPES, spans=SPANS, tail=tail)


@blueprint.get("/export.csv")
def export_csv() -> Response:
    """All that match, as a table."""
    return _export("text/csv; charset=utf-8", "csv", as_csv)


@blueprint.get("/export.json")
def export_json() -> Response:
    """All that match, as they are."""
    return _export("application/json", "json", as_json)


def _export(
    media_type: str, ending: str, write: Callable[[Iterable[Mapping[str, Any]]], Iterator[str]]
) -> Response:
    given = {name: request.args[name] for name in _FILTERS if request.args.get(name)}
    query = {**given, **_asked()}
    if g.project and "project" not in given:
        query["project"] = g.project
    name = f"virtmgr-events-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{ending}"
    first = _page(g.rest, query, None)  # what is refused is so before the answer begins
    return Response(
        write(_every(g.rest, query, first)),
        content_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _page(rest: Rest, query: Mapping[str, Any], cursor: str | None) -> Mapping[str, Any]:
    asked = {**query, "limit": _EXPORTED, "cursor": cursor}
    document: Mapping[str, Any] = rest.get("/events", asked).document
    return document


def _every(
    rest: Rest, query: Mapping[str, Any], page: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """The events of all pages; one page is held at a time."""
    while True:
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        page = _page(rest, query, page["next_cursor"])


_CELLS: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
    "sequence": lambda event: event["sequence"],
    "at": lambda event: event["at"],
    "type": lambda event: event["type"],
    "target_type": lambda event: event["target"]["type"],
    "target_id": lambda event: event["target"]["id"],
    "target_name": lambda event: event["target"]["name"],
    "project": lambda event: (event["project"] or {}).get("name"),
    "user": lambda event: (event["user"] or {}).get("name"),
    "host": lambda event: (event["host"] or {}).get("name"),
    "operation_id": lambda event: event["operation_id"],
    "message": lambda event: event["message"],
    "data": lambda event: json.dumps(event["data"]) if event["data"] else None,
}


def as_csv(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A heading and a row for each event (RFC 4180)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_CELLS)
    for event in events:
        writer.writerow([_harmless(cell(event)) for cell in _CELLS.values()])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def _harmless(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula (OWASP, CSV Injection)."""
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value


def as_json(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One array."""
    start = "[\n"
    for event in events:
        yield start + json.dumps(event)
        start = ",\n"
    yield "\n]\n" if start == ",\n" else "[]\n"
