"""Rebalancing a cluster: the plan before anything moves, and its beginning and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.rest import Refusal

blueprint = Blueprint("rebalancing", __name__, url_prefix="/clusters")

_ONE: Final = "/clusters/{cluster}/rebalance"
_RESOURCES: Final = (("vcpus", "CPU"), ("memory", "Memory"))


@dataclass(frozen=True)
class Line:
    """A host before and after; shares are of 100."""

    host: Mapping[str, str]
    shares: Sequence[tuple[str, float, float]]  # title, before, after
    workloads: tuple[int, int]


def lines(plan: Mapping[str, Any]) -> list[Line]:
    """The hosts that the plan changes."""
    after = {load["host"]["id"]: load for load in plan["after"]["hosts"]}
    return [
        _line(load, after[load["host"]["id"]])
        for load in plan["before"]["hosts"]
        if load != after[load["host"]["id"]]
    ]


def _line(before: Mapping[str, Any], after: Mapping[str, Any]) -> Line:
    shares = [(title, 100 * before[name], 100 * after[name]) for name, title in _RESOURCES]
    return Line(before["host"], shares, (before["workloads"], after["workloads"]))


def under_way(cluster_id: str) -> Mapping[str, Any] | None:
    """The operation that carries a plan out now."""
    query = {"verb": "rebalance", "target": cluster_id, "limit": 1}
    latest = g.rest.get("/operations", query)["items"]
    return latest[0] if latest and not latest[0]["finished_at"] else None


@blueprint.get("/<cluster>/rebalance/plan")
def plan(cluster: str) -> str:
    """What rebalancing would do now; asked for apart, for planning takes a moment."""
    cold = request.args.get("cold") == "true"
    found = g.rest.get("/clusters/{cluster}", cluster=cluster).document
    body, dry = {"cold": cold}, {"dry_run": "true"}
    try:
        reply = g.rest.ask("POST", _ONE, body, query=dry, cluster=cluster)
    except Refusal as refusal:
        return render_template("clusters/_plan.html", cluster=found, refusal=refusal)
    planned = reply["would"]["plan"]
    return render_template(
        "clusters/_plan.html",
        cluster=found,
        plan=planned,
        lines=lines(planned) if planned else (),
        cold=cold,
    )


@blueprint.post("/<cluster>/rebalance")
def rebalance(cluster: str) -> Response:
    """Begin; the plan is made anew, for things may have changed."""
    body = {"cold": request.form.get("cold") == "true"}
    g.rest.ask("POST", _ONE, body, cluster=cluster)
    return done(f"Cluster {cluster} is rebalanced", goto=f"/clusters/{cluster}")


@blueprint.post("/<cluster>/rebalance/cancel")
def cancel(cluster: str) -> Response:
    """End it: what has not left stays."""
    g.rest.ask("POST", _ONE + "/cancel", cluster=cluster)
    return done(f"The rebalancing of {cluster} is ended", refresh="live-cluster")
