"""Workloads: one list for all kinds, and a page for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from flask import Blueprint, g, render_template

from virtmgr.console import listing
from virtmgr.console.disks import nearly_full_volumes, root_filling, volume_filling
from virtmgr.console.formatting import amount
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.placements import placed
from virtmgr.console.rest import Refusal
from virtmgr.console.verbs import refusals
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.image import ImageType
from virtmgr.domain.workload import Init, State, usual_root_disk

blueprint = Blueprint("workloads", __name__)

_ONE: Final = "/projects/{project}/workloads/{workload}"
_FEW: Final = 100  # names to choose from; more are typed

LIST: Final = ListPage(
    noun="workloads",
    path="/workloads",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state", optional=False),
        Column("Kind", "kind"),
        Column("Project"),
        Column("Host", "host"),
        Column("Image"),
        Column("Addresses"),
        Column("vCPUs"),
        Column("Memory"),
        Column("Labels"),
        Column("Created", "created_at"),
        Column("", optional=False),
    ),
    choices=(
        Choice("kind", "Kind", ("vm", "container")),
        Choice("init", "Container", ("system", "app")),
        Choice("state", "State", tuple(State)),
        Choice("host", "Host"),
        Choice("image", "Image"),
        Choice("project", "Project"),
        Choice("address", "IP or MAC"),
    ),
    live="workload",
    of_project=True,
)


@blueprint.get("/workloads")
def list_() -> str:
    """All workloads that may be seen."""
    names = {name: _names(f"/{name}s") for name in ("host", "image", "project")}
    choices = [replace(one, values=names.get(one.name) or one.values) for one in LIST.choices]
    shown = listing.show(replace(LIST, choices=choices))
    return render_template(
        "workloads/list.html",
        list=shown,
        silent=_silent_hosts(),
        lacking=[noun for noun in ("host", "image") if names[noun] == ()],
        refusals=refused,
        kind_title=kind_title,
    )


def _names(path: str) -> Sequence[str] | None:
    """The names to choose from; None where they are too many."""
    reply = g.rest.get(path, {"limit": _FEW, "fields": "name"})
    return None if reply["next_cursor"] else tuple(item["name"] for item in reply["items"])


def _silent_hosts() -> Mapping[str, str]:
    """Hosts that do not report, and since when: what is told of their workloads is as old."""
    query = {"state": list(SILENT), "limit": 500, "fields": "id,last_seen_at"}
    return {one["id"]: one["last_seen_at"] for one in g.rest.get("/hosts", query)["items"]}


def kind_title(workload: Mapping[str, Any]) -> str:
    """The kind in words: VM, system container, app container."""
    if workload["kind"] == "vm":
        return "VM"
    return f"{workload['init']} container" if workload["init"] else "container"


# ---- one workload; each tab is a page of its own


@blueprint.get("/projects/<project>/workloads/<workload>")
def show(project: str, workload: str) -> str:
    """What it is and how it does."""
    found = _find(project, workload)
    operations = _operations(found, 8)
    busy = any(one["finished_at"] is None for one in operations)
    return tab(
        "show",
        found,
        root_disk=_root_disk(found),
        root_filling=root_filling(found),
        full_volumes=_full_volumes(found),
        silent=_silent_hosts(),
        operations=operations,
        busy=busy,
    )


@blueprint.get("/projects/<project>/workloads/<workload>/devices")
def devices(project: str, workload: str) -> str:
    """Its disks, NICs and ports."""
    found = _find(project, workload)
    volumes = g.rest.get("/projects/{project}/volumes", {"limit": 500}, project=project)["items"]
    networks = g.rest.get("/networks", {"limit": 500, "fields": "name,project,type,ipv4"})["items"]
    mounted = {mount["volume"]: mount for mount in found["spec"]["volumes"]}
    return tab(
        "devices",
        found,
        root_disk=_root_disk(found),
        root_filling=root_filling(found),
        disks=[
            (
                one,
                mounted.get(one["name"]) or mounted.get(one["id"]) or {},
                volume_filling(found, one["id"]),
            )
            for one in volumes
            if one["workload"] and one["workload"]["id"] == found["id"]
        ],
        free=[one for one in volumes if one["workload"] is None],
        networks=[
            one
            for one in networks
            if one["project"] is None or one["project"]["name"] == found["project"]["name"]
        ],
    )


@blueprint.get("/projects/<project>/workloads/<workload>/events")
def events(project: str, workload: str) -> str:
    """Who did what with it, when and why."""
    found = _find(project, workload)
    query = {"target": found["id"], "limit": 100}
    return tab("events", found, events=g.rest.get("/events", query)["items"])


@blueprint.get("/projects/<project>/workloads/<workload>/placement")
def placement(project: str, workload: str) -> str:
    """Why it runs on its host, and not on another."""
    found = _find(project, workload)
    reply = g.rest.get(_ONE + "/placement", project=project, workload=workload)
    hosts = [reply["host"]["name"]] if reply["host"] else []
    return tab("placement", found, placed=placed(reply["explanation"], hosts))


def refused(workload: Mapping[str, Any]) -> Mapping[str, str]:
    """Each verb that the viewer cannot ask of it now, with the reason."""
    return {**refusals(workload), **g.rights.refusals(workload["project"]["name"])}


def _find(project: str, workload: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = g.rest.get(_ONE, project=project, workload=workload).document
    return found


def _full_volumes(workload: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Those of its volumes that are nearly full: few, if any."""
    project, found = workload["project"]["name"], []
    for id in nearly_full_volumes(workload):
        with suppress(Refusal):  # deleted since, or not the viewer's to see
            found.append(
                g.rest.get(
                    "/projects/{project}/volumes/{volume}", project=project, volume=id
                ).document
            )
    return found


def _operations(workload: Mapping[str, Any], limit: int) -> Sequence[Mapping[str, Any]]:
    query = {"target": workload["id"], "limit": limit}
    items: Sequence[Mapping[str, Any]] = g.rest.get("/operations", query)["items"]
    return items


def _root_disk(workload: Mapping[str, Any]) -> str:
    """Its size in words, also where nobody has given one."""
    spec = workload["spec"]
    if spec["root_disk"]["size"] is not None:
        return amount(spec["root_disk"]["size"])
    usual = usual_root_disk(Init(spec["init"]) if spec["init"] else None, _image_type(workload))
    return f"{amount(usual)} (default)" if usual else "none"


def _image_type(workload: Mapping[str, Any]) -> ImageType | None:
    """Of a VM's image; a container's makes no difference."""
    if workload["kind"] != "vm" or workload["image"] is None:
        return None
    try:
        image = g.rest.get("/images/{image}", image=workload["image"]["id"]).document
    except Refusal as refusal:
        if refusal.status not in (403, 404):
            raise
        return None
    return ImageType(image["type"]) if image["type"] else None


def tab(name: str, workload: Mapping[str, Any], **content: Any) -> str:
    """One of its pages of this module."""
    return page(f"workloads/{name}.html", workload, **content)


def page(template: str, workload: Mapping[str, Any], **content: Any) -> str:
    """One of its pages, with what all of them show."""
    return render_template(
        template,
        workload=workload,
        no=refused(workload),
        kind=kind_title(workload),
        **content,
    )
