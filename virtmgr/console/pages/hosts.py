"""Hosts: machines, their load and their life."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, g, render_template

from virtmgr.console import listing
from virtmgr.console.listing import Choice, Column, ListPage

blueprint = Blueprint("hosts", __name__, url_prefix="/hosts")

LIST: Final = ListPage(
    noun="hosts",
    path="/hosts",
    columns=(
        Column("Name", "name", optional=False),
        Column("State", "state"),
        Column("Cluster"),
        Column("CPU"),
        Column("Memory"),
        Column("Disk"),
        Column("Agent"),
        Column("Certificate"),
        Column("Seen"),
    ),
    choices=(Choice("state", "State", ("ready", "cordoned", "maintenance", "unreachable")),),
    live="host",
)


@blueprint.get("")
def list_() -> str:
    """All hosts."""
    return render_template("hosts/list.html", list=listing.show(LIST))


@blueprint.get("/<host>")
def show(host: str) -> str:
    """One host."""
    found = g.rest.get("/hosts/{host}", host=host)
    return render_template("hosts/show.html", host=found.document)
