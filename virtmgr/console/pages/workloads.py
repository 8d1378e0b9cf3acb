"""Workloads: one list for all kinds, and a page for each."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, g, render_template
from werkzeug.wrappers import Response

from virtmgr.console import listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage

blueprint = Blueprint("workloads", __name__)

_ONE: Final = "/projects/{project}/workloads/{workload}"

LIST: Final = ListPage(
    noun="workloads",
    path="/workloads",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state"),
        Column("Kind", "kind"),
        Column("Project"),
        Column("Host", "host"),
        Column("Image"),
        Column("Addresses"),
        Column("vCPUs"),
        Column("Memory"),
        Column("Created", "created_at"),
    ),
    choices=(
        Choice("kind", "Kind", ("vm", "container")),
        Choice("state", "State", ("running", "stopped", "paused", "failed", "unknown")),
        Choice("host", "Host"),
        Choice("image", "Image"),
        Choice("project", "Project"),
    ),
    live="workload",
    of_project=True,
)


@blueprint.get("/workloads")
def list_() -> str:
    """All workloads that may be seen."""
    return render_template("workloads/list.html", list=listing.show(LIST))


@blueprint.get("/projects/<project>/workloads/<workload>")
def show(project: str, workload: str) -> str:
    """One workload."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    return render_template("workloads/show.html", workload=found.document)


@blueprint.post("/projects/<project>/workloads/<workload>/start")
def start(project: str, workload: str) -> Response:
    """Start it."""
    g.rest.ask("POST", _ONE + "/start", project=project, workload=workload)
    return done(f"{workload} is being started", refresh="live-workload")


@blueprint.post("/projects/<project>/workloads/<workload>/stop")
def stop(project: str, workload: str) -> Response:
    """Ask it to stop."""
    g.rest.ask("POST", _ONE + "/stop", {}, project=project, workload=workload)
    return done(f"{workload} is being stopped", refresh="live-workload")


@blueprint.post("/projects/<project>/workloads/<workload>/delete")
def delete(project: str, workload: str) -> Response:
    """Delete it."""
    g.rest.ask("DELETE", _ONE, project=project, workload=workload)
    return done(f"{workload} is being deleted", goto="/workloads")
