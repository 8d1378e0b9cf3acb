"""Clusters: hosts under one policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import forms, listing
from virtmgr.console.answers import done
from virtmgr.console.forms import labels_text
from virtmgr.console.listing import Column, ListPage
from virtmgr.console.pages.overview import gauges
from virtmgr.console.pages.rebalancing import under_way
from virtmgr.console.rest import Refusal

blueprint = Blueprint("clusters", __name__, url_prefix="/clusters")

_ONE: Final = "/clusters/{cluster}"
_MOST_HOSTS: Final = 25  # on a cluster's page; the list has all
LIST: Final = ListPage(
    noun="clusters",
    path="/clusters",
    columns=(
        Column("Name", "name", optional=False),
        Column("Hosts"),
        Column("Policy"),
        Column("CPU claimed"),
        Column("Memory claimed"),
        Column("Disk claimed"),
        Column("May fail"),
        Column("Failover"),
        Column("CPU of VMs"),
        Column("Created", "created_at"),
    ),
    live="cluster",
)


@dataclass(frozen=True)
class Setting:
    """A field of the form. ``read`` makes the API's value of what was typed; ``zero`` is what 0
    means, if not none."""

    name: str
    title: str
    help: str
    read: Callable[[str], Any] = str
    choices: tuple[tuple[str, str], ...] = ()
    unit: str = ""
    zero: str = ""


def _whole(text: str) -> Any:
    """A whole number; what is none is left to the API to refuse."""
    return int(text) if text.lstrip("-").isdecimal() else text


def _decimal(text: str) -> Any:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return text


SETTINGS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "Scheduling": (
        Setting(
            "policy",
            "Policy",
            "Where new workloads go.",
            choices=(
                ("balanced", "balanced: least used, CPU and memory alike"),
                ("spread", "spread: least used host first"),
                ("pack", "pack: most used first, to free whole hosts"),
            ),
        ),
        Setting(
            "overcommit_vcpus", "vCPUs for each CPU", "Claimed at most, of a host’s CPUs.", _decimal
        ),
        Setting(
            "overcommit_memory",
            "Memory overcommit",
            "Claimed at most, of a host’s memory.",
            _decimal,
        ),
        Setting(
            "overcommit_disk", "Disk overcommit", "Claimed at most, of a host’s disk.", _decimal
        ),
        Setting(
            "cpu",
            "CPU that VMs see",
            "host: all that their host has; auto: the best model that all hosts of the cluster "
            "have, so that VMs can move live between different CPUs; or a model’s name.",
        ),
    ),
    "High availability": (
        Setting(
            "failover",
            "Failover",
            "What becomes of highly available workloads of a lost host.",
            choices=(
                ("automatic", "automatic: started elsewhere once the host cannot be running them"),
                ("manual", "manual: only once an operator confirms that the host is off"),
            ),
        ),
        Setting(
            "reserve",
            "Reserve",
            "Failures of hosts that there is to be room for: placements that would leave too "
            "little are refused.",
            _whole,
            unit="hosts",
        ),
        Setting(
            "failover_limit",
            "Most that may be silent",
            "Share of the hosts, 0 to 1. With more, nothing is started elsewhere by itself: the "
            "network is more likely at fault. One host always may.",
            _decimal,
            unit="of the hosts",
        ),
        Setting(
            "ha_lease",
            "Lease",
            "For how long a host runs highly available workloads without reaching the control "
            "plane.",
            _decimal,
            unit="seconds",
        ),
        Setting(
            "ha_margin",
            "Margin",
            "How much longer it takes before they are started elsewhere.",
            _decimal,
            unit="seconds",
        ),
    ),
    "Rebalancing": (
        Setting(
            "rebalancing",
            "Rebalancing",
            "What becomes of a cluster that stays out of balance.",
            choices=(
                ("manual", "manual: it is told, and carried out when somebody asks"),
                ("automatic", "automatic: carried out by itself, with moves that stop nothing"),
            ),
        ),
        Setting(
            "rebalancing_threshold",
            "Threshold",
            "How far the claimed share of a host may be from the cluster’s, 0 to 1. For the "
            "policies balanced and spread.",
            _decimal,
        ),
    ),
    "Live migration": (
        Setting(
            "migration_bandwidth",
            "Bandwidth",
            "Of each; 0: no limit.",
            _whole,
            unit="MiB a second",
            zero="no limit",
        ),
        Setting(
            "migration_downtime",
            "Standstill",
            "How long a guest may stand still at the end.",
            _whole,
            unit="milliseconds",
        ),
        Setting(
            "migration_steps",
            "Doublings",
            "How often the standstill is doubled where memory is written too fast.",
            _whole,
        ),
        Setting(
            "migration_convergence",
            "After that",
            "What becomes of a guest that still writes too fast.",
            choices=(
                ("pause", "pause: it stands still until all has gone over"),
                ("give_up", "give up: it stays where it is"),
            ),
        ),
    ),
}
DEFAULTS: Final = {
    "policy": "balanced",
    "overcommit_vcpus": "4",
    "overcommit_memory": "1",
    "overcommit_disk": "1",
    "cpu": "host",
    "failover": "automatic",
    "reserve": "0",
    "failover_limit": "0.34",
    "ha_lease": "9",
    "ha_margin": "2",
    "rebalancing": "manual",
    "rebalancing_threshold": "0.2",
    "migration_bandwidth": "0",
    "migration_downtime": "300",
    "migration_steps": "4",
    "migration_convergence": "pause",
}
"""What the form of a new cluster shows; a test compares it with the API's."""


def body_of(form: Mapping[str, str], before: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The request out of the form's fields.

    :param before: labels that the cluster has.
    :raises Refusal: the labels are none.
    """
    settings = [setting for group in SETTINGS.values() for setting in group]
    body: dict[str, Any] = {
        setting.name: setting.read(form[setting.name].strip())
        for setting in settings
        if form.get(setting.name, "").strip()
    }
    return {
        **body,
        "name": form.get("name", ""),
        "description": form.get("description", ""),
        "labels": forms.labels(form.get("labels", ""), before),
    }


def typed(cluster: Mapping[str, Any]) -> dict[str, str]:
    """A cluster as its form shows it."""
    names = [setting.name for group in SETTINGS.values() for setting in group]
    shown = {
        name: f"{cluster[name]:g}" if isinstance(cluster[name], float) else str(cluster[name])
        for name in names
    }
    return {
        **shown,
        "name": cluster["name"],
        "description": cluster["description"],
        "labels": labels_text(cluster["labels"]),
    }


@blueprint.get("")
def list_() -> str:
    """All clusters, with what they have room for."""
    parts = {part["cluster"]["id"]: part for part in g.rest.get("/overview")["clusters"]}
    for part in parts.values():
        part["gauges"] = gauges(part["totals"])
        part["count"] = sum(count["count"] for count in part["hosts"])
    return render_template("clusters/list.html", list=listing.show(LIST), parts=parts)


@blueprint.get("/create")
def create_form() -> str:
    """The form for a new one."""
    return render_template("clusters/form.html", groups=SETTINGS, given=DEFAULTS, cluster=None)


@blueprint.post("/create")
def create() -> tuple[str, int] | Response:
    """Make it."""
    form = request.form
    try:
        made = g.rest.ask("POST", "/clusters", body_of(form))
    except Refusal as refusal:
        text = render_template(
            "clusters/form.html", groups=SETTINGS, given=form, cluster=None, refusal=refusal
        )
        return text, 422
    return redirect(f"/clusters/{made['name']}", 303)


@blueprint.get("/<cluster>")
def show(cluster: str) -> str:
    """Its policy, its hosts, and what they have room for."""
    found = g.rest.get(_ONE, cluster=cluster).document
    parts = {part["cluster"]["id"]: part for part in g.rest.get("/overview")["clusters"]}
    hosts = g.rest.get(
        "/hosts",
        {
            "cluster": found["id"],
            "limit": _MOST_HOSTS,
            "count": "true",
            "fields": "id,name,state,scheduling_state,capacity,claimed,free",
        },
    )
    part = parts.get(found["id"])
    return render_template(
        "clusters/show.html",
        cluster=found,
        groups=SETTINGS,
        given=typed(found),
        hosts=hosts["items"],
        host_total=hosts["total"],
        gauges=gauges(part["totals"]) if part else [],
        under_way=under_way(found["id"]),
    )


@blueprint.get("/<cluster>/edit")
def edit(cluster: str) -> str:
    """Its form."""
    reply = g.rest.get(_ONE, cluster=cluster)
    return render_template(
        "clusters/form.html",
        groups=SETTINGS,
        given=typed(reply.document),
        cluster=reply.document,
        etag=reply.etag,
    )


@blueprint.post("/<cluster>/edit")
def save(cluster: str) -> tuple[str, int] | Response:
    """Change it, unless somebody else was faster."""
    form = request.form
    found = g.rest.get(_ONE, cluster=cluster).document
    try:
        body = body_of(form, found["labels"])
        changed = g.rest.ask("PATCH", _ONE, body, etag=form.get("etag"), cluster=cluster)
    except Refusal as refusal:
        text = render_template(
            "clusters/form.html",
            groups=SETTINGS,
            given=form,
            cluster=found,
            etag=form.get("etag"),
            refusal=refusal,
        )
        return text, 422
    return redirect(f"/clusters/{changed['name']}", 303)


@blueprint.post("/<cluster>/delete")
def delete(cluster: str) -> Response:
    """Delete it; one with hosts is refused."""
    g.rest.ask("DELETE", _ONE, cluster=cluster)
    return done(f"Cluster {cluster} is deleted", goto="/clusters")
