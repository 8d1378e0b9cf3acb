"""Adding hosts: by ssh, or by a join token; and further runs by ssh on those that are there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from flask import Blueprint, abort, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import choices, forms
from virtmgr.console.formatting import words
from virtmgr.console.rest import Refusal

blueprint = Blueprint("host_add", __name__, url_prefix="/hosts")

MOST: Final = 32  # machines at a time
_NAME: Final = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_SECRETS: Final = ("password", "become_password", "private_key")
AGAIN: Final = {
    "retry": "Retry the installation",
    "reinstall": "Reinstall",
    "renew-certificates": "Renew the certificate",
    "upgrade": "Upgrade the agent",
}
TITLES: Final = {
    "enroll": "Installation",
    "reinstall": "Reinstallation",
    "renew_certificates": "Renewal of the certificate",
    "upgrade": "Upgrade of the agent",
}
"""Of operations by ssh, by their verbs."""
_ABOUT: Final = {
    "retry": "It goes on where it failed: what is right already stays as it is.",
    "reinstall": "For a host that lost its key or was installed anew: it joins again and stays the "
    "same host, with its workloads.",
    "renew-certificates": "It gets the CA as it is now and a fresh certificate. Agents do that by "
    "themselves in time; this mends one that was off for too long.",
    "upgrade": "It gets this control plane’s release. What runs there runs on.",
}


@dataclass(frozen=True)
class Machine:
    """A machine as it was typed: [NAME=]ADDRESS[:PORT]."""

    address: str
    port: int
    name: str

    @property
    def key(self) -> str:
        """Part of the names of its fields."""
        return f"{self.address}:{self.port}"


@dataclass
class Tried:
    """What became of one machine."""

    machine: Machine
    operation: Mapping[str, Any] | None = None
    refusal: Refusal | None = field(default=None)


def parse_machines(text: str, port: int) -> list[Machine]:
    """The machines that were typed, one a line; each once.

    :raises Refusal: there is none, there are too many, or a line is none; about ``addresses``.
    """
    found: dict[tuple[str, int], Machine] = {}
    for line in re.split(r"[\s,]+", text.strip()):
        if line:
            machine = _parse_machine(line, port)
            found.setdefault((machine.address, machine.port), machine)
    if not found:
        raise _wrong("give the address of at least one machine")
    if len(found) > MOST:
        raise _wrong(f"at most {MOST} machines at a time; these are {len(found)}")
    return list(found.values())


def _parse_machine(line: str, port: int) -> Machine:
    name, _, address = line.rpartition("=")
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d+))?", address)
    if bracketed:
        address, own_port = bracketed[1], bracketed[2]
    elif address.count(":") == 1:
        address, _, own_port = address.partition(":")
    else:
        own_port = None
    if own_port is not None and not own_port.isdecimal():
        raise _wrong(f"{line!r} is no machine: write ADDRESS, ADDRESS:PORT or NAME=ADDRESS")
    if not address:
        raise _wrong(f"{line!r} has no address")
    return Machine(address, int(own_port or port), name or name_for(address))


def parse_port(text: str) -> int:
    """A port that was typed.

    :raises Refusal: it is none; about ``port``.
    """
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise Refusal(422, {"detail": "a port is 1 to 65535", "field": "port"})
    return int(text)


def name_for(address: str) -> str:
    """The name that an address suggests; empty where it is only numbers."""
    first = address.partition(".")[0].lower()
    return first if _NAME.match(first) and not first.isdecimal() and ":" not in address else ""


def _wrong(message: str) -> Refusal:
    return Refusal(422, {"detail": message, "field": "addresses"})


def login_of(form: Mapping[str, str]) -> dict[str, Any]:
    """The part ``ssh`` of a request out of a form's fields ``ssh.…``; what is empty is left out."""
    found: dict[str, Any] = {}
    for name in ("user", *_SECRETS):
        text = form.get(f"ssh.{name}", "")
        if text.strip():
            found[name] = text.replace("\r\n", "\n") if name == "private_key" else text
    return found


# ---- by ssh: which machines, whose keys they are, how to log in


@blueprint.get("/add")
def machines() -> str:
    """Which machines, into which cluster."""
    return render_template("hosts/add.html", given=request.args, clusters=choices.clusters())


@blueprint.get("/add/keys")
def keys() -> str | tuple[str, int]:
    """Their keys, each asked for apart; and how to log in."""
    given = request.args
    try:
        found = parse_machines(given.get("addresses", ""), parse_port(given.get("port", "22")))
        forms.labels(given.get("labels", ""))
    except Refusal as refusal:
        text = render_template(
            "hosts/add.html", given=given, refusal=refusal, clusters=choices.clusters()
        )
        return text, 422
    return render_template("hosts/add_keys.html", given=given, machines=found, tried={})


@blueprint.post("/add/scan")
def scan() -> str:
    """The keys that one machine shows now."""
    form = request.form
    machine = Machine(form["address"], parse_port(form["port"]), form.get("name", ""))
    body = {"address": machine.address, "port": machine.port}
    try:
        found = g.rest.ask("POST", "/hosts/scan-key", body)["keys"]
    except Refusal as refusal:
        return render_template("hosts/_scanned.html", machine=machine, refusal=refusal)
    chosen = form.get("chosen", "")
    return render_template("hosts/_scanned.html", machine=machine, keys=found, chosen=chosen)


@blueprint.post("/add")
def add() -> tuple[str, int] | Response:
    """Begin: one request for each machine, whatever becomes of the others."""
    form = request.form
    found = parse_machines(form.get("addresses", ""), parse_port(form.get("port", "22")))
    tried = [_enroll(machine) for machine in found]
    begun = [one.operation["id"] for one in tried if one.operation is not None]
    refused = {one.machine.key: one.refusal for one in tried if one.refusal is not None}
    if refused:
        left = [one for one in found if one.key in refused] if begun else found
        text = render_template(
            "hosts/add_keys.html",
            given=form,
            machines=left,
            tried=refused,
            begun=begun,
            refusal=next(iter(refused.values()), None),
        )
        return text, 422
    return redirect(_follow(begun), 303)


def _follow(operations: Sequence[str]) -> str:
    if len(operations) == 1:
        return f"/hosts/installations/{operations[0]}"
    return f"/hosts/installations?{urlencode({'operation': operations}, doseq=True)}"


def _enroll(machine: Machine) -> Tried:
    form = request.form
    body = {
        "address": machine.address,
        "name": form.get(f"name-{machine.key}", "").strip() or None,
        "cluster": form.get("cluster") or "default",
        "labels": forms.labels(form.get("labels", "")),
        "host_key": form.get(f"key-{machine.key}") or None,
        "ssh": {**login_of(form), "port": machine.port},
        "vms": form.get("vms") == "true",
        "keep_credentials": form.get("keep_credentials") == "true",
    }
    given = {name: value for name, value in body.items() if value is not None}
    if "host_key" not in given:
        problem = {
            "detail": f"the key of {machine.address} is to be compared first",
            "hint": "ask it for its keys, and choose the one that you have compared",
        }
        return Tried(machine, refusal=Refusal(422, problem))
    try:
        return Tried(machine, g.rest.ask("POST", "/hosts", given).operation)
    except Refusal as refusal:
        return Tried(machine, refusal=refusal)


# ---- by a join token


@blueprint.get("/token")
def token_form() -> str:
    """A host that joins by itself: its name."""
    return render_template("hosts/token.html", given=request.args, clusters=choices.clusters())


@blueprint.post("/token")
def make_token() -> str | tuple[str, int]:
    """Its join token, shown once."""
    form = request.form
    try:
        body = {
            "name": form.get("name", ""),
            "cluster": form.get("cluster") or "default",
            "labels": forms.labels(form.get("labels", "")),
        }
        made = g.rest.ask("POST", "/host-tokens", body).document
    except Refusal as refusal:
        text = render_template(
            "hosts/token.html", given=form, refusal=refusal, clusters=choices.clusters()
        )
        return text, 422
    return render_template("hosts/token.html", given=form, made=made, clusters=[])


@blueprint.app_template_filter("run_title")
def run_title(operation: Mapping[str, Any]) -> str:
    """What an operation by ssh is called: Installation of node1."""
    title = TITLES.get(operation["verb"], words(operation["verb"]).capitalize())
    return f"{title} of {operation['target']['name']}"


@blueprint.app_context_processor
def _where() -> dict[str, str]:
    """Where agents reach this control plane, as far as it can be told from here."""
    name = urlsplit(f"//{request.host}").hostname or "CONTROL-PLANE"
    return {"agents_at": f"https://{f'[{name}]' if ':' in name else name}:7444"}


# ---- further runs by ssh


@blueprint.get("/<host>/again/<verb>")
def again(host: str, verb: str) -> str:
    """What is needed for it: nothing, where the credentials were kept."""
    return _again(host, verb, request.args)


def _again(host: str, verb: str, given: Mapping[str, str], refusal: Refusal | None = None) -> str:
    if verb not in AGAIN:
        abort(404)
    found = g.rest.get("/hosts/{host}", host=host).document
    return render_template(
        "hosts/again.html",
        host=found,
        can=frozenset(),
        verb=verb,
        title=AGAIN[verb],
        about=_ABOUT[verb],
        lacking=_lacking(host, verb),
        last=last_run(found),
        given=given,
        refusal=refusal,
        tab="again",
    )


def _lacking(host: str, verb: str) -> Refusal | None:
    """Why it cannot be begun without further ado; None: all that it takes was kept."""
    try:
        _ask_again(host, verb, {}, {"dry_run": "true"})
    except Refusal as refusal:
        if refusal.status == 401:
            raise
        return refusal
    return None


def last_run(host: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The last operation by ssh on a host."""
    query = {"target": host["id"], "limit": 10}
    items = g.rest.get("/operations", query)["items"]
    return next((one for one in items if one["verb"] in TITLES), None)


@blueprint.post("/<host>/again/<verb>")
def run_again(host: str, verb: str) -> tuple[str, int] | Response:
    """Begin it."""
    form = request.form
    ssh = login_of(form)
    if form.get("ssh.port"):
        ssh["port"] = int(form["ssh.port"]) if form["ssh.port"].isdecimal() else 0
    body: dict[str, Any] = {"ssh": ssh} if ssh else {}
    body |= {name: form[name].strip() for name in ("address", "host_key") if form.get(name)}
    if form.get("keep_credentials") == "true":
        body["keep_credentials"] = True
    try:
        reply = _ask_again(host, verb, body)
    except Refusal as refusal:
        return _again(host, verb, form, refusal), 422
    return redirect(_follow([reply.operation["id"]]), 303)


def _ask_again(
    host: str, verb: str, body: Mapping[str, Any], query: Mapping[str, Any] | None = None
) -> Any:
    if verb == "retry":
        return g.rest.ask("POST", "/hosts/{host}/retry", body, query=query, host=host)
    if verb == "reinstall":
        return g.rest.ask("POST", "/hosts/{host}/reinstall", body, query=query, host=host)
    if verb == "renew-certificates":
        return g.rest.ask("POST", "/hosts/{host}/renew-certificates", body, query=query, host=host)
    if verb != "upgrade":
        abort(404)
    return g.rest.ask("POST", "/hosts/{host}/upgrade", body, query=query, host=host)


# ---- how far they are


@blueprint.get("/installations")
def installations() -> str:
    """Several at a time."""
    ids = request.args.getlist("operation")[:MOST]
    operations = [g.rest.get("/operations/{operation}", operation=id).document for id in ids]
    return render_template("hosts/installations.html", operations=operations)


@blueprint.get("/installations/<operation>")
def installation(operation: str) -> str:
    """One, with what it writes."""
    found = g.rest.get("/operations/{operation}", operation=operation).document
    log = read_log(operation, 0)
    return render_template("hosts/installation.html", operation=found, **log)


@blueprint.get("/installations/<operation>/state")
def installation_state(operation: str) -> str:
    """How far it is, by itself."""
    found = g.rest.get("/operations/{operation}", operation=operation).document
    return render_template("hosts/_installation.html", operation=found)


@blueprint.get("/installations/<operation>/log")
def installation_log(operation: str) -> str:
    """What it has written since, and where to go on."""
    after = request.args.get("after", "0")
    log = read_log(operation, int(after) if after.isdecimal() else 0)
    return render_template("hosts/_log.html", id=operation, **log)


def read_log(operation: str, after: int) -> dict[str, Any]:
    """Lines after one that was read before."""
    path = "/operations/{operation}/log"
    found = g.rest.get(path, {"after": after}, operation=operation)
    items = found["items"]
    return {
        "lines": [(line["text"], tone_of(line["text"])) for line in items],
        "after": items[-1]["sequence"] if items else after,
        "finished": found["finished"],
    }


def tone_of(line: str) -> str:
    """How a line of an installation's log is to look."""
    text = line.strip().lower()
    if text.startswith(("failed", "unreachable", "fatal", "error")) and "expected" not in text:
        return "log-bad"
    return "log-changed" if text == "changed" else ""
