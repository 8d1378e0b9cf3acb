"""``cluster rebalance``: the fewest moves that bring a cluster to where its policy wants it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from virtmgr.cli.command import (
    command,
    confirm,
    dry_run_option,
    output_option,
    wait_options,
    yes_option,
)
from virtmgr.cli.crud import finish
from virtmgr.cli.moves import downtime, plan_option
from virtmgr.cli.output import Column, Item, column, printable, show_item, size, table
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import settle

_MOVES = (
    column("PROJECT", "project.name"),
    column("WORKLOAD", "workload.name"),
    column("FROM", "source.name"),
    column("TO", "target.name"),
    column("MODE", "mode"),
    column("DATA", "data", shown=size),
    Column("DOWNTIME", downtime),
    column("WHY", "why"),
)
_SHOWN = 20  # of what stays, and why


def _change(name: str) -> Any:
    """A column's text: a share before and after."""

    def value(item: Item) -> str:
        before, after = item["before"][name], item["after"][name]
        return f"{before:.0%}" if before == after else f"{before:.0%} → {after:.0%}"

    return value


def _workloads(item: Item) -> str:
    before, after = item["before"]["workloads"], item["after"]["workloads"]
    return str(before) if before == after else f"{before} → {after}"


_HOSTS = (
    column("HOST", "host.name"),
    Column("VCPUS", _change("vcpus")),
    Column("MEMORY", _change("memory")),
    Column("DISK", _change("disk")),
    Column("WORKLOADS", _workloads),
)


@command("rebalance")
@click.argument("name", metavar="CLUSTER")
@plan_option
@click.option("--moves", type=click.IntRange(1, 100), metavar="N", help="At most. Default 20.")
@click.option("--at-once", type=click.IntRange(1, 10), metavar="N", help="At most. Default 2.")
@click.option("--cold", is_flag=True, help="Move also what has to be stopped for it.")
@click.option("--cancel", is_flag=True, help="End it; what has not left stays.")
@wait_options
@yes_option
@dry_run_option
@output_option
@pass_session
def rebalance(
    session: Session,
    name: str,
    plan: bool,
    moves: int | None,
    at_once: int | None,
    cold: bool,
    cancel: bool,
    wait: bool,
    timeout: float,
    yes: bool,
    dry_run: bool,
) -> None:
    """Move workloads so that the cluster is as its policy wants it, by as few moves as that takes.

    For spread and balanced: no host's claimed share is farther from the cluster's than its
    threshold. For pack: the least used hosts are emptied, so that they can be switched off.

    The plan is shown, and carried out once you have confirmed it. Nothing is stopped for it unless
    you say --cold. The same command again shows what is left.
    """
    path = f"/clusters/{_segment(name)}/rebalance"
    if cancel:
        finish(session, session.client.post(f"{path}/cancel"), f"rebalancing of {name} is ended")
        return
    bounds = {"moves": moves, "at_once": at_once, "cold": cold or None}
    body = {key: value for key, value in bounds.items() if value is not None}
    if plan or dry_run or not yes:
        found = session.client.post(path, body, {"dry_run": True})["would"]["plan"]
        _show(session, name, found, only=plan or dry_run)
        if plan or dry_run:
            return
        if found is not None and not found["moves"]:
            return
        if found is not None:
            confirm(f"Move {len(found['moves'])} workloads of cluster {name}?", yes=yes)
    answer = session.client.post(path, body)
    settle(session, answer, wait=wait, timeout=timeout, done="rebalanced")


def _segment(name: str) -> str:
    from virtmgr.cli.client import segment

    return segment(name)


def _show(session: Session, name: str, plan: Any, *, only: bool) -> None:
    """The plan; on stderr where something else follows on stdout."""
    if only and session.output in ("json", "yaml"):
        show_item(session, {"plan": plan})
        return
    for line in _lines(name, plan):
        click.echo(line, err=not only)
    for note in _notes(plan):
        click.echo(printable(note), err=True)


def _lines(name: str, plan: Any) -> Iterator[str]:
    if plan is None:
        yield f"cluster {name} is being rebalanced: see 'virtmgr operations list'"
        return
    if not plan["moves"]:
        yield "nothing is to be moved"
        return
    yield table(plan["moves"], _MOVES)
    yield ""
    yield table(_pairs(plan), _HOSTS)
    yield ""
    before, after = plan["before"], plan["after"]
    if plan["policy"] == "pack":
        yield f"empty hosts: {before['empty']} → {after['empty']}"
    else:
        yield f"imbalance: {before['imbalance']:.2f} → {after['imbalance']:.2f}"


def _pairs(plan: Any) -> list[Item]:
    """Each host that changes, before and after."""
    after = {load["host"]["id"]: load for load in plan["after"]["hosts"]}
    pairs = [
        {"host": load["host"], "before": load, "after": after[load["host"]["id"]]}
        for load in plan["before"]["hosts"]
    ]
    return [pair for pair in pairs if pair["before"] != pair["after"]]


def _notes(plan: Any) -> Iterator[str]:
    if plan is None:
        return
    hints = []
    for one in plan["why_not"][:_SHOWN]:
        host = one["host"]["name"] if one["host"] else "its host"
        yield f"note: {one['workload']['name']} stays on {host}: {one['reason']['message']}"
        hints.append(one["reason"]["hint"])
    if len(plan["why_not"]) > _SHOWN:
        yield f"note: {len(plan['why_not']) - _SHOWN} more stay: see them with -o json"
    for reason in plan["reasons"]:
        yield f"note: {reason['message']}"
        hints.append(reason["hint"])
    for hint in dict.fromkeys(hint for hint in hints if hint):
        yield f"hint: {hint}"
