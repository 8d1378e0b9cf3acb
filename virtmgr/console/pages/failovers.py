"""Failovers: highly available workloads of lost hosts."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, g, render_template

from virtmgr.console import listing
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.domain.failover import FailoverPhase

blueprint = Blueprint("failovers", __name__, url_prefix="/failovers")

LIST: Final = ListPage(
    noun="failovers",
    path="/failovers",
    columns=(
        Column("Workload", optional=False),
        Column("Project"),
        Column("Lost host"),
        Column("Restarted on"),
        Column("Phase", "phase"),
        Column("Why"),
        Column("Begun", "created_at"),
        Column("Ended"),
    ),
    choices=(
        Choice("phase", "Phase", tuple(FailoverPhase)),
        Choice("project", "Project"),
    ),
    default_sort="-created_at",
    live="event",
    of_project=True,
    searchable=False,
)


@blueprint.get("")
def list_() -> str:
    """All failovers that may be seen, newest first."""
    return render_template("failovers/list.html", list=listing.show(LIST))


@blueprint.get("/<failover>")
def show(failover: str) -> str:
    """One failover."""
    found = g.rest.get("/failovers/{failover}", failover=failover).document
    return render_template("failovers/show.html", failover=found)
