"""Networks: addresses and topology."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import choices, forms, listing, topology
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.rest import Refusal, Reply
from virtmgr.domain.access import Action
from virtmgr.domain.difference import patch_for

blueprint = Blueprint("networks", __name__)

_SHARED: Final = "/networks/{network}"
_OWN: Final = "/projects/{project}/networks/{network}"
_ADDRESSES: Final = 100  # of a page
_MEMBERS: Final = 200  # workloads that a network's page names
TYPES: Final = (
    ("nat", "nat", "private on each host; reaches out through it"),
    ("overlay", "overlay", "private, one network across all hosts"),
    ("bridge", "bridge", "joins a bridge that the hosts have"),
    ("vlan", "vlan", "a VLAN on an interface of the hosts"),
)

LIST: Final = ListPage(
    noun="networks",
    path="/networks",
    columns=(
        Column("Name", "name", optional=False),
        Column("Type", "type"),
        Column("Project"),
        Column("IPv4"),
        Column("IPv6"),
        Column("On hosts"),
        Column("MTU"),
        Column("DNS domain"),
        Column("Created", "created_at"),
    ),
    choices=(
        Choice("type", "Type", ("nat", "overlay", "bridge", "vlan")),
        Choice("project", "Project"),
    ),
    live="network",
    of_project=True,
)


@blueprint.app_template_global("network_path")
def path_of(network: Mapping[str, Any]) -> str:
    """Where its page is."""
    name = quote(network["name"], safe="")
    if network["project"] is None:
        return f"/networks/{name}"
    return f"/projects/{quote(network['project']['name'], safe='')}/networks/{name}"


def room(cidr: str) -> int:
    """How many addresses workloads can have: all but the network's, the gateway's and (IPv4) the
    one for everybody."""
    network = ipaddress.ip_network(cidr)
    return max(0, network.num_addresses - (3 if network.version == 4 else 2))


def gateway(cidr: str) -> str:
    """The first address."""
    return str(ipaddress.ip_network(cidr)[1])


@blueprint.get("/networks")
def list_() -> str:
    """All networks that may be seen."""
    return render_template("networks/list.html", list=listing.show(LIST))


@blueprint.get("/networks/topology")
def show_topology() -> str:
    """Which workloads are on which networks, and on which hosts."""
    project = request.args.get("project") or g.project
    asked = {
        "project": project,
        "limit": topology.MOST_LANES,
        "cursor": request.args.get("cursor"),
    }
    networks = g.rest.get("/topology", asked).document
    few = g.rest.get(
        "/workloads",
        {
            "project": project,
            "limit": topology.MOST_WORKLOADS,
            "fields": "id,name,project,kind,host,nics,status.state",
        },
    ).document
    workloads = few["items"] if few["next_cursor"] is None else None
    return render_template(
        "networks/topology.html",
        picture=topology.picture(networks["items"], workloads),
        networks=networks,
        types=TYPES,
        as_table=bool(request.args.get("table")),
    )


# ---- making


@blueprint.get("/networks/create")
def create() -> str:
    """The form for a new one."""
    given = {"type": "nat", "project": request.args.get("project") or g.project or ""}
    return _form(given, None)


def _form(given: Mapping[str, Any], refusal: Refusal | None) -> str:
    return render_template(
        "networks/form.html",
        given=given,
        refusal=refusal,
        types=TYPES,
        projects=choices.projects(Action.NETWORKS_CREATE),
        for_all=g.rights.allows(Action.SHARED_NETWORKS_CREATE),
    )


def network_body(form: Mapping[str, str]) -> dict[str, Any]:
    """The API's request of what the form says."""
    texts = ("name", "type", "ipv4", "ipv6", "bridge", "interface", "dns_domain")
    body = forms.filled(form, texts) | {"labels": forms.labels(form.get("labels", ""))}
    for name in ("mtu", "vlan"):
        given = forms.number(form.get(name, ""))
        if given is not None:
            body[name] = given
    return body


@blueprint.post("/networks/create")
def make() -> tuple[str, int] | Response:
    """Make it, in a project or for all of them."""
    project = request.form.get("project", "")
    try:
        body = network_body(request.form)
        if project:
            made = g.rest.ask("POST", "/projects/{project}/networks", body, project=project)
        else:
            made = g.rest.ask("POST", "/networks", body)
    except Refusal as refusal:
        return _form(request.form, refusal), 422
    return done(f"Network {made['name']} is there", goto=path_of(made.document))


# ---- one, shared by all projects or of one


def _get(project: str | None, network: str) -> Reply:
    if project is None:
        reply: Reply = g.rest.get(_SHARED, network=network)
    else:
        reply = g.rest.get(_OWN, project=project, network=network)
    return reply


@blueprint.get("/networks/<network>", defaults={"project": None})
@blueprint.get("/projects/<project>/networks/<network>")
def show(project: str | None, network: str) -> str:
    """A network: its addresses and who has them."""
    found = _get(project, network).document
    asked = {
        "limit": _ADDRESSES,
        "sort": "address",
        "cursor": request.args.get("cursor"),
        "q": request.args.get("q"),
    }
    if project is None:
        addresses = g.rest.get(_SHARED + "/addresses", asked, network=network).document
    else:
        addresses = g.rest.get(
            _OWN + "/addresses", asked, project=project, network=network
        ).document
    members = g.rest.get(
        "/workloads",
        {
            "network": found["id"],
            "limit": _MEMBERS,
            "fields": "id,name,project,kind,host,nics,status.state",
        },
    ).document
    addresses["items"].sort(key=_in_order)
    return render_template(
        "networks/show.html",
        network=found,
        addresses=addresses,
        members=members,
        holders={item["id"]: item for item in members["items"]},
        room=room,
        gateway=gateway,
        searched=request.args.get("q", ""),
    )


def _in_order(address: Mapping[str, Any]) -> tuple[int, int]:
    """The API's order is that of texts: 10.0.0.10 before 10.0.0.9."""
    parsed = ipaddress.ip_address(address["address"])
    return parsed.version, int(parsed)


@blueprint.get("/networks/<network>/edit", defaults={"project": None})
@blueprint.get("/projects/<project>/networks/<network>/edit")
def edit(project: str | None, network: str) -> str:
    """The form for what can be changed."""
    found = _get(project, network).document
    given = {**found, "labels": forms.labels_text(found["labels"])}
    return render_template("networks/edit.html", given=given, before=found)


@blueprint.post("/networks/<network>/edit", defaults={"project": None})
@blueprint.post("/projects/<project>/networks/<network>/edit")
def change(project: str | None, network: str) -> tuple[str, int] | Response:
    """Change it."""
    before = _get(project, network).document
    form = request.form
    wanted = {"name": form["name"].strip(), "dns_domain": form["dns_domain"].strip()}
    try:
        body = patch_for(before, wanted | {"labels": forms.labels(form["labels"])})
        if project is None:
            made = g.rest.ask("PATCH", _SHARED, body, network=network)
        else:
            made = g.rest.ask("PATCH", _OWN, body, project=project, network=network)
    except Refusal as refusal:
        return render_template(
            "networks/edit.html", given=form, before=before, refusal=refusal
        ), 422
    return done(f"Network {made['name']} is changed", goto=path_of(made.document))


@blueprint.post("/networks/<network>/delete", defaults={"project": None})
@blueprint.post("/projects/<project>/networks/<network>/delete")
def delete(project: str | None, network: str) -> Response:
    """Delete it, if nothing is on it."""
    if project is None:
        g.rest.ask("DELETE", _SHARED, network=network)
    else:
        g.rest.ask("DELETE", _OWN, project=project, network=network)
    return done(f"Network {network} is deleted", goto="/networks")
