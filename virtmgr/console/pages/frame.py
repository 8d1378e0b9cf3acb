"""What stands around every page: the stream of news, search, tasks, and the viewer's choices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from flask import Blueprint, Response, g, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.console import palette, preferences
from virtmgr.console.answers import reloaded
from virtmgr.console.navigation import PLACES
from virtmgr.console.rest import Refusal

blueprint = Blueprint("frame", __name__)

_EVENT_NAME: Final = re.compile(rb"^event: .*\n", re.MULTILINE)
_FOUND: Final = 6  # of each noun
_VERBS: Final = 3  # that a word may begin


@dataclass(frozen=True)
class Searched:
    """A noun that the palette searches."""

    title: str
    path: str  # of the API
    icon: str


SEARCHED: Final = (
    Searched("Workloads", "/workloads", "box"),
    Searched("Hosts", "/hosts", "server-2"),
    Searched("Images", "/images", "photo"),
    Searched("Volumes", "/volumes", "database"),
    Searched("Networks", "/networks", "network"),
    Searched("Projects", "/projects", "folder"),
    Searched("Users", "/users", "user"),
)


@blueprint.get("/live")
def live() -> Response:
    """The event log as Server-Sent Events: the type of what changed, and its id."""
    given = request.headers.get("Last-Event-ID")
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": given} if given else {})}
    pieces: Iterator[bytes] = g.rest.stream("/events", None, headers)
    return Response(
        (_EVENT_NAME.sub(b"", piece) for piece in pieces),  # scripts hear unnamed ones only
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@blueprint.get("/palette")
def show_palette() -> str:
    """What matches: verbs, objects by their names, places, and what may be begun."""
    text = request.args.get("q", "").strip()[:128]
    near = [place for place in PLACES if text.lower() in f"{place.title} {place.about}".lower()]
    found = [(noun, _search(noun, text)) for noun in SEARCHED] if text else []
    return render_template(
        "frame/palette.html",
        text=text,
        verbs=[(verb, _objects(verb, name)) for verb, name in palette.verbs(text)[:_VERBS]],
        found=found,
        places=near,
        doings=palette.doings(text),
        address=palette.address,
    )


def _objects(verb: palette.Verb, name: str) -> list[Mapping[str, Any]]:
    noun = next(one for one in SEARCHED if one.path == verb.noun)
    return _search(noun, name, verb.only)


def _search(
    noun: Searched, text: str, only: Mapping[str, str] = MappingProxyType({})
) -> list[Mapping[str, Any]]:
    query = {**palette.asked(noun.path, text), "limit": _FOUND, "fields": _fields(noun), **only}
    try:
        items: list[Mapping[str, Any]] = g.rest.get(noun.path, query)["items"]
    except Refusal as refusal:
        if refusal.status == 403:
            return []  # what may not be listed is not found
        raise
    return items


def _fields(noun: Searched) -> str:
    return {"/workloads": "id,name,project.name,kind,status.state", "/hosts": "id,name,state"}.get(
        noun.path, "id,name,project.name" if noun.path in ("/volumes", "/networks") else "id,name"
    )


@blueprint.get("/tasks")
def tasks() -> str:
    """The drawer: what runs, and what ended lately."""
    items = g.rest.get("/operations", {"limit": 15, "sort": "-created_at"})["items"]
    running = [item for item in items if item["finished_at"] is None]
    return render_template("frame/tasks.html", items=items, running=running)


@blueprint.get("/projects-menu")
def projects_menu() -> str:
    """The projects to choose from."""
    items = g.rest.get("/projects", {"limit": 100, "fields": "id,name"})["items"]
    return render_template("frame/projects.html", items=items)


@blueprint.post("/project")
def choose_project() -> AnyResponse:
    """Show one project's things only, or (without a name) those of all projects."""
    name = request.form.get("project", "")
    if name:
        g.rest.get("/projects/{project}", project=name)  # it must be there
    response = reloaded()
    preferences.keep(response, preferences.PROJECT, name)
    return response
