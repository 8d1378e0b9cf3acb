"""Usage: what a workload or a host takes, now and over the last day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from flask import Blueprint, Response, g, jsonify, request

from virtmgr.console.pages.workloads import page

blueprint = Blueprint("usage", __name__, url_prefix="/projects/<project>/workloads/<workload>")

_ONE: Final = "/projects/{project}/workloads/{workload}"
PERIODS: Final = {
    "quarter": timedelta(minutes=15),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}


def since() -> str:
    """From when on the address asks for: ``period`` is one of PERIODS, else an hour."""
    period = PERIODS.get(request.args.get("period", ""), PERIODS["hour"])
    return (datetime.now(UTC) - period).isoformat()


def first_period(created_at: str, now: datetime) -> str:
    """The period that is shown first: in an hour what is younger would be a line at the edge."""
    young = now - datetime.fromisoformat(created_at) < PERIODS["quarter"]
    return "quarter" if young else "hour"


@blueprint.get("/usage")
def show(project: str, workload: str) -> str:
    """The page with the charts."""
    found = g.rest.get(_ONE, project=project, workload=workload).document
    period = first_period(found["created_at"], datetime.now(UTC))
    return page("usage/show.html", found, period=period)


@blueprint.get("/usage/now")
def now(project: str, workload: str) -> Response:
    """The latest measurement."""
    found = g.rest.get(_ONE, project=project, workload=workload).document
    return jsonify(state=found["status"]["state"], usage=found["status"].get("usage"))


@blueprint.get("/usage/history")
def history(project: str, workload: str) -> Response:
    """What it has used."""
    query = {"since": since()}
    reply = g.rest.get(
        "/projects/{project}/workloads/{workload}/usage", query, project=project, workload=workload
    )
    return jsonify(reply["history"])
