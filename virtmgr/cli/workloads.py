"""``list``, ``get`` and ``delete`` of workloads."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import (
    command,
    confirm,
    dry_run_option,
    output_option,
    project_option,
    wait_options,
    workload_arguments,
    yes_option,
)
from virtmgr.cli.output import Column, Item, age, at, column, show_item, show_items, size
from virtmgr.cli.session import Session, pass_session


def kind_of(item: Item) -> str:
    """``vm``, ``system`` or ``app``: what people call it."""
    init = item.get("init")
    return f"{item.get('kind')}/{init}" if init else str(item.get("kind"))


def addresses_of(item: Item) -> list[str]:
    return [
        address if isinstance(address, str) else address["address"]
        for nic in item.get("nics") or ()
        for address in nic.get("addresses") or ()
    ]


def state_of(item: Item) -> str:
    return str(at(item, "status.state") or "unknown")


COLUMNS = (
    column("NAME", "name"),
    Column("KIND", kind_of),
    Column("STATE", state_of),
    column("HOST", "host.name"),
    column("IMAGE", "image.name"),
    Column("ADDRESSES", addresses_of),
    column("AGE", "created_at", shown=age),
    column("VCPUS", "spec.resources.vcpus", wide=True),
    column("MEMORY", "spec.resources.memory", wide=True, shown=lambda m: size(int(m))),
    column("RESTARTS", "status.restarts", wide=True),
    column("REASON", "status.reason.message", wide=True),
    column("LABELS", "labels", wide=True),
    column("ID", "id", wide=True),
)
PROJECT = column("PROJECT", "project.name")


@command("list")
@click.option("--all-projects", "-A", is_flag=True, help="Workloads of all projects.")
@click.option("--kind", type=click.Choice(["vm", "container"]))
@click.option("--init", type=click.Choice(["system", "app"]))
@click.option("--state", help="Only in this state.")
@click.option("--host", help="Only on this host.")
@click.option("--image", help="Only from this image.")
@click.option("--address", help="Only what has this IP address or MAC.")
@click.option("--label", "-l", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--query", "-q", metavar="TEXT", help="The name contains this.")
@click.option("--sort", metavar="FIELD", help="name, -created_at, …")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most so many.")
@click.option("--watch", "-w", is_flag=True, help="Keep showing, until interrupted.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=2, show_default=True, metavar="SECONDS"
)
@project_option
@output_option
@pass_session
def list_workloads(
    session: Session,
    all_projects: bool,
    label: tuple[str, ...],
    query: str | None,
    limit: int | None,
    watch: bool,
    interval: float,
    **filters: Any,
) -> None:
    """List workloads of the project, or of all."""
    asked = {
        **filters,
        "label": [text.replace("=", ":", 1) for text in label],
        "q": query,
    }
    path = "/workloads" if all_projects else session.path("workloads")
    columns = (PROJECT, *COLUMNS) if all_projects else COLUMNS

    def fetch() -> list[Any]:
        return list(session.client.pages(path, asked, limit=limit))

    if watch:
        from virtmgr.cli.watch import watch_items

        watch_items(session, fetch, columns, interval)
    else:
        show_items(session, fetch(), columns)


@command("get")
@workload_arguments
@project_option
@output_option
@pass_session
def get(session: Session, names: tuple[str, ...]) -> None:
    """Show workloads in full: as YAML, or as ``-o`` says."""
    found = [session.client.get(session.path("workloads", name)) for name in names]
    if len(found) == 1:
        show_item(session, found[0], COLUMNS)
    else:
        show_items(session, found, COLUMNS)


@command("delete")
@workload_arguments
@wait_options
@dry_run_option
@yes_option
@project_option
@output_option
@pass_session
def delete(
    session: Session,
    names: tuple[str, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete workloads and their root disks. Volumes stay."""
    from virtmgr.cli.many import each

    if not dry_run:
        confirm(f"Delete {', '.join(names)} for good?", yes=yes)

    def request(name: str) -> Any:
        return session.client.delete(session.path("workloads", name), {"dry_run": dry_run or None})

    each(session, names, request, wait=wait, timeout=timeout)
