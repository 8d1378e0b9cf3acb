"""``top``: what workloads use."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import command, complete_workload, output_option, project_option
from virtmgr.cli.output import Column, Item, at, column, show_items, size
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.workloads import PROJECT, state_of


def _memory(item: Item) -> str | None:
    used, limit = at(item, "usage.memory"), at(item, "spec.resources.memory")
    if used is None:
        return None
    return f"{size(used)}/{size(limit)}" if limit else size(used)


def _pair(first: str, second: str) -> Any:
    def value(item: Item) -> str | None:
        one, two = at(item, f"usage.{first}"), at(item, f"usage.{second}")
        return None if one is None or two is None else f"{size(one)}/{size(two)}"

    return value


_COLUMNS = (
    column("NAME", "name"),
    Column("STATE", state_of),
    column("CPU%", "usage.cpus", shown=lambda cpus: f"{100 * cpus:.1f}"),
    column("CPU-TIME", "usage.cpu_seconds", shown=lambda seconds: f"{seconds:.1f}s"),
    Column("MEMORY", _memory),
    column("DISK", "usage.disk", shown=size),
    Column("DISK-READ/WRITTEN", _pair("disk_read", "disk_written")),
    Column("NET-IN/OUT", _pair("network_received", "network_sent")),
    column("PIDS", "usage.pids"),
)


@command("top")
@click.argument("names", metavar="[WORKLOAD…]", nargs=-1, shell_complete=complete_workload)
@click.option("--all-projects", "-A", is_flag=True, help="Workloads of all projects.")
@click.option("--watch", "-w", is_flag=True, help="Keep showing, until interrupted.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=2, show_default=True, metavar="SECONDS"
)
@project_option
@output_option
@pass_session
def top(
    session: Session, names: tuple[str, ...], all_projects: bool, watch: bool, interval: float
) -> None:
    """Show what running workloads use: CPU, memory, disk and network.

    Hosts measure it every few seconds; CPU% is 100 for one whole CPU.
    """
    columns = (PROJECT, *_COLUMNS) if all_projects else _COLUMNS

    def fetch() -> list[Item]:
        return _used(session, names, all_projects=all_projects)

    if watch:
        from virtmgr.cli.watch import watch_items

        watch_items(session, fetch, columns, interval)
    else:
        show_items(session, fetch(), columns)


def _used(session: Session, names: tuple[str, ...], *, all_projects: bool) -> list[Item]:
    """Workloads, each with its ``usage``."""
    client = session.client
    if not names:
        path = "/workloads" if all_projects else session.path("workloads")
        return [{**item, "usage": at(item, "status.usage")} for item in client.pages(path)]
    items = [client.get(session.path("workloads", name)) for name in names]
    return [{**item, "usage": at(item, "status.usage")} for item in items]
