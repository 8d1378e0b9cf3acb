"""What is done with one workload: power, devices, moves, copies, deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.rest import Refusal
from virtmgr.console.workload_form import read_pairs

blueprint = Blueprint(
    "workload_actions", __name__, url_prefix="/projects/<project>/workloads/<workload>"
)

_ONE: Final = "/projects/{project}/workloads/{workload}"
_REFRESH: Final = "live-workload"
_ANSWERED: Final = (400, 404, 409, 412, 422, 507)
"""Refusals that a form shows; others concern the whole page."""


def page_of(project: str, workload: str) -> str:
    """The address of a workload's page."""
    return f"/projects/{project}/workloads/{workload}"


# ---- power


@blueprint.post("/start")
def start(project: str, workload: str) -> Response:
    """Start it."""
    g.rest.ask("POST", _ONE + "/start", project=project, workload=workload)
    return done(f"{workload} is being started", refresh=_REFRESH)


@blueprint.get("/stop")
def ask_stop(project: str, workload: str) -> str:
    """How to stop it."""
    return _form("stop", project, workload)


@blueprint.post("/stop")
def stop(project: str, workload: str) -> Response | tuple[str, int]:
    """Ask it to stop, or end it by force."""
    timeout, form = request.form.get("timeout", ""), "how" in request.form
    body: dict[str, Any] = {"force": request.form.get("how") == "force"}
    if timeout.isdecimal() and not body["force"]:
        body["timeout"] = int(timeout)
    try:
        g.rest.ask("POST", _ONE + "/stop", body, project=project, workload=workload)
    except Refusal as refusal:
        if not form or refusal.status not in _ANSWERED:
            raise
        return _form("stop", project, workload, refusal), 422
    goto = page_of(project, workload) if form else None
    return done(f"{workload} is being stopped", goto=goto, refresh=_REFRESH)


@blueprint.post("/restart")
def restart(project: str, workload: str) -> Response:
    """Stop it and start it again."""
    g.rest.ask("POST", _ONE + "/restart", {}, project=project, workload=workload)
    return done(f"{workload} is being restarted", refresh=_REFRESH)


@blueprint.post("/pause")
def pause(project: str, workload: str) -> Response:
    """Freeze it where it is."""
    g.rest.ask("POST", _ONE + "/pause", project=project, workload=workload)
    return done(f"{workload} is being paused", refresh=_REFRESH)


@blueprint.post("/resume")
def resume(project: str, workload: str) -> Response:
    """Let it go on."""
    g.rest.ask("POST", _ONE + "/resume", project=project, workload=workload)
    return done(f"{workload} goes on", refresh=_REFRESH)


@blueprint.post("/delete")
def delete(project: str, workload: str) -> Response:
    """Delete it; its volumes stay."""
    g.rest.ask("DELETE", _ONE, project=project, workload=workload)
    return done(f"{workload} is being deleted", goto="/workloads")


# ---- devices and ports


@blueprint.post("/devices/attach-volume")
def attach_volume(project: str, workload: str) -> Response:
    """Attach a volume, live where the driver can."""
    form = request.form
    body = {"volume": form.get("volume"), "read_only": form.get("read_only") == "true"}
    if form.get("path"):
        body["path"] = form["path"]
    g.rest.ask("POST", _ONE + "/volumes", body, project=project, workload=workload)
    return done(f"{form.get('volume')} is being attached", refresh=_REFRESH)


@blueprint.post("/devices/detach-volume")
def detach_volume(project: str, workload: str) -> Response:
    """Detach a volume; its data stays."""
    name = request.form.get("volume", "")
    g.rest.ask(
        "DELETE", _ONE + "/volumes/{volume}", project=project, workload=workload, volume=name
    )
    return done(f"{name} is being detached", refresh=_REFRESH)


@blueprint.post("/devices/attach-nic")
def attach_nic(project: str, workload: str) -> Response:
    """Attach a NIC, live where the driver can."""
    network, address = request.form.get("network"), request.form.get("address", "").strip()
    body = {"network": network, "address": address or "auto"}
    g.rest.ask("POST", _ONE + "/nics", body, project=project, workload=workload)
    return done(f"A NIC on {network} is being attached", refresh=_REFRESH)


@blueprint.post("/devices/detach-nic")
def detach_nic(project: str, workload: str) -> Response:
    """Detach a NIC."""
    index = request.form.get("index", "")
    g.rest.ask("DELETE", _ONE + "/nics/{index}", project=project, workload=workload, index=index)
    return done(f"eth{index} is being detached", refresh=_REFRESH)


@blueprint.post("/devices/add-port")
def add_port(project: str, workload: str) -> Response:
    """Publish one more port."""
    form = request.form
    found = g.rest.get(_ONE, project=project, workload=workload)
    ends = {end: _number(form.get(end, "")) for end in ("host", "guest")}
    more = {"protocol": form.get("protocol", "tcp"), "address": form.get("address", "").strip()}
    ports = [
        *found["spec"]["ports"],
        {**ends, **{name: text for name, text in more.items() if text}},
    ]
    _set_ports(project, workload, ports, found.etag)
    return done(f"Port {form.get('host')} is being published", refresh=_REFRESH)


@blueprint.post("/devices/remove-port")
def remove_port(project: str, workload: str) -> Response:
    """Publish a port no more; refused where the ports are others by now."""
    position = int(_number(request.form.get("position", "")) or 0)
    version = request.form.get("version", "")
    found = g.rest.get(_ONE, project=project, workload=workload)
    ports = [port for place, port in enumerate(found["spec"]["ports"]) if place != position]
    _set_ports(project, workload, ports, f'"{version}"')
    return done("The port is published no more", refresh=_REFRESH)


def _set_ports(project: str, workload: str, ports: Sequence[Any], etag: str | None) -> None:
    g.rest.ask("PATCH", _ONE, {"ports": ports}, etag=etag, project=project, workload=workload)


def _number(text: str) -> int | str:
    """As a number where it is one; the API says what is wrong with the rest."""
    return int(text) if text.strip().isdecimal() else text


# ---- moves and copies


@blueprint.get("/move")
def ask_move(project: str, workload: str) -> str:
    """Where to move it, with the plan: what would be copied, and how long it would stand still."""
    return _move_form(project, workload)


@blueprint.post("/move")
def move(project: str, workload: str) -> Response | tuple[str, int]:
    """Move it to another host."""
    try:
        g.rest.ask("POST", _ONE + "/move", _wish(), project=project, workload=workload)
    except Refusal as refusal:
        if refusal.status not in _ANSWERED:
            raise
        return _move_form(project, workload, refusal), 422
    return done(f"{workload} is being moved", goto=page_of(project, workload))


def _wish() -> dict[str, str]:
    given = {name: request.values.get(name, "") for name in ("to", "mode")}
    return {name: text for name, text in given.items() if text}


def _move_form(project: str, workload: str, refusal: Refusal | None = None) -> str:
    plan = None
    if refusal is None:
        query = {"dry_run": "true"}
        try:
            reply = g.rest.ask(
                "POST", _ONE + "/move", _wish(), query=query, project=project, workload=workload
            )
            plan = reply["would"]["plan"][0]
        except Refusal as refused:
            if refused.status not in (*_ANSWERED, 403):
                raise
            refusal = refused
    hosts = g.rest.get("/hosts", {"limit": 500, "fields": "id,name,state"})["items"]
    return _form("move", project, workload, refusal, plan=plan, hosts=hosts, wish=_wish())


@blueprint.get("/clone")
def ask_clone(project: str, workload: str) -> str:
    """What the copy is to be."""
    return _form("clone", project, workload)


@blueprint.post("/clone")
def clone(project: str, workload: str) -> Response | tuple[str, int]:
    """Make workloads with the same spec and a copy of its disks."""
    form = request.form
    flags = {name: form.get(name) == "true" for name in ("start", "with_volumes")}
    body, count = {"name": form.get("name", "").strip(), **flags}, form.get("count") or "1"
    query = {"count": count}
    try:
        g.rest.ask("POST", _ONE + "/clone", body, query=query, project=project, workload=workload)
    except Refusal as refusal:
        if refusal.status not in _ANSWERED:
            raise
        return _form("clone", project, workload, refusal), 422
    several = count != "1"
    goto = f"/workloads?q={body['name']}-" if several else page_of(project, str(body["name"]))
    return done(f"{workload} is being cloned", goto=goto)


@blueprint.get("/publish")
def ask_publish(project: str, workload: str) -> str:
    """What the image is to be."""
    return _form("publish", project, workload)


@blueprint.post("/publish")
def publish(project: str, workload: str) -> Response | tuple[str, int]:
    """Make an image from its disk."""
    form = request.form
    labels, wrong = read_pairs(form.get("labels", ""))
    aliases = form.get("aliases", "").replace(",", " ").split()
    name = form.get("name", "").strip()
    if wrong:
        refusal = Refusal(422, {"detail": wrong, "field": "labels"})
        return _form("publish", project, workload, refusal), 422
    body = {"name": name, "aliases": aliases, "labels": labels}
    try:
        g.rest.ask("POST", _ONE + "/publish", body, project=project, workload=workload)
    except Refusal as refusal:
        if refusal.status not in (*_ANSWERED, 403):
            raise
        return _form("publish", project, workload, refusal), 422
    return done(f"Image {name} is being made", goto=page_of(project, workload))


def _form(
    name: str, project: str, workload: str, refusal: Refusal | None = None, **content: Any
) -> str:
    found: Mapping[str, Any] = g.rest.get(_ONE, project=project, workload=workload).document
    return render_template(
        f"workloads/{name}.html",
        workload=found,
        refusal=refusal,
        given=request.values,
        **content,
    )
