"""Projects: tenants, their quotas and members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import forms, listing
from virtmgr.console.answers import done
from virtmgr.console.formatting import amount, exact_size, number
from virtmgr.console.listing import Column, ListPage
from virtmgr.console.rest import Refusal
from virtmgr.domain.difference import patch_for

blueprint = Blueprint("projects", __name__, url_prefix="/projects")

_ONE: Final = "/projects/{project}"
_INSIDE: Final = 8  # of each noun, on the project's page

LIST: Final = ListPage(
    noun="projects",
    path="/projects",
    columns=(
        Column("Name", "name", optional=False),
        Column("Workloads"),
        Column("vCPUs"),
        Column("Memory"),
        Column("Disk"),
        Column("Volumes"),
        Column("Addresses"),
        Column("Created", "created_at"),
    ),
    live="project",
)

QUOTAS: Final = (
    ("workloads", "Workloads", number),
    ("vcpus", "vCPUs", number),
    ("memory", "Memory", amount),
    ("disk", "Disk", amount),
    ("volumes", "Volumes", number),
    ("addresses", "Addresses", number),
)
"""What a quota limits, with its title and how it is written."""


@blueprint.get("")
def list_() -> str:
    """All projects that may be seen."""
    return render_template("projects/list.html", list=listing.show(LIST), quotas=QUOTAS)


@blueprint.get("/create")
def create() -> str:
    """The form for a new one."""
    return render_template("projects/form.html", given={}, before=None)


@blueprint.post("/create")
def make() -> tuple[str, int] | Response:
    """Make it."""
    form = request.form
    try:
        labels = forms.labels(form["labels"])
        body = forms.filled(form, ("name", "description")) | {"labels": labels}
        made = g.rest.ask("POST", "/projects", body)
    except Refusal as refusal:
        return render_template("projects/form.html", given=form, before=None, refusal=refusal), 422
    return done(f"Project {made['name']} is there", goto=f"/projects/{made['name']}")


@blueprint.get("/<project>")
def show(project: str) -> str:
    """A project: its quota, members, and what is in it."""
    quota = g.rest.get(_ONE + "/quota", project=project)
    inside = {"limit": _INSIDE}
    return render_template(
        "projects/show.html",
        found=g.rest.get(_ONE, project=project).document,
        quota=quota.document,
        quotas=QUOTAS,
        members=_members(project),
        users=_users(),
        workloads=g.rest.get(
            _ONE + "/workloads",
            inside | {"fields": "id,name,project,kind,status.state"},
            project=project,
        ).document,
        volumes=g.rest.get(_ONE + "/volumes", inside, project=project).document,
        networks=[
            network
            for network in g.rest.get(_ONE + "/networks", {"limit": 100}, project=project)["items"]
            if network["project"] is not None
        ],
    )


def _members(project: str) -> list[Mapping[str, Any]] | None:
    """Who has a role in the project; None: it is not for the viewer to know."""
    try:
        items: list[Mapping[str, Any]] = g.rest.get(
            "/role-bindings", {"project": project, "sort": "created_at", "limit": 500}
        )["items"]
    except Refusal as refusal:
        if refusal.status != 403:
            raise
        return None
    return items


def _users() -> list[str]:
    """Names to choose from."""
    try:
        items = g.rest.get("/users", {"limit": 500, "fields": "name"})["items"]
    except Refusal as refusal:
        if refusal.status != 403:
            raise
        return []
    return [item["name"] for item in items]


@blueprint.get("/<project>/edit")
def edit(project: str) -> str:
    """The form for its name, description and labels."""
    found = g.rest.get(_ONE, project=project)
    given = {**found.document, "labels": forms.labels_text(found["labels"])}
    return render_template("projects/form.html", given=given, before=found.document)


@blueprint.post("/<project>/edit")
def change(project: str) -> tuple[str, int] | Response:
    """Change them."""
    form = request.form
    before = g.rest.get(_ONE, project=project).document
    wanted: dict[str, Any] = {
        "name": form["name"].strip(),
        "description": form["description"].strip(),
    }
    try:
        wanted |= {"labels": forms.labels(form["labels"])}
        made = g.rest.ask("PATCH", _ONE, patch_for(before, wanted), project=project)
    except Refusal as refusal:
        return render_template(
            "projects/form.html", given=form, before=before, refusal=refusal
        ), 422
    return done(f"Project {made['name']} is changed", goto=f"/projects/{made['name']}")


@blueprint.get("/<project>/quota")
def quota(project: str) -> str:
    """The form for its limits."""
    found = g.rest.get(_ONE + "/quota", project=project).document
    given = {name: value for name, value in found.items() if value is not None}
    given |= {
        f"limit_{name}": str(exact_size(found[f"limit_{name}"]))
        for name in ("memory", "disk")
        if found[f"limit_{name}"] is not None
    }
    return _quota_form(project, found, given)


def _quota_form(
    project: str, found: Mapping[str, Any], given: Mapping[str, Any], refusal: Refusal | None = None
) -> str:
    return render_template(
        "projects/quota.html",
        name=project,
        quota=found,
        given=given,
        quotas=QUOTAS,
        refusal=refusal,
    )


@blueprint.post("/<project>/quota")
def change_quota(project: str) -> tuple[str, int] | Response:
    """Change its limits; an empty field is no limit."""
    form = request.form
    body: dict[str, Any] = {}
    for name, _, _ in QUOTAS:
        typed = form.get(f"limit_{name}", "").strip()
        body[f"limit_{name}"] = (
            (typed or None) if name in ("memory", "disk") else forms.number(typed)
        )
    try:
        g.rest.ask("PATCH", _ONE + "/quota", body, project=project)
    except Refusal as refusal:
        found = g.rest.get(_ONE + "/quota", project=project).document
        return _quota_form(project, found, form, refusal), 422
    return done(f"The quota of {project} is changed", goto=f"/projects/{project}")


@blueprint.post("/<project>/members")
def add_member(project: str) -> Response:
    """Give somebody a role in it."""
    body = {"user": request.form["user"], "role": request.form["role"], "project": project}
    g.rest.ask("POST", "/role-bindings", body)
    return done(f"{body['user']} is {body['role']} now", refresh="live-role_binding")


@blueprint.post("/<project>/members/<binding>/remove")
def remove_member(project: str, binding: str) -> Response:
    """Take a role from somebody."""
    g.rest.ask("DELETE", "/role-bindings/{binding}", binding=binding)
    return done(f"The role in {project} is taken away", refresh="live-role_binding")


@blueprint.post("/<project>/delete")
def delete(project: str) -> Response:
    """Delete it, if it is empty."""
    g.rest.ask("DELETE", _ONE, project=project)
    return done(f"Project {project} is deleted", goto="/projects")
