"""Volumes: disks that outlive workloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import choices, forms, listing
from virtmgr.console.answers import done
from virtmgr.console.disks import volume_filling
from virtmgr.console.formatting import exact_size
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.rest import Refusal
from virtmgr.domain.access import Action
from virtmgr.domain.difference import patch_for
from virtmgr.domain.workload import Filling

blueprint = Blueprint("volumes", __name__)

_ONE: Final = "/projects/{project}/volumes/{volume}"
_WORKLOAD: Final = "/projects/{project}/workloads/{workload}"
_CHOICE: Final = 500  # workloads to attach to

LIST: Final = ListPage(
    noun="volumes",
    path="/volumes",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state"),
        Column("Size", "size"),
        Column("Project"),
        Column("Attached to"),
        Column("Host"),
        Column("Pool"),
        Column("Created", "created_at"),
    ),
    choices=(
        Choice("state", "State", ("pending", "ready", "failed", "deleting")),
        Choice("host", "Host"),
        Choice("project", "Project"),
    ),
    live="volume",
    of_project=True,
)


@blueprint.app_template_global("volume_path")
def path_of(volume: Mapping[str, Any]) -> str:
    """Where its page is."""
    return f"/projects/{volume['project']['name']}/volumes/{volume['name']}"


@blueprint.get("/volumes")
def list_() -> str:
    """All volumes that may be seen."""
    return render_template("volumes/list.html", list=listing.show(LIST))


@blueprint.get("/volumes/create")
def create() -> str:
    """The form for a new one."""
    return _form({"project": request.args.get("project") or g.project or "default"}, None)


def _form(given: Mapping[str, Any], refusal: Refusal | None) -> str:
    return render_template(
        "volumes/form.html",
        given=given,
        refusal=refusal,
        before=None,
        projects=choices.projects(Action.VOLUMES_CREATE),
    )


def volume_body(form: Mapping[str, str]) -> dict[str, Any]:
    """The API's request of what the form says."""
    body = forms.filled(form, ("name", "size"))
    return body | {"labels": forms.labels(form.get("labels", ""))}


@blueprint.post("/volumes/create")
def make() -> tuple[str, int] | Response:
    """Make it; its host makes the file when it is first attached."""
    form = request.form
    try:
        made = g.rest.ask(
            "POST", "/projects/{project}/volumes", volume_body(form), project=form["project"]
        )
    except Refusal as refusal:
        return _form(form, refusal), 422
    return done(f"Volume {made['name']} is there", goto=path_of(made.document))


@blueprint.get("/projects/<project>/volumes/<volume>")
def show(project: str, volume: str) -> str:
    """A volume: where it is, and what it is attached to."""
    return _show(project, volume)


def _show(project: str, volume: str, **more: Any) -> str:
    found = g.rest.get(_ONE, project=project, volume=volume).document
    asked = {"limit": _CHOICE, "fields": "name,kind,host"}
    if found["host"]:
        asked["host"] = found["host"]["id"]  # its file is there
    host = g.rest.get("/hosts/{host}", host=found["host"]["id"]).document if found["host"] else None
    near = g.rest.get("/projects/{project}/workloads", asked, project=project)["items"]
    filling = _filling(found) if found["workload"] else None
    return render_template(
        "volumes/show.html", volume=found, host=host, near=near, filling=filling, **more
    )


def _filling(volume: Mapping[str, Any]) -> Filling | None:
    """How full it is, as its workload's host sees it."""
    project, workload = volume["project"]["name"], volume["workload"]["id"]
    try:
        found = g.rest.get(_WORKLOAD, project=project, workload=workload).document
    except Refusal:
        return None  # it is gone since, or not the viewer's to see
    return volume_filling(found, volume["id"])


@blueprint.get("/projects/<project>/volumes/<volume>/edit")
def edit(project: str, volume: str) -> str:
    """The form for its name, size and labels."""
    found = g.rest.get(_ONE, project=project, volume=volume).document
    given = {
        "name": found["name"],
        "size": exact_size(found["size"]),
        "labels": forms.labels_text(found["labels"]),
    }
    return render_template("volumes/form.html", given=given, before=found, projects=[])


@blueprint.post("/projects/<project>/volumes/<volume>/edit")
def change(project: str, volume: str) -> tuple[str, int] | Response:
    """Change them."""
    before = g.rest.get(_ONE, project=project, volume=volume).document
    known = before | {"size": exact_size(before["size"])}
    try:
        body = patch_for(known, volume_body(request.form))
        made = g.rest.ask("PATCH", _ONE, body, project=project, volume=volume)
    except Refusal as refusal:
        return render_template(
            "volumes/form.html", given=request.form, before=before, projects=[], refusal=refusal
        ), 422
    return done(f"Volume {made['name']} is changed", goto=path_of(made.document))


@blueprint.post("/projects/<project>/volumes/<volume>/attach")
def attach(project: str, volume: str) -> tuple[str, int] | Response:
    """Attach it to a workload, while it runs where that can be."""
    form = request.form
    body: dict[str, Any] = {"volume": volume, **forms.filled(form, ("path",))}
    if form.get("read_only"):
        body["read_only"] = True
    try:
        g.rest.ask(
            "POST",
            _WORKLOAD + "/volumes",
            body,
            project=project,
            workload=form.get("workload", "").strip(),
        )
    except Refusal as refusal:
        return _show(project, volume, refusal=refusal, given=form), 422
    return done(
        f"{volume} is being attached to {form['workload']}",
        goto=f"/projects/{project}/volumes/{volume}",
    )


@blueprint.post("/projects/<project>/volumes/<volume>/detach")
def detach(project: str, volume: str) -> Response:
    """Detach it from the workload that has it; its content stays."""
    found = g.rest.get(_ONE, project=project, volume=volume).document
    workload = found["workload"] or {"id": request.form.get("workload", ""), "name": ""}
    g.rest.ask(
        "DELETE",
        _WORKLOAD + "/volumes/{volume}",
        project=project,
        workload=workload["id"],
        volume=found["id"],
    )
    return done(f"{volume} is being detached from {workload['name']}", refresh="live-volume")


@blueprint.post("/projects/<project>/volumes/<volume>/delete")
def delete(project: str, volume: str) -> Response:
    """Delete it with all that is on it."""
    g.rest.ask("DELETE", _ONE, project=project, volume=volume)
    return done(f"Volume {volume} is being deleted", goto="/volumes")
