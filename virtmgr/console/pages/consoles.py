"""Consoles: display, serial console or terminal, shell, and the log that goes on.

Pages show; scripts open the streams, on the console's own port, each with a ticket that is asked
for here. No page waits on a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, g, jsonify, make_response, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.console.formatting import parse_time
from virtmgr.console.pages.workloads import page
from virtmgr.console.policy import policy
from virtmgr.console.rest import Refusal
from virtmgr.console.rights import only

blueprint = Blueprint("consoles", __name__, url_prefix="/projects/<project>/workloads/<workload>")

_ONE: Final = "/projects/{project}/workloads/{workload}"
_LOG_LINES: Final = 1000
_SHELL: Final = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l"


@dataclass(frozen=True)
class Screen:
    """One way to look at a workload."""

    name: str
    title: str
    icon: str
    script: str  # which shows it
    event: str  # that tells who opened it; "": nobody is told


DISPLAY: Final = Screen("display", "Display", "device-desktop", "vnc.js", "workload.vnc")
SERIAL: Final = Screen("serial", "Serial console", "terminal-2", "terminal.js", "workload.console")
TERMINAL: Final = Screen("serial", "Terminal", "terminal-2", "terminal.js", "workload.console")
SHELL: Final = Screen("shell", "Shell", "command", "terminal.js", "")
LOG: Final = Screen("log", "Log", "file", "logs.js", "")


def screens_of(kind: str) -> tuple[Screen, ...]:
    """What a kind of workload can be looked at through, the most useful first. Pure."""
    if kind == "vm":
        return (DISPLAY, SERIAL, SHELL, LOG)
    return (SHELL, TERMINAL, LOG)


def exec_body(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The API's request for a shell with a terminal. Pure.

    :param asked: what the page's script sent: the command's words (none: the best shell that there
        is), who runs it, and the terminal's size.
    """
    words = str(asked.get("command") or "").split()
    body = {
        "command": words or ["sh", "-c", _SHELL],
        "tty": True,
        "stdin": True,
        "env": {"TERM": "xterm-256color"},
        "rows": asked.get("rows", 24),
        "columns": asked.get("columns", 80),
    }
    if asked.get("user"):
        body["user"] = str(asked["user"])
    return body


@blueprint.get("/console")
def show(project: str, workload: str) -> AnyResponse:
    """The page with one of the screens."""
    found = g.rest.get(_ONE, project=project, workload=workload).document
    screens = only(screens_of(found["kind"]), g.rights, found["project"]["name"])
    screen = _named(screens, request.args.get("show", screens[0].name))
    response = make_response(
        page("consoles/show.html", found, screens=screens, screen=screen, given=request.args)
    )
    # xterm.js writes the colours and sizes of its cells into style elements of its own.
    response.headers["Content-Security-Policy"] = policy(
        inline_styles=screen.script == "terminal.js"
    )
    return response


def _named(screens: tuple[Screen, ...], name: str) -> Screen:
    for screen in screens:
        if screen.name == name:
            return screen
    raise NotFound(f"this workload has no {name!r}")


@blueprint.post("/console/<name>/ticket")
def ticket(project: str, workload: str, name: str) -> tuple[Response, int] | Response:
    """Where the page's script opens its stream: good once, within seconds."""
    asked: Mapping[str, Any] = request.get_json()
    try:
        made = _ticket(name, asked, project=project, workload=workload)
    except Refusal as refusal:
        return jsonify(refusal.problem), refusal.status
    return jsonify(path=urlsplit(made["url"]).path)


def _ticket(name: str, asked: Mapping[str, Any], **one: str) -> Any:
    if name == "display":
        return g.rest.ask("POST", "/projects/{project}/workloads/{workload}/vnc", {}, **one)
    if name == "serial":
        return g.rest.ask("POST", "/projects/{project}/workloads/{workload}/console", {}, **one)
    if name == "shell":
        body = exec_body(asked)
        return g.rest.ask("POST", "/projects/{project}/workloads/{workload}/exec", body, **one)
    if name == "log":
        body = {"tail": _LOG_LINES}
        return g.rest.ask("POST", "/projects/{project}/workloads/{workload}/logs", body, **one)
    raise NotFound(f"there is no console {name!r}")


@blueprint.get("/console/<name>/opened")
def opened(project: str, workload: str, name: str) -> Response:
    """Who opened it last, and how long ago: told to whoever loses it."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    screen = _named(screens_of(found["kind"]), name)
    query = {"target": found["id"], "type": screen.event, "limit": 1}
    items = g.rest.get("/events", query)["items"] if screen.event else []
    last = items[0] if items else None
    if last is None:
        return jsonify(user=None, seconds=None)
    ago = (datetime.now(UTC) - parse_time(last["at"])).total_seconds()
    return jsonify(user=last["user"]["name"] if last["user"] else None, seconds=ago)


@blueprint.get("/console/here")
def here(project: str, workload: str) -> tuple[str, int]:
    """Somebody types in a console: the session is in use."""
    del project, workload
    return "", 204


@blueprint.get("/console/log.txt")
def log(project: str, workload: str) -> Response:
    """All of the log that the host keeps, as a file."""
    pieces = g.rest.stream(_ONE + "/logs", None, {}, project=project, workload=workload)
    response = Response(pieces, mimetype="text/plain")
    response.headers["Content-Disposition"] = f'attachment; filename="{workload}.log"'
    return response
