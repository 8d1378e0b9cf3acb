"""Migrations: workloads on their way between hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from flask import Blueprint, g, render_template
from werkzeug.wrappers import Response

from virtmgr.console import listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.domain.migration import AT_SOURCE, Phase
from virtmgr.domain.workload import State

blueprint = Blueprint("migrations", __name__, url_prefix="/migrations")

LIST: Final = ListPage(
    noun="migrations",
    path="/migrations",
    columns=(
        Column("Workload", optional=False),
        Column("Project"),
        Column("From"),
        Column("To"),
        Column("How"),
        Column("Phase", "phase"),
        Column("Copied"),
        Column("Begun", "created_at"),
        Column("Ended"),
        Column("Why"),
        Column(""),
    ),
    choices=(Choice("phase", "Phase", tuple(Phase)), Choice("project", "Project")),
    default_sort="-created_at",
    live="workload",
    of_project=True,
    searchable=False,
)


_MOST: Final = 500  # what fails on its way and is told of


def held_up(migrations: Iterable[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Why those do not get on whose workload fails where it is to be: its reason, by their ids.

    A move that is handed over does not end by that: the target tries until it succeeds.
    """
    under_way = [one for one in migrations if one["finished_at"] is None]
    if not under_way:
        return {}
    query = {"state": State.FAILED, "moving": "true", "limit": _MOST, "fields": "id,status.reason"}
    failed = g.rest.get("/workloads", query)["items"]
    reasons = {one["id"]: one["status"]["reason"] for one in failed}
    found = ((one["id"], reasons.get(one["workload"]["id"])) for one in under_way)
    return {id: reason for id, reason in found if reason}


@blueprint.get("")
def list_() -> str:
    """All migrations that may be seen, newest first."""
    shown = listing.show(LIST)
    return render_template(
        "migrations/list.html", list=shown, at_source=AT_SOURCE, held_up=held_up(shown.items)
    )


@blueprint.get("/<migration>")
def show(migration: str) -> str:
    """One migration."""
    found = g.rest.get("/migrations/{migration}", migration=migration).document
    reason = held_up([found]).get(found["id"])
    return render_template(
        "migrations/show.html", migration=found, at_source=AT_SOURCE, reason=reason
    )


@blueprint.post("/<migration>/cancel")
def cancel(migration: str) -> Response:
    """Give one up."""
    given_up = g.rest.ask("POST", "/migrations/{migration}/cancel", migration=migration)
    return done(f"{given_up['workload']['name']} stays where it is", refresh="live-workload")
