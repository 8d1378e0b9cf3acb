"""The first page: health at a glance."""

from __future__ import annotations

from flask import Blueprint, g, render_template

blueprint = Blueprint("overview", __name__)


@blueprint.get("/")
def show() -> str:
    """Hosts, capacity, and the latest events."""
    hosts = g.rest.get("/hosts", {"limit": 500})["items"]
    events = g.rest.get("/events", {"limit": 12})["items"]
    return render_template("overview/show.html", hosts=hosts, events=events)
