"""Draining a host: the plan before anything moves, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.pages.hosts import possible
from virtmgr.console.pages.migrations import held_up
from virtmgr.console.pages.overview import RESOURCES
from virtmgr.console.rest import Refusal

blueprint = Blueprint("host_drain", __name__, url_prefix="/hosts")

_MOST: Final = 500
_AMOUNTS: Final = "id,name,claimed,free"


@dataclass(frozen=True)
class Plan:
    """What a drain would do. ``targets``: how many workloads each host would take."""

    moves: Sequence[Mapping[str, Any]]  # proposals with a target
    stays: Sequence[Mapping[str, Any]]  # and those without
    targets: Sequence[tuple[str, int]]
    downtime: float  # seconds, of all that are down meanwhile
    data: int  # bytes

    @property
    def cold(self) -> int:
        """How many are down meanwhile."""
        return sum(move["downtime"] > 0 and move["mode"] == "cold" for move in self.moves)


def plan_of(proposals: Iterable[Mapping[str, Any]]) -> Plan:
    """The plan with what stays apart."""
    every = sorted(proposals, key=lambda one: (one["project"]["name"], one["workload"]["name"]))
    moves = [one for one in every if one["why_not"] is None]
    targets = Counter(move["target"]["name"] for move in moves if move["target"])
    return Plan(
        moves=moves,
        stays=[one for one in every if one["why_not"] is not None],
        targets=targets.most_common(),
        downtime=sum(move["downtime"] for move in moves),
        data=sum(move["data"] for move in moves),
    )


@dataclass(frozen=True)
class Room:
    """One resource: what the host's workloads claim, and what the other ready hosts have free."""

    name: str
    title: str
    needed: float
    free: float

    @property
    def left(self) -> float:
        return self.free - self.needed


def room(host: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> list[Room]:
    """By sums; the plan has the last word, for a workload does not spread over hosts."""
    elsewhere = [other for other in others if other["id"] != host["id"]]
    return [
        Room(name, title, host["claimed"][name], sum(other["free"][name] for other in elsewhere))
        for name, title in RESOURCES
    ]


@blueprint.get("/<host>/drain")
def show(host: str) -> str:
    """The plan, or how far the drain is."""
    return _show(host, None)


def _show(host: str, refusal: Refusal | None) -> str:
    found = g.rest.get("/hosts/{host}", host=host).document
    query = {"verb": "drain", "target": found["id"], "limit": 1}
    drains = g.rest.get("/operations", query)["items"]
    latest = drains[0] if drains else None
    frame = {"host": found, "can": possible(found), "tab": "drain", "drain": latest}
    if found["scheduling_state"] == "draining" and latest is not None:
        asked = {"drain": latest["id"], "limit": _MOST}
        migrations = g.rest.get("/migrations", asked)["items"]
        return render_template(
            "hosts/draining.html", **frame, migrations=migrations, held_up=held_up(migrations)
        )
    return render_template("hosts/drain.html", **frame, refusal=refusal)


@blueprint.get("/<host>/drain/plan")
def plan(host: str) -> str:
    """What a drain would do now; asked for apart, for placing many takes a moment."""
    cold = request.args.get("cold") == "true"
    found = g.rest.get("/hosts/{host}", host=host).document
    in_cluster = {"cluster": found["cluster"]["id"], "state": "ready"}
    asked = {**in_cluster, "limit": _MOST, "fields": _AMOUNTS}
    others = g.rest.get("/hosts", asked)["items"]
    try:
        reply = g.rest.ask(
            "POST", "/hosts/{host}/drain", {"cold": cold}, query={"dry_run": "true"}, host=host
        )
    except Refusal as refusal:
        return render_template("hosts/_plan.html", host=found, refusal=refusal)
    return render_template(
        "hosts/_plan.html",
        host=found,
        plan=plan_of(reply["would"].get("plan", ())),
        rooms=room(found, others),
        others=sum(other["id"] != found["id"] for other in others),
        cold=cold,
    )


@blueprint.post("/<host>/drain")
def drain(host: str) -> tuple[str, int] | Response:
    """Begin."""
    body = {"cold": request.form.get("cold") == "true"}
    try:
        g.rest.ask("POST", "/hosts/{host}/drain", body, host=host)
    except Refusal as refusal:
        return _show(host, refusal), 422
    return redirect(f"/hosts/{host}/drain", 303)


@blueprint.post("/<host>/drain/cancel")
def cancel(host: str) -> Response:
    """End it: what has not left stays."""
    g.rest.ask("POST", "/hosts/{host}/drain/cancel", host=host)
    return done(f"The drain of {host} is cancelled; it is cordoned", refresh="live-host")
