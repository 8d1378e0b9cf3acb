"""Hosts: machines, their load and their life."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, g, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import feed, forms, listing
from virtmgr.console.answers import done
from virtmgr.console.forms import labels_text
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.pages.host_add import last_run
from virtmgr.console.pages.overview import gauges
from virtmgr.console.pages.usage import first_period, since
from virtmgr.console.rest import Refusal
from virtmgr.domain.access import Action
from virtmgr.domain.draining import standing
from virtmgr.domain.migration import Phase

blueprint = Blueprint("hosts", __name__, url_prefix="/hosts")

_ONE: Final = "/hosts/{host}"
STATES: Final = (
    "ready",
    "cordoned",
    "draining",
    "maintenance",
    "probing",
    "unreachable",
    "fenced",
    "enrolling",
    "installing",
    "install_failed",
    "removing",
)
COMING: Final = ("enrolling", "installing", "install_failed")
_MOST_ON_MAP: Final = 500
_MAP_FIELDS: Final = "id,name,state,labels,capacity,claimed,free"

LIST: Final = ListPage(
    noun="hosts",
    path="/hosts",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state"),
        Column("Cluster"),
        Column("CPU claimed", "claimed_vcpus"),
        Column("Memory claimed", "claimed_memory"),
        Column("Disk claimed", "claimed_disk"),
        Column("Zone, rack"),
        Column("Agent"),
        Column("Certificate ends"),
        Column("Seen"),
    ),
    choices=(Choice("state", "State", STATES), Choice("cluster", "Cluster")),
    live="host",
    own=("view", "by"),
)
_FIELDS: Final = (
    "id,name,state,scheduling_state,cluster,labels,capacity,claimed,free,facts.agent_version,"
    "certificate_expires_at,last_seen_at"
)


@blueprint.app_context_processor
def _rights() -> dict[str, bool]:
    """Whether the viewer may change hosts and clusters."""
    return {"operates": "rights" in g and g.rights.allows(Action.HOSTS_UPDATE)}


@blueprint.get("")
def list_() -> str:
    """All hosts, as a table or as a map."""
    if request.args.get("view") == "map":
        return _map()
    return render_template("hosts/list.html", list=listing.show(LIST, fields=_FIELDS))


# ---- the map

MEASURES: Final = {"vcpus": "CPU", "memory": "Memory", "disk": "Disk"}
_STEPS: Final = 6
_NOWHERE: Final = "no label"


@dataclass(frozen=True)
class Cell:
    """One host on the map. ``heat`` is 0 to 5; None: it takes nothing, or is not there."""

    name: str
    state: str
    heat: int | None
    shares: Sequence[tuple[str, str]]  # (CPU, 12 %); first what the map is coloured by


@dataclass(frozen=True)
class Zone:
    """A failure domain, with its racks by name."""

    name: str
    racks: Sequence[tuple[str, Sequence[Cell]]]


def _map() -> str:
    by = request.args.get("by", "memory")
    by = by if by in MEASURES else "memory"
    query = {name: request.args.getlist(name) for name in ("state", "cluster", "q", "label")}
    asked: dict[str, Any] = {name: values for name, values in query.items() if values}
    kept = urlencode(asked, doseq=True)
    asked |= {"limit": _MOST_ON_MAP, "count": "true", "fields": _MAP_FIELDS}
    reply = g.rest.get("/hosts", asked)
    return render_template(
        "hosts/map.html",
        zones=zones(reply["items"], by),
        shown=len(reply["items"]),
        total=reply["total"],
        by=by,
        measures=MEASURES,
        kept=f"&{kept}" if kept else "",
    )


def zones(hosts: Iterable[Mapping[str, Any]], by: str) -> list[Zone]:
    """Hosts by their labels zone and rack; those without such a label come last."""
    found: dict[str, dict[str, list[Cell]]] = {}
    for host in sorted(hosts, key=lambda host: str(host["name"])):
        zone = host["labels"].get("zone", _NOWHERE)
        rack = host["labels"].get("rack", _NOWHERE)
        found.setdefault(zone, {}).setdefault(rack, []).append(_cell(host, by))
    return [
        Zone(zone, [(rack, racks[rack]) for rack in sorted(racks, key=_last_if_nowhere)])
        for zone, racks in sorted(found.items(), key=lambda item: _last_if_nowhere(item[0]))
    ]


def _last_if_nowhere(name: str) -> tuple[bool, str]:
    return name == _NOWHERE, name


def _cell(host: Mapping[str, Any], by: str) -> Cell:
    shares = {name: share_claimed(host, name) for name in MEASURES}
    return Cell(
        host["name"],
        host["state"],
        heat_of(shares[by]) if host["state"] not in (*COMING, "unreachable", "fenced") else None,
        [
            (MEASURES[name], f"{100 * shares[name]:.0f} %")
            for name in sorted(shares, key=lambda name: name != by)
        ],
    )


def share_claimed(host: Mapping[str, Any], resource: str) -> float:
    """What is claimed of what may be, 0 to 1: overcommit included."""
    limit = host["claimed"][resource] + host["free"][resource]
    return host["claimed"][resource] / limit if limit else 0.0


def heat_of(share: float) -> int:
    """The step of the colours."""
    return min(_STEPS - 1, int(share * _STEPS))


# ---- one host


@blueprint.get("/<host>")
def show(host: str) -> str:
    """What it is and how it is."""
    found = g.rest.get(_ONE, host=host).document
    pools = g.rest.get("/pools", {"host": found["id"], "limit": 100})["items"]
    migrations = _moves(found)
    return render_template(
        "hosts/show.html",
        **_head(found),
        pools=pools,
        drained=standing(Counter(Phase(one["phase"]) for one in migrations)).message
        if migrations
        else "",
        run=last_run(found) if found["state"] in COMING else None,
        gauges=gauges(totals_of(found)),
        tab="summary",
    )


def totals_of(host: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """One host as sums over hosts are told."""
    claimed, free = host["claimed"], host["free"]
    limit = {name: claimed[name] + free[name] for name in MEASURES}
    return {"capacity": host["capacity"], "limit": limit, "claimed": claimed, "free": free}


def _moves(host: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The moves of its drain, if it is being drained."""
    if host["scheduling_state"] != "draining":
        return ()
    query = {"verb": "drain", "target": host["id"], "limit": 1}
    operations = g.rest.get("/operations", query)["items"]
    if not operations:
        return ()
    moves: Sequence[Mapping[str, Any]] = g.rest.get(
        "/migrations", {"drain": operations[0]["id"], "limit": 500}
    )["items"]
    return moves


def _head(host: Mapping[str, Any]) -> dict[str, Any]:
    """What the head of all pages of a host needs."""
    return {"host": host, "can": possible(host)}


def possible(host: Mapping[str, Any]) -> frozenset[str]:
    """The verbs that make sense now; the API has the last word."""
    state, scheduling = host["state"], host["scheduling_state"]
    found = {"edit", "remove", "join-token"}
    if state == "install_failed":
        return frozenset(found | {"retry"})
    if state in COMING:
        return frozenset(found)
    if state == "removing":
        return frozenset({"remove"})
    found |= {"reinstall", "renew-certificates", "upgrade", "fence"}
    answers = state not in ("unreachable", "fenced")
    if not answers:
        found |= {"confirm-off"} if state == "unreachable" else set()
    if scheduling == "draining":
        return frozenset(found | {"cancel-drain"})
    if scheduling == "ready":
        found |= {"cordon"}
    else:
        found |= {"uncordon"}
    if answers and scheduling != "maintenance":
        found |= {"drain", "maintenance"}
    return frozenset(found)


WORKLOADS: Final = ListPage(
    noun="workloads",
    path="/workloads",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state"),
        Column("Kind", "kind"),
        Column("Project", "project"),
        Column("vCPUs", "vcpus"),
        Column("Memory", "memory"),
        Column("Created", "created_at"),
    ),
    choices=(
        Choice("kind", "Kind", ("vm", "container")),
        Choice("state", "State", ("running", "stopped", "paused", "failed", "unknown")),
    ),
    live="workload",
)


@blueprint.get("/<host>/workloads")
def workloads(host: str) -> str:
    """What is placed on it."""
    found = g.rest.get(_ONE, host=host).document
    shown = listing.show(WORKLOADS, host=found["id"])
    return render_template("hosts/workloads.html", **_head(found), list=shown, tab="workloads")


@blueprint.get("/<host>/activity")
def activity(host: str) -> str:
    """Its operations and events, newest first."""
    found = g.rest.get(_ONE, host=host).document
    operations = g.rest.get("/operations", {"target": found["id"], "limit": 20})["items"]
    events = g.rest.get("/events", {"host": found["id"], "limit": 50})["items"]
    return render_template(
        "hosts/activity.html",
        **_head(found),
        operations=operations,
        events=feed.lines(events),
        tab="activity",
    )


@blueprint.get("/<host>/usage")
def usage(host: str) -> str:
    """What the machine as a whole uses, as charts."""
    found = g.rest.get(_ONE, host=host).document
    period = first_period(found["created_at"], datetime.now(UTC))
    return render_template("hosts/usage.html", **_head(found), tab="usage", period=period)


@blueprint.get("/<host>/usage/history")
def usage_history(host: str) -> Response:
    """What it has used."""
    reply = g.rest.get("/hosts/{host}/usage", {"since": since()}, host=host)
    return jsonify(reply["history"])


@blueprint.get("/<host>/edit")
def edit(host: str) -> str:
    """Its name and labels, as a form."""
    reply = g.rest.get(_ONE, host=host)
    given = {"name": reply["name"], "labels": labels_text(reply["labels"])}
    return render_template("hosts/edit.html", **_head(reply.document), given=given, tab="edit")


@blueprint.post("/<host>/edit")
def save(host: str) -> tuple[str, int] | Response:
    """Change its name and labels."""
    form = request.form
    found = g.rest.get(_ONE, host=host).document
    try:
        labels = forms.labels(form.get("labels", ""), found["labels"])
        changed = g.rest.ask("PATCH", _ONE, {"name": form["name"], "labels": labels}, host=host)
    except Refusal as refusal:
        text = render_template(
            "hosts/edit.html", **_head(found), given=form, refusal=refusal, tab="edit"
        )
        return text, 422
    return redirect(f"/hosts/{changed['name']}", 303)


@blueprint.post("/<host>/cordon")
def cordon(host: str) -> Response:
    """Let it take nothing new."""
    g.rest.ask("POST", "/hosts/{host}/cordon", host=host)
    return done(f"{host} takes nothing new", refresh="live-host")


@blueprint.post("/<host>/uncordon")
def uncordon(host: str) -> Response:
    """Let it take new workloads again."""
    g.rest.ask("POST", "/hosts/{host}/uncordon", host=host)
    return done(f"{host} takes new workloads again", refresh="live-host")


@blueprint.post("/<host>/maintenance")
def maintenance(host: str) -> Response:
    """Put it into maintenance."""
    g.rest.ask("POST", "/hosts/{host}/maintenance", host=host)
    return done(f"{host} is in maintenance", refresh="live-host")


@blueprint.post("/<host>/confirm-off")
def confirm_off(host: str) -> Response:
    """Say that it is off."""
    g.rest.ask("POST", "/hosts/{host}/confirm-off", host=host)
    return done(f"{host} is off: what is highly available starts elsewhere", refresh="live-host")


@blueprint.post("/<host>/remove")
def remove(host: str) -> Response:
    """Remove it; by force with all that is on it."""
    force = request.form.get("force") == "true"
    take_back = request.form.get("take_back") == "true"
    query = {"force": "true", "take_back": str(take_back).lower()} if force else {}
    g.rest.ask("DELETE", _ONE, query=query, host=host)
    return done(f"{host} is being removed", goto="/hosts")


@blueprint.get("/<host>/remove")
def confirm_remove(host: str) -> str:
    """What would be lost, and the two ways to remove it."""
    found = g.rest.get(_ONE, host=host).document
    query = {"host": found["id"], "limit": 20, "count": "true", "fields": "id,name,project"}
    lost = {
        "workloads": g.rest.get("/workloads", query).document,
        "volumes": g.rest.get("/volumes", query).document,
    }
    return render_template("hosts/remove.html", **_head(found), lost=lost, tab="remove")


@blueprint.get("/<host>/join-token")
def join_token(host: str) -> str:
    """What a further join token is for."""
    found = g.rest.get(_ONE, host=host).document
    return render_template("hosts/join_token.html", **_head(found), tab="join-token")


@blueprint.post("/<host>/join-token")
def make_join_token(host: str) -> str:
    """Let it join again: shows the token, once."""
    body = {"another_machine": request.form.get("another_machine") == "true"}
    made = g.rest.ask("POST", "/hosts/{host}/join-token", body, host=host).document
    return render_template("hosts/join_token.html", **_head(made), made=made, tab="join-token")
