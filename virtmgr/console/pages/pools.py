"""Pools: where hosts keep disks."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, render_template

from virtmgr.console import listing
from virtmgr.console.listing import Choice, Column, ListPage

blueprint = Blueprint("pools", __name__, url_prefix="/pools")

LIST: Final = ListPage(
    noun="pools",
    path="/pools",
    columns=(
        Column("Name", "name", optional=False),
        Column("Host"),
        Column("Used", "used"),
        Column("Size", "capacity"),
        Column("Type"),
        Column("Path"),
        Column("Added", "created_at"),
    ),
    choices=(Choice("host", "Host"),),
    live="host",
)


@blueprint.get("")
def list_() -> str:
    """The pools of all hosts."""
    return render_template("pools/list.html", list=listing.show(LIST))
