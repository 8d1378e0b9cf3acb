"""Changes of a spec: by a form, or as YAML with a comparison before anything is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.pages.workload_actions import page_of
from virtmgr.console.pages.workload_create import Told
from virtmgr.console.pages.workloads import tab
from virtmgr.console.rest import Refusal, Reply
from virtmgr.console.schema_fields import fields_of
from virtmgr.console.workload_spec import as_text, edit_fields, edit_patch, from_text, readable
from virtmgr.domain.difference import patch_between, unified

blueprint = Blueprint(
    "workload_spec", __name__, url_prefix="/projects/<project>/workloads/<workload>"
)

_ONE: Final = "/projects/{project}/workloads/{workload}"
_ANSWERED: Final = (400, 403, 404, 409, 412, 422, 507)


@dataclass(frozen=True)
class Line:
    """A line of a difference; ``css``: added, removed, place, or nothing."""

    text: str
    css: str


@blueprint.get("/edit")
def ask_edit(project: str, workload: str) -> str:
    """The form for what is changed most: name, size, life, labels."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    return _edit_form(found, edit_fields(found["spec"]), found["generation"])


@blueprint.post("/edit")
def edit(project: str, workload: str) -> Response | tuple[str, int]:
    """Change what differs."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    fields = dict(request.form.items())
    generation = fields.get("generation", "")
    if generation != str(found["generation"]):
        told = Told(
            f"{workload} was changed while you edited it",
            "The form shows what you typed: look at its events, then save again.",
        )
        return _edit_form(found, fields, found["generation"], told), 422
    patch, wrong = edit_patch(found["spec"], fields)
    if wrong:
        told = Told("Some fields cannot be read", None, wrong)
        return _edit_form(found, fields, generation, told), 422
    if not patch:
        return done("Nothing differs", goto=page_of(project, workload))
    try:
        g.rest.ask("PATCH", _ONE, patch, etag=found.etag, project=project, workload=workload)
    except Refusal as refusal:
        if refusal.status not in _ANSWERED:
            raise
        told = Told(str(refusal), refusal.hint, refusal.fields)
        return _edit_form(found, fields, generation, told), 422
    name = str(patch.get("name", workload))
    return done(f"{name} is being changed", goto=page_of(project, name))


def _edit_form(
    found: Reply, fields: Mapping[str, str], generation: Any, told: Told | None = None
) -> str:
    return render_template(
        "workloads/edit.html",
        workload=found.document,
        given=fields,
        generation=generation,
        refusal=told,
    )


# ---- YAML


@blueprint.get("/yaml")
def show_yaml(project: str, workload: str) -> str:
    """The spec as YAML to be edited."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    return _editor(found, as_text(found["spec"]))


@blueprint.post("/yaml")
def save_yaml(project: str, workload: str) -> Response | tuple[str, int] | str:
    """Check it and show what would change; or (``save``) do it."""
    found = g.rest.get(_ONE, project=project, workload=workload)
    text = request.form.get("text", "").replace("\r\n", "\n")
    now = readable(found["spec"])
    try:
        wanted = from_text(text)
    except ValueError as error:
        return _editor(found, text, Told(str(error))), 422
    if request.form.get("generation") != str(found["generation"]):
        told = Told(
            f"{workload} was changed while you edited it",
            "Below is how your text differs from what it is now. Put right what is not meant, "
            "then compare again.",
        )
        return _editor(found, text, told, unified(now, wanted, workload)), 422
    patch = patch_between(now, wanted)
    saving = request.form.get("action") == "save"
    try:
        reply = g.rest.ask(
            "PATCH",
            _ONE,
            patch,
            query={} if saving else {"dry_run": "true"},
            etag=found.etag,
            project=project,
            workload=workload,
        )
    except Refusal as refusal:
        if refusal.status not in _ANSWERED:
            raise
        told = Told(str(refusal), refusal.hint, refusal.fields)
        return _editor(found, text, told, unified(now, wanted, workload)), 422
    if saving:
        name = str(wanted.get("name", workload))
        return done(f"{name} is being changed", goto=page_of(project, name))
    then = readable(reply["would"]["workload"]["spec"])
    return _editor(found, text, None, unified(now, then, workload), checked=True)


@blueprint.get("/yaml/fields")
def show_fields(project: str, workload: str) -> str:
    """Every field that a spec may have."""
    schema = g.rest.get("/schema/workload").document
    return render_template(
        "workloads/fields.html", fields=fields_of(schema), here=page_of(project, workload)
    )


def _editor(
    found: Reply,
    text: str,
    told: Told | None = None,
    difference: list[str] | None = None,
    *,
    checked: bool = False,
) -> str:
    return tab(
        "yaml",
        found.document,
        text=text,
        refusal=told,
        difference=None if difference is None else [_line(line) for line in difference],
        checked=checked,
    )


def _line(text: str) -> Line:
    css = {"+": "added", "-": "removed", "@": "place"}.get(text[:1], "")
    return Line(text, "" if text.startswith(("---", "+++")) else css)
