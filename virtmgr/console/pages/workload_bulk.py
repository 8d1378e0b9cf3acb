"""One verb for many workloads: those that were selected, or all that match the list's filters.

The work is done in steps of a fixed size, each a request of its own: the page shows the outcome of
each workload as it comes, and no request grows with the selection. All that match are found again
step by step, in the order of their names; what was made after the question is left alone. What was
begun is followed: the page asks for those of its operations that have not ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qs

from flask import Blueprint, g, render_template, request
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.formatting import parse_time
from virtmgr.console.rest import Refusal

blueprint = Blueprint("workload_bulk", __name__, url_prefix="/workloads")

_ONE: Final = "/projects/{project}/workloads/{workload}"
_STEP: Final = 20  # workloads of one request
_SHOWN: Final = 50  # names before it is done
_FOLLOWED: Final = 200  # operations of one request; the others' turn comes as these end
_OF_PAGES: Final = ("sort", "cursor", "limit", "fields", "count")  # filter nothing

Reference = tuple[str, str]
"""Project and name."""


@dataclass(frozen=True)
class BulkVerb:
    """What can be done with many."""

    name: str
    title: str
    begun: str  # of one: it is …
    done: str
    loses: bool = False


VERBS: Final = {
    verb.name: verb
    for verb in (
        BulkVerb("start", "Start", "being started", "started"),
        BulkVerb("stop", "Stop", "being stopped", "stopped"),
        BulkVerb("restart", "Restart", "being restarted", "restarted"),
        BulkVerb("delete", "Delete", "being deleted", "deleted", loses=True),
    )
}


@dataclass(frozen=True)
class BulkOutcome:
    """What has come of one workload. ``refusal``: why nothing was begun."""

    project: str
    name: str
    operation: Mapping[str, Any] | None
    refusal: str | None = None
    hint: str | None = None

    @property
    def word(self) -> str:
        """What it counts as: refused, begun, done or failed."""
        if self.operation is None:
            return "refused"
        if self.operation["finished_at"] is None:
            return "begun"
        return "done" if self.operation["state"] == "succeeded" else "failed"

    @property
    def seen(self) -> str:
        """What the page has of the operation, for asking whether there is more."""
        assert self.operation is not None
        return f"{self.operation['id']}@{self.operation['updated_at']}"


@blueprint.post("/bulk")
def review() -> str | Response:
    """What is about to be done, and with which."""
    verb = _verb()
    query = request.form.get("query", "").lstrip("?")
    filters = filters_of(query)
    everything = bool(request.form.get("all"))
    selected = _selected()
    if not everything and not selected:
        return done("Nothing is selected", goto="/workloads")
    number = _count(filters) if everything else len(selected)
    return render_template(
        "workloads/bulk.html",
        verb=verb,
        selected=selected,
        shown=_page(filters, None, _SHOWN)[0] if everything else selected,
        everything=everything,
        filters=filters,
        query=f"?{query}" if query else "",
        number=number,
        asked_at=datetime.now(UTC).isoformat(),
    )


@blueprint.post("/bulk/step")
def step() -> str:
    """Do it with the next few, and say what came of each."""
    verb = _verb()
    form = request.form
    next_place: str | None
    if form.get("all"):
        filters = filters_of(form.get("query", ""))
        before = parse_time(form["asked_at"])
        found, next_place = _page(filters, form.get("place") or None, _STEP, before)
    else:
        place, selected = int(form.get("place") or "0"), _selected()
        found = selected[place : place + _STEP]
        next_place = str(place + _STEP) if place + _STEP < len(selected) else None
    outcomes = [_act(verb, form.get("force") == "true", one) for one in found]
    return render_template(
        "workloads/bulk_step.html", verb=verb, outcomes=outcomes, next_place=next_place
    )


@blueprint.post("/bulk/outcomes")
def outcomes() -> str:
    """What has changed of the operations that the page follows."""
    pairs = (text.partition("@") for text in request.form.getlist("follow")[:_FOLLOWED])
    known = {id: updated_at for id, _, updated_at in pairs}
    query = {"id": list(known), "limit": _FOLLOWED}
    found = g.rest.get("/operations", query)["items"] if known else ()
    return render_template(
        "workloads/bulk_outcomes.html",
        verb=_verb(),
        outcomes=[
            BulkOutcome(one["project"]["name"], one["target"]["name"], one)
            for one in found
            if one["updated_at"] != known.get(one["id"])
        ],
    )


def _act(verb: BulkVerb, force: bool, one: Reference) -> BulkOutcome:
    project, name = one
    try:
        reply = _ask(verb, force)(project=project, workload=name)
    except Refusal as refusal:
        if refusal.status == 401:
            raise
        return BulkOutcome(project, name, None, str(refusal), refusal.hint)
    return BulkOutcome(project, name, reply.document)


def _ask(verb: BulkVerb, force: bool) -> Callable[..., Any]:
    """The request of the verb, ready for a workload."""

    def ask(**path: str) -> Any:
        if verb.name == "start":
            return g.rest.ask("POST", _ONE + "/start", **path)
        if verb.name == "stop":
            return g.rest.ask("POST", _ONE + "/stop", {"force": force}, **path)
        if verb.name == "restart":
            return g.rest.ask("POST", _ONE + "/restart", {"force": force}, **path)
        return g.rest.ask("DELETE", _ONE, **path)

    return ask


def _verb() -> BulkVerb:
    found = VERBS.get(request.form.get("verb", ""))
    if found is None:
        raise BadRequest("there is no such thing to do with many workloads")
    return found


def _selected() -> Sequence[Reference]:
    """The workloads that were ticked: PROJECT/NAME each."""
    pairs = [text.partition("/") for text in request.form.getlist("selected")]
    return [(project, name) for project, slash, name in pairs if slash]


def filters_of(query: str) -> Mapping[str, Any]:
    """The filters of a list's address, and the project that is looked at.

    Whatever filters the list filters this, too: what the API does not know it refuses, so that
    never more is done than was seen.
    """
    given = parse_qs(query.lstrip("?"))
    found: dict[str, Any] = {
        name: values if name == "label" else values[0]
        for name, values in given.items()
        if name not in _OF_PAGES
    }
    if g.project:
        found.setdefault("project", g.project)
    return found


def _page(
    filters: Mapping[str, Any], cursor: str | None, limit: int, before: datetime | None = None
) -> tuple[Sequence[Reference], str | None]:
    """The next of those that match, and where to go on."""
    query = {**filters, "limit": limit, "cursor": cursor, "fields": "name,project,created_at"}
    reply = g.rest.get("/workloads", query)
    found = [
        (item["project"]["name"], item["name"])
        for item in reply["items"]
        if before is None or parse_time(item["created_at"]) <= before
    ]
    return found, reply["next_cursor"]


def _count(filters: Mapping[str, Any]) -> int:
    """How many match."""
    query = {**filters, "limit": 1, "count": "true", "fields": "id"}
    return int(g.rest.get("/workloads", query)["total"])
