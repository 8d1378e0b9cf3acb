"""``top``: what workloads use."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from virtmgr.cli.command import command, complete_workload, output_option, project_option
from virtmgr.cli.output import Column, Item, at, column, parse_time, show_items, size
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.workloads import PROJECT, state_of

_SAMPLE = 1.0  # seconds between the two samples that a CPU percentage needs


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
    column("CPU%", "cpu_percent", shown=lambda percent: f"{percent:.1f}"),
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
    """Show what running workloads use: CPU, memory, disk and network."""
    columns = (PROJECT, *_COLUMNS) if all_projects else _COLUMNS
    sampler = Sampler(session, names, all_projects=all_projects)
    first = sampler.sample()
    if watch:
        from virtmgr.cli.watch import watch_items

        watch_items(session, sampler.sample, columns, interval)
    elif any(item["usage"] for item in first):
        time.sleep(_SAMPLE)
        show_items(session, sampler.sample(), columns)
    else:
        show_items(session, first, columns)


class Sampler:
    """Takes usage again and again, and makes rates of the counters."""

    def __init__(self, session: Session, names: tuple[str, ...], *, all_projects: bool) -> None:
        self._session = session
        self._names = names
        self._all = all_projects
        self._last: dict[str, Mapping[str, Any]] = {}
        self._percent: dict[str, float] = {}

    def sample(self) -> list[Item]:
        """Workloads with ``usage`` and, from the second sample on, ``cpu_percent``."""
        return [self._with_rates(item, usage) for item, usage in self._fetch()]

    def _fetch(self) -> list[tuple[Any, Any]]:
        client = self._session.client
        if not self._names:
            path = "/workloads" if self._all else self._session.path("workloads")
            return [(item, at(item, "status.usage")) for item in client.pages(path)]
        found = []
        for name in self._names:
            path = self._session.path("workloads", name)
            item = client.get(path)
            found.append((item, client.get(path + "/usage")["usage"]))
        return found

    def _with_rates(self, item: Any, usage: Any) -> Item:
        before = self._last.get(item["id"])
        if usage and usage.get("at"):
            if before is not None and usage["at"] != before["at"]:
                self._percent[item["id"]] = cpu_percent(before, usage)
            self._last[item["id"]] = usage
        return {**item, "usage": usage, "cpu_percent": self._percent.get(item["id"])}


def cpu_percent(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """CPU used between two samples, 100 for one whole CPU. Pure."""
    seconds = (parse_time(after["at"]) - parse_time(before["at"])).total_seconds()
    used = after["cpu_seconds"] - before["cpu_seconds"]
    return max(0.0, 100.0 * used / seconds) if seconds > 0 else 0.0
