"""Routes of the event log: pages of JSON, or Server-Sent Events (HTML Living Standard, 9.2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import structlog
from flask import Response
from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters, Moment
from virtmgr.api.dispatch import RawRequest, answer_read
from virtmgr.api.filters import by_id
from virtmgr.api.parsing import bad_request
from virtmgr.api.routing import Route, raw
from virtmgr.api.schemas.events import EventView, event_presenter
from virtmgr.domain.access import Action, visible_projects
from virtmgr.domain.errors import InvalidRequest, VirtmgrError
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import auth, events
from virtmgr.services.context import Context

log = structlog.get_logger(__name__)

HEARTBEAT: Final = 15.0  # seconds between comments that keep an idle connection open
_EVENT_STREAM: Final = "text/event-stream"


class EventParameters(ListParameters):
    """Filters of the log."""

    default_sort: ClassVar[str] = "-sequence"

    after: int | None = Field(
        None, ge=0, lt=2**63, description="Only later ones than this sequence, oldest first."
    )
    type: str | None = Field(None, max_length=64, description="Such as workload.created.")
    target: str | None = Field(None, max_length=64, description="Id of what it is about.")
    target_type: str | None = Field(None, max_length=64, description="workload, image, …")
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")
    user: str | None = Field(None, max_length=128, description="Who asked, by name or id.")
    operation: str | None = Field(None, max_length=64, description="Id of an operation.")
    host: str | None = Field(None, max_length=128, description="Host, by name or id.")
    since: Moment | None = Field(None, description="At this time or later, RFC 3339.")
    until: Moment | None = Field(None, description="Before this time, RFC 3339.")


def show(call: RawRequest) -> Response:
    """Read the event log, or follow it as Server-Sent Events"""
    wanted = call.request.accept_mimetypes.best_match(["application/json", _EVENT_STREAM])
    if wanted == _EVENT_STREAM:
        return _stream(call)
    return answer_read(call, Action.EVENTS_VIEW, _page)


def _page(context: Context, query: EventParameters) -> Answer[Listing[EventView]]:
    filters = _filters(context, query)
    if query.after is None:
        asked = ListQuery(
            filters=filters,
            text=query.q,
            sort=query.sort or query.default_sort,
            limit=query.limit,
            cursor=query.cursor,
            project_ids=context.visible,
            count=query.count,
        )
        page = events.list_(context, asked)
        return listing(page, event_presenter(context.uow, page.items))
    start = query.after if query.cursor is None else _position(query.cursor)
    found = events.after(context, start, query.limit, filters)
    more = str(found[-1].sequence) if len(found) == query.limit else None
    return listing(Page(found, more), event_presenter(context.uow, found))


def _position(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidRequest("this cursor was not given by a page of this list", field="cursor")
    return int(cursor)


def _filters(context: Context, query: EventParameters) -> dict[str, Any]:
    filters = query.filters() | by_id(context.uow, query)
    filters.pop("after", None)
    return filters


def _stream(call: RawRequest) -> Response:
    """Open the stream where the client left off: the header wins over ``after``."""
    query: EventParameters = call.query
    assert call.principal is not None  # the route is not public
    with call.context(Action.EVENTS_VIEW) as context:
        filters = _filters(context, query)
    start = _last_event_id(call, query)
    body = _frames(call, start, filters)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(body, mimetype=_EVENT_STREAM, headers=headers)


def _last_event_id(call: RawRequest, query: EventParameters) -> int:
    given = call.request.headers.get("Last-Event-ID")
    if given is not None:
        if not (given.isascii() and given.isdigit() and len(given) <= 18):
            raise bad_request("Last-Event-ID is the sequence of an event: a number")
        return int(given)
    return events.last_sequence(call.services) if query.after is None else query.after


def _frames(call: RawRequest, start: int, filters: dict[str, Any]) -> Iterator[str]:
    """The stream's text. It ends when the token is no longer good, so that the client returns."""
    assert call.principal is not None
    yield "retry: 2000\n\n"
    followed = events.follow(
        call.services,
        start,
        project_ids=visible_projects(call.principal),
        filters=filters,
        heartbeat=HEARTBEAT,
    )
    checked_at = time.monotonic()
    try:
        for event in followed:
            if event is None or time.monotonic() - checked_at >= HEARTBEAT:
                # A stream is no use of a session: it goes on while nobody is there.
                if auth.authenticate(call.services, call.secret, background=True) != call.principal:
                    return
                checked_at = time.monotonic()
            if event is None:
                yield ": still here\n\n"
                continue
            with call.services.units(read_only=True) as uow:
                data = event_presenter(uow)(event).model_dump_json()
            yield f"id: {event.sequence}\nevent: {event.type}\ndata: {data}\n\n"
    except VirtmgrError as error:  # the head is sent: all that can be done is to end the stream
        log.info("event_stream_ended", reason=error.message)


ROUTES: tuple[Route, ...] = (
    raw(
        "GET",
        "/events",
        show,
        Action.EVENTS_VIEW,
        query=EventParameters,
        answers={200: {"application/json": Listing[EventView], _EVENT_STREAM: {"type": "string"}}},
    ),
)
