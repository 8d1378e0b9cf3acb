"""Migrations: workloads on their way between hosts."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, g, render_template
from werkzeug.wrappers import Response

from virtmgr.console import listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.domain.migration import AT_SOURCE, Phase

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


@blueprint.get("")
def list_() -> str:
    """All migrations that may be seen, newest first."""
    shown = listing.show(LIST)
    return render_template("migrations/list.html", list=shown, at_source=AT_SOURCE)


@blueprint.get("/<migration>")
def show(migration: str) -> str:
    """One migration."""
    found = g.rest.get("/migrations/{migration}", migration=migration).document
    return render_template("migrations/show.html", migration=found, at_source=AT_SOURCE)


@blueprint.post("/<migration>/cancel")
def cancel(migration: str) -> Response:
    """Give one up."""
    given_up = g.rest.ask("POST", "/migrations/{migration}/cancel", migration=migration)
    return done(f"{given_up['workload']['name']} stays where it is", refresh="live-workload")
