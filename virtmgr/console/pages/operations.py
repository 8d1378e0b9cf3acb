"""Operations: work that runs, and that ran."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, g, render_template
from werkzeug.wrappers import Response

from virtmgr.console import formatting, links, listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.domain.access import Action
from virtmgr.domain.operation import OperationState

blueprint = Blueprint("operations", __name__, url_prefix="/operations")

_ONE: Final = "/operations/{operation}"
_LINES: Final = 500  # of a log at a time
_SHOWN_APART: Final = ("type", "title", "status", "detail", "hint", "code", "instance")

LIST: Final = ListPage(
    noun="operations",
    path="/operations",
    columns=(
        Column("Operation", "verb", optional=False),
        Column("Target"),
        Column("State", "state"),
        Column("Progress"),
        Column("Project"),
        Column("Who"),
        Column("Begun", "created_at"),
        Column("Took"),
    ),
    choices=(
        Choice("state", "State", tuple(OperationState)),
        Choice("target_type", "About", ("workload", "host", "image", "volume")),
        Choice("verb", "Operation"),
        Choice("user", "Who"),
        Choice("project", "Project"),
    ),
    default_sort="-created_at",
    live="operation",
    of_project=True,
)


CANCELLED: Final[Mapping[str, str]] = {
    "move": "The workload stays where it is, and runs there.",
    "drain": "What moves now moves on; nothing more begins. The host stays cordoned.",
    "rebalance": "What has not left its host stays there; nothing more begins.",
    "import": "The image is given up and removed.",
    "build": "The image is given up and removed.",
    "publish": "The image is given up and removed; the workload stays.",
}
"""What it means to cancel an operation, by its verb."""


def explained(error: Mapping[str, Any]) -> dict[str, Any]:
    """What an error says beside its text: who was in the way, which host refused and why."""
    found = {name: value for name, value in error.items() if name not in _SHOWN_APART}
    return {name: value for name, value in found.items() if value not in (None, "", [], {})}


@blueprint.app_template_global("target_link")
def target_link(target: Mapping[str, Any], project: Mapping[str, Any] | None) -> str | None:
    """Where the page of it is, for those who may see that."""
    if target["type"] == "user" and not g.rights.allows(Action.USERS_VIEW):
        return None
    return links.to(target, project)


@blueprint.app_template_global("took")
def took(operation: Mapping[str, Any]) -> str:
    """How long it took, or has taken until now."""
    ended = operation["finished_at"]
    until = formatting.parse_time(ended) if ended else datetime.now(UTC)
    seconds = (until - formatting.parse_time(operation["created_at"])).total_seconds()
    return f"{seconds:.1f} s" if seconds < 10 else formatting.span(seconds)


@blueprint.get("")
def list_() -> str:
    """All operations that may be seen."""
    return render_template("operations/list.html", list=listing.show(LIST))


@blueprint.get("/<operation>")
def show(operation: str) -> str:
    """One operation, with its log."""
    found = g.rest.get(_ONE, operation=operation).document
    return render_template(
        "operations/show.html",
        operation=found,
        explained=explained(found["error"] or {}),
        meaning=CANCELLED.get(found["verb"], ""),
        again=_import_again(found),
        events=g.rest.get("/events", {"operation": found["id"], "limit": 50})["items"],
        **_log(operation, 0),
    )


def _import_again(operation: Mapping[str, Any]) -> str | None:
    """The form that imports a failed image once more, filled in as far as it is known."""
    if operation["state"] != "failed" or operation["verb"] != "import":
        return None
    images = g.rest.get("/images", {"q": operation["target"]["name"], "limit": 100})["items"]
    for image in images:
        if image["id"] == operation["target"]["id"]:
            known = {"name": image["name"], "source": image["source"]}
            return f"/images/import?{urlencode(known)}"
    return None


@blueprint.get("/<operation>/log/<int:after>")
def log(operation: str, after: int) -> str:
    """What it wrote after a line; asks for what comes then."""
    return render_template("operations/log.html", id=operation, **_log(operation, after))


def _log(operation: str, after: int) -> dict[str, Any]:
    asked = {"after": after, "limit": _LINES}
    document = g.rest.get(_ONE + "/log", asked, operation=operation).document
    lines = document["items"]
    last = lines[-1]["sequence"] if lines else after
    return {
        "lines": lines,
        "last": last,
        "full": len(lines) == _LINES,
        "finished": document["finished"],
    }


@blueprint.post("/<operation>/cancel")
def cancel(operation: str) -> Response:
    """End it."""
    reply = g.rest.ask("POST", _ONE + "/cancel", operation=operation)
    return done(f"{_called(reply.document)} is cancelled", refresh="live-operation")


@blueprint.post("/<operation>/retry")
def retry(operation: str) -> Response:
    """Ask for the same again."""
    reply = g.rest.ask("POST", _ONE + "/retry", operation=operation)
    begun = reply.operation or reply.document
    return done(f"{_called(begun)} is tried again", goto=f"/operations/{begun['id']}")


def _called(operation: Mapping[str, Any]) -> str:
    return f"{operation['verb']} of {operation['target']['name']}"
