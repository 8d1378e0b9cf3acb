"""``top`` and ``usage``: what workloads and hosts use, and have used."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import click

from virtmgr.cli.command import command, complete_workload, output_option, project_option
from virtmgr.cli.output import Column, Item, at, column, local_time, show_items, size
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


_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def _rate(name: str) -> Any:
    return column(name.replace("_", "-").upper() + "/S", name, shown=size)


_HISTORY = (
    column("UNTIL", "at", shown=local_time),
    column("CPU%", "cpus", shown=lambda cpus: f"{100 * cpus:.1f}"),
    column("MEMORY", "memory", shown=size),
    column("DISK", "disk", shown=size),
    *map(_rate, ("disk_read", "disk_written", "network_received", "network_sent")),
)


@command("usage")
@click.argument("name", shell_complete=complete_workload)
@click.option("--host", is_flag=True, help="NAME is a host: what the machine as a whole uses.")
@click.option(
    "--since",
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="From when on: 30m, 1h, 1d. Minutes are kept for an hour, quarters for a day.",
)
@project_option
@output_option
@pass_session
def usage(session: Session, name: str, host: bool, since: str) -> None:
    """Show what a workload or a host has used: averages of minutes or quarters of an hour.

    CPU% is 100 for one whole CPU.
    """
    place = f"/hosts/{quote(name, safe='')}" if host else session.path("workloads", name)
    answer = session.client.get(f"{place}/usage", {"since": moment(since, datetime.now(UTC))})
    show_items(session, points(answer["history"]), _HISTORY)


def moment(since: str, now: datetime) -> str:
    """How long ago ``30m``, ``12h`` or ``1d`` is. Pure.

    :raises click.UsageError: it is no such duration.
    """
    found = re.fullmatch(r"(\d{1,4})([mhd])", since)
    if found is None:
        raise click.UsageError(f"--since: {since!r} is no duration; write 30m, 12h or 1d")
    return (now - timedelta(**{_UNITS[found[2]]: int(found[1])})).isoformat()


def points(history: Item) -> list[Item]:
    """The columns of the answer as one item for each step. Pure."""
    columns = {name: values for name, values in history.items() if isinstance(values, list)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
