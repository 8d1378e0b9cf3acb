"""``volume``: disks that outlive workloads."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli import devices
from virtmgr.cli.command import (
    dry_run_option,
    group,
    label_option,
    output_option,
    project_option,
)
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import age, column, size
from virtmgr.cli.session import Session, pass_session

NOUN = Noun(
    "volume",
    "volumes",
    (
        column("NAME", "name"),
        column("SIZE", "size", shown=size),
        column("STATE", "state"),
        column("WORKLOAD", "workload.name"),
        column("HOST", "host.name"),
        column("AGE", "created_at", shown=age),
        LABELS,
        ID,
    ),
    in_project=True,
    everywhere=True,
    warning="Their data is lost.",
)


@group("volume")
def volume() -> None:
    """Volumes: disks that outlive workloads."""


add_list(volume, NOUN, "state", "host", "workload")
add_show(volume, NOUN)
add_delete(volume, NOUN)


@volume.command("create")
@click.argument("name")
@click.option("--size", "-s", required=True, metavar="SIZE", help="Such as 10GiB.")
@label_option
@dry_run_option
@project_option
@output_option
@pass_session
def create(session: Session, name: str, size: str, labels: dict[str, str], dry_run: bool) -> None:
    """Make a volume; a host makes its disk when it is first attached."""
    body: dict[str, Any] = {"name": name, "size": size, **({"labels": labels} if labels else {})}
    answer = session.client.post(NOUN.path(session), body, {"dry_run": dry_run or None})
    finish(session, answer, f"volume {name} created")


@volume.command("resize")
@click.argument("name")
@click.option("--size", "-s", required=True, metavar="SIZE", help="Larger than now.")
@dry_run_option
@project_option
@output_option
@pass_session
def resize(session: Session, name: str, size: str, dry_run: bool) -> None:
    """Make a volume larger."""
    path = NOUN.path(session, name)
    answer = session.client.patch(path, {"size": size}, {"dry_run": dry_run or None})
    finish(session, answer, f"volume {name} resized")


volume.add_command(devices.attach_volume, "attach")
volume.add_command(devices.detach_volume, "detach")
