"""``pool``: where hosts keep disks."""

from __future__ import annotations

from virtmgr.cli.command import group
from virtmgr.cli.crud import ID, Noun, add_list
from virtmgr.cli.output import column, size

NOUN = Noun(
    "pool",
    "pools",
    (
        column("NAME", "name"),
        column("HOST", "host.name"),
        column("TYPE", "type"),
        column("USED", "used", shown=size),
        column("CAPACITY", "capacity", shown=size),
        column("SHARED", "shared"),
        column("PATH", "path", wide=True),
        ID,
    ),
)


@group("pool")
def pool() -> None:
    """Pools: where hosts keep disks."""


add_list(pool, NOUN, "host")
