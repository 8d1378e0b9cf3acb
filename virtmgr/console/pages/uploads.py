"""Image files from the viewer's machine: sent in pieces, resumed after whatever broke them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, Response, g, jsonify, make_response, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from virtmgr.console.rest import Refusal

blueprint = Blueprint("uploads", __name__, url_prefix="/images/upload")

FORMATS: Final = ("qcow2", "raw", "iso", "tar", "oci", "docker-archive")
_ONE: Final = "/images/uploads/{upload}"


@blueprint.get("")
def show() -> str:
    """The page."""
    return render_template("uploads/show.html", formats=FORMATS, given={})


@blueprint.post("/begin")
def begin() -> AnyResponse:
    """How far the upload of a file is, which may be new."""
    asked: Mapping[str, Any] = request.get_json()
    body = {"key": asked.get("key"), "size": asked.get("size")}
    try:
        return jsonify(g.rest.ask("POST", "/images/uploads", body).document)
    except Refusal as refusal:
        return _refused(refusal)


@blueprint.get("/<upload>/offset")
def offset(upload: str) -> AnyResponse:
    """How far it is."""
    try:
        return jsonify(g.rest.get(_ONE, upload=upload).document)
    except Refusal as refusal:
        return _refused(refusal)


@blueprint.patch("/<upload>")
def append(upload: str) -> AnyResponse:
    """A piece of it."""
    headers = {
        "Content-Type": "application/partial-upload",
        "Upload-Offset": request.headers.get("Upload-Offset", ""),
    }
    answer = g.rest.send("PATCH", _ONE, request.get_data(), headers, upload=upload)
    return Response(answer.content, answer.status_code, mimetype="application/json")


@blueprint.post("/<upload>/discard")
def discard(upload: str) -> AnyResponse:
    """Forget what has come."""
    try:
        g.rest.ask("DELETE", _ONE, upload=upload)
    except Refusal as refusal:
        return _refused(refusal)
    return jsonify({})


def _refused(refusal: Refusal) -> AnyResponse:
    response = jsonify(refusal.problem)
    response.status_code = refusal.status
    return response


@blueprint.post("/import")
def import_() -> AnyResponse:
    """Make an image of a file that has come whole, and show how that goes."""
    form = request.form
    try:
        made = g.rest.ask("POST", "/images/import", import_body(form))
    except Refusal as refusal:
        page = render_template("uploads/fields.html", formats=FORMATS, given=form, refusal=refusal)
        return make_response(page, 422)
    assert made.operation is not None  # an import is always begun
    return make_response(
        render_template("uploads/operation.html", operation=made.operation, name=form["name"])
    )


def import_body(form: Mapping[str, str]) -> dict[str, Any]:
    """The API's request for what the form says. Pure."""
    body: dict[str, Any] = {"name": form.get("name", ""), "source": f"upload:{form.get('upload')}"}
    for field in ("format", "init", "architecture"):
        if form.get(field):
            body[field] = form[field]
    aliases = form.get("aliases", "").replace(",", " ").split()
    if aliases:
        body["aliases"] = aliases
    checksum = form.get("checksum", "").strip().lower()
    if checksum:
        body["checksum"] = checksum if ":" in checksum else f"sha256:{checksum}"
    return body


@blueprint.get("/operations/<operation>")
def progress(operation: str) -> str:
    """How an import goes."""
    found = g.rest.get("/operations/{operation}", operation=operation).document
    return render_template("uploads/operation.html", operation=found, name=found["target"]["name"])
