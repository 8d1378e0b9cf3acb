"""``quota``: what a project may use, and uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from virtmgr.cli.command import dry_run_option, group, output_option
from virtmgr.cli.crud import finish
from virtmgr.cli.output import cell, column, show_item, size, table
from virtmgr.cli.session import Session, pass_session

RESOURCES = ("workloads", "vcpus", "memory", "disk", "volumes", "addresses")
_BYTES = ("memory", "disk")


@group("quota")
def quota() -> None:
    """What projects may use, and use."""


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each resource: used and allowed. Pure."""
    result = []
    for name in RESOURCES:
        limit, used = found.get(f"limit_{name}"), found.get(f"used_{name}")
        shown = size if name in _BYTES else cell
        result.append(
            {
                "resource": name,
                "used": shown(used or 0),
                "limit": "unlimited" if limit is None else shown(limit),
            }
        )
    return result


@quota.command("show")
@click.argument("project", required=False)
@output_option
@pass_session
def show(session: Session, project: str | None) -> None:
    """Show what a project uses and may use."""
    session.project_option = project or session.project_option
    found = session.client.get(session.path("quota"))
    if session.output in ("json", "yaml"):
        show_item(session, found)
        return
    columns = (column("RESOURCE", "resource"), column("USED", "used"), column("LIMIT", "limit"))
    click.echo(table(rows(found), columns))


@quota.command("set")
@click.argument("project", required=False)
@click.option("--workloads", metavar="N")
@click.option("--vcpus", metavar="N")
@click.option("--memory", metavar="SIZE")
@click.option("--disk", metavar="SIZE", help="Root disks and volumes together.")
@click.option("--volumes", metavar="N")
@click.option("--addresses", metavar="N")
@dry_run_option
@output_option
@pass_session
def set_quota(session: Session, project: str | None, dry_run: bool, **limits: str | None) -> None:
    """Set limits of a project; 'none' takes a limit away. Others stay."""
    session.project_option = project or session.project_option
    patch = {
        f"limit_{name}": parse_limit(name, text)
        for name, text in limits.items()
        if text is not None
    }
    if not patch:
        raise click.UsageError("say which limit to set")
    path = session.path("quota")
    answer = session.client.patch(path, patch, {"dry_run": dry_run or None})
    finish(session, answer, f"quota of project {session.project} updated")


def parse_limit(name: str, text: str) -> int | float | str | None:
    """A limit as the API takes it; sizes keep their unit. Pure."""
    if text.lower() in ("none", "unlimited"):
        return None
    if name in _BYTES:
        return text
    try:
        return float(text) if name == "vcpus" else int(text)
    except ValueError as error:
        raise click.UsageError(f"--{name}: {text!r} is no number; 'none' is no limit") from error
