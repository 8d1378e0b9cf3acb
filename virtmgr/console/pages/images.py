"""Images: what workloads are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import forms, listing
from virtmgr.console.answers import done
from virtmgr.console.listing import Choice, Column, ListPage
from virtmgr.console.rest import Refusal
from virtmgr.domain.difference import patch_for
from virtmgr.domain.image import ImageType

blueprint = Blueprint("images", __name__, url_prefix="/images")

_ONE: Final = "/images/{image}"
_USERS: Final = 50  # workloads that an image's page names
FORMATS: Final = ("qcow2", "raw", "iso", "tar", "oci", "docker-archive")
INITS: Final = (("app", "app: one process"), ("system", "system: a whole userland"))

LIST: Final = ListPage(
    noun="images",
    path="/images",
    columns=(
        Column("Name", "name", optional=False),
        Column("Type"),
        Column("State"),
        Column("Architecture"),
        Column("Size"),
        Column("At hand on"),
        Column("Digest"),
        Column("Source"),
        Column("Created", "created_at"),
    ),
    choices=(
        Choice("type", "Type", tuple(ImageType)),
        Choice("state", "State", ("ready", "importing", "failed")),
    ),
    live="image",
)


@blueprint.get("")
def list_() -> str:
    """All images."""
    return render_template("images/list.html", list=listing.show(LIST))


# ---- making


def named(form: Mapping[str, str]) -> dict[str, Any]:
    """What every form of an image has."""
    return {
        "name": form.get("name", "").strip(),
        "aliases": forms.names(form.get("aliases", "")),
        "labels": forms.labels(form.get("labels", "")),
        "description": form.get("description", "").strip(),
        "protected": form.get("protected") == "true",
    }


def import_body(form: Mapping[str, str]) -> dict[str, Any]:
    """The API's request of what the form says."""
    body = named(form) | forms.filled(form, ("architecture", "init"))
    match form.get("from"):
        case "registry":
            reference = form.get("reference", "").strip().removeprefix("docker://")
            body["source"] = f"docker://{reference}"
            if form.get("insecure_registry"):
                body["insecure_registry"] = True
            auth = forms.filled(form, ("username", "password"))
            if auth:
                body["registry_auth"] = auth
        case "simplestreams":
            server = form.get("server", "").strip().removeprefix("simplestreams:").rstrip("/")
            body["source"] = f"simplestreams:{server}#{form.get('alias', '').strip()}"
            if form.get("offered") == "disk":
                body["format"] = "qcow2"
        case _:
            body["source"] = form.get("url", "").strip()
            body |= forms.filled(form, ("format", "checksum"))
    return body


def import_fields(source: str) -> dict[str, str]:
    """The form's fields that say ``source``."""
    if source.startswith("simplestreams:"):
        server, _, alias = source.removeprefix("simplestreams:").partition("#")
        return {"from": "simplestreams", "server": server, "alias": alias}
    if source.startswith(("http://", "https://")):
        return {"from": "url", "url": source}
    return {"from": "registry", "reference": source.removeprefix("docker://")}


@blueprint.get("/import")
def import_() -> str:
    """The form to import one, filled in with ``?source=`` and ``?name=`` if they are given."""
    given = import_fields(request.args.get("source", "")) | {"name": request.args.get("name", "")}
    return render_template("images/import.html", given=given, formats=FORMATS, inits=INITS)


@blueprint.post("/import")
def begin_import() -> tuple[str, int] | Response:
    """Begin the import; the image's page shows how far it is."""
    try:
        body = import_body(request.form)
        g.rest.ask("POST", "/images/import", body)
    except Refusal as refusal:
        return render_template(
            "images/import.html",
            given=request.form,
            formats=FORMATS,
            inits=INITS,
            refusal=refusal,
        ), 422
    return done(f"Image {body['name']} is being imported", goto=f"/images/{body['name']}")


@blueprint.post("/import/search")
def search() -> str:
    """What an image server has."""
    server, words = request.form.get("server", "").strip(), forms.names(request.form["alias"])
    try:
        found = g.rest.ask("POST", "/images/search", {"server": server, "words": words}).document
    except Refusal as refusal:
        return render_template("images/offers.html", refusal=refusal)
    return render_template("images/offers.html", found=found)


@blueprint.get("/build")
def build() -> str:
    """The form to build one from a distribution's packages."""
    given = {"distribution": "debian", "suite": "bookworm", "kind": "container"}
    return render_template("images/build.html", given=given)


@blueprint.post("/build")
def begin_build() -> tuple[str, int] | Response:
    """Begin the build."""
    form = request.form
    try:
        body = named(form) | forms.filled(form, ("distribution", "suite", "kind", "init", "mirror"))
        g.rest.ask("POST", "/images/build", body)
    except Refusal as refusal:
        return render_template("images/build.html", given=form, refusal=refusal), 422
    return done(f"Image {body['name']} is being built", goto=f"/images/{body['name']}")


# ---- what is not needed


@blueprint.get("/prune")
def prune() -> str:
    """What would be removed: everywhere, or on one host."""
    host = request.args.get("host", "")
    body = {"host": host} if host else {}
    would = g.rest.ask("POST", "/images/prune", body, query={"dry_run": "true"})["would"]
    return render_template("images/prune.html", would=would, host=host)


@blueprint.post("/prune")
def begin_prune() -> Response:
    """Remove it."""
    g.rest.ask("POST", "/images/prune", forms.filled(request.form, ("host",)))
    return done("What is not needed is being removed", goto="/images")


# ---- one


@blueprint.get("/<image>")
def show(image: str) -> str:
    """An image: what it holds, who uses it, and where it is at hand."""
    found = g.rest.get(_ONE, image=image).document
    asked = {"target": found["id"], "limit": 1, "sort": "-created_at"}
    operations = g.rest.get("/operations", asked)["items"]
    used = {"limit": _USERS, "fields": "id,name,project,kind,host,status.state"}
    return render_template(
        "images/show.html",
        image=found,
        operation=operations[0] if operations else None,
        workloads=g.rest.get("/workloads", used | {"image": found["id"]}).document,
        cdroms=g.rest.get("/workloads", used | {"cdrom": found["id"]}).document,
        again=import_fields(found["source"]) if found["state"] == "failed" else None,
    )


@blueprint.get("/<image>/edit")
def edit(image: str) -> str:
    """The form for its names and labels."""
    found = g.rest.get(_ONE, image=image).document
    given = {
        "name": found["name"],
        "aliases": " ".join(found["aliases"]),
        "labels": forms.labels_text(found["labels"]),
        "description": found["description"],
        "protected": found["protected"],
    }
    return render_template("images/edit.html", given=given, before=found)


@blueprint.post("/<image>/edit")
def change(image: str) -> tuple[str, int] | Response:
    """Change them."""
    before = g.rest.get(_ONE, image=image).document
    try:
        made = g.rest.ask("PATCH", _ONE, patch_for(before, named(request.form)), image=image)
    except Refusal as refusal:
        return render_template(
            "images/edit.html", given=request.form, before=before, refusal=refusal
        ), 422
    return done(f"Image {made['name']} is changed", goto=f"/images/{made['name']}")


@blueprint.post("/<image>/delete")
def delete(image: str) -> Response:
    """Delete it; one that is being made is given up."""
    g.rest.ask("DELETE", _ONE, image=image)
    return done(f"Image {image} is deleted", goto="/images")
