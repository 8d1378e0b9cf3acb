"""Fence devices of a host: what cuts its power from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, g, redirect, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console.answers import done
from virtmgr.console.pages.hosts import possible
from virtmgr.console.rest import Refusal

blueprint = Blueprint("host_fencing", __name__, url_prefix="/hosts")

_TEXTS: Final = ("agent", "address", "user", "password", "system", "via")


@blueprint.get("/<host>/fencing")
def show(host: str) -> str:
    """Its devices, and what they last said."""
    given = request.args
    return _show(host, {"verify": "true", **given})


def _show(host: str, given: Mapping[str, Any], refusal: Refusal | None = None) -> str:
    found = g.rest.get("/hosts/{host}", host=host).document
    devices = g.rest.get("/hosts/{host}/fence-devices", host=host)["items"]
    edited = next((one for one in devices if one["name"] == given.get("edit")), None)
    if edited is not None and refusal is None:
        given = {**edited, "verify": "true" if edited["verify"] else ""}
    query = {"target": found["id"], "limit": 5}
    tests = g.rest.get("/operations", {**query, "verb": "fence_test"})["items"]
    cuts = g.rest.get("/operations", {**query, "verb": "fence"})["items"]
    return render_template(
        "hosts/fencing.html",
        host=found,
        can=possible(found),
        tab="fencing",
        devices=devices,
        edited=edited,
        runs=sorted([*tests, *cuts], key=lambda one: str(one["created_at"]), reverse=True),
        given=given,
        refusal=refusal,
    )


@blueprint.post("/<host>/fencing")
def put(host: str) -> tuple[str, int] | Response:
    """Add a device, or set one anew; an empty password leaves it as it was."""
    form = request.form
    body: dict[str, Any] = {name: form[name] for name in _TEXTS if form.get(name)}
    body |= {name: int(form[name]) for name in ("port", "level") if form.get(name, "").isdecimal()}
    if body.get("agent") == "redfish":
        body["verify"] = form.get("verify") == "true"
    try:
        g.rest.ask(
            "PUT",
            "/hosts/{host}/fence-devices/{name}",
            body,
            host=host,
            name=form.get("name") or "-",
        )
    except Refusal as refusal:
        return _show(host, form, refusal), 422
    return redirect(f"/hosts/{host}/fencing", 303)


@blueprint.post("/<host>/fencing/<name>/delete")
def delete(host: str, name: str) -> Response:
    """Forget one."""
    g.rest.ask("DELETE", "/hosts/{host}/fence-devices/{name}", host=host, name=name)
    return done(f"The fence device {name} is forgotten", refresh="live-host")


@blueprint.post("/<host>/fence/test")
def test(host: str) -> Response:
    """Ask all devices whether the power is on."""
    g.rest.ask("POST", "/hosts/{host}/fence/test", host=host)
    return done(f"The fence devices of {host} are asked", refresh="live-host")


@blueprint.post("/<host>/fence")
def fence(host: str) -> Response:
    """Cut its power."""
    g.rest.ask("POST", "/hosts/{host}/fence", host=host)
    return done(f"The power of {host} is being cut", refresh="live-host")
