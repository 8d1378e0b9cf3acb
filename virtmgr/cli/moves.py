"""``move``, ``migration`` and what a drain plans: workloads on their way between hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    group,
    output_option,
    project_option,
    wait_options,
    workload_argument,
)
from virtmgr.cli.crud import Noun, add_list, add_show, finish
from virtmgr.cli.output import Column, Item, age, at, column, printable, show_item, size, table
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import is_dry_run, settle


def downtime(item: Item) -> str:
    """How long what is planned is down, for people."""
    if item.get("why_not"):
        return ""
    if not item["downtime"]:
        return "none"
    if item["mode"] == "live":
        return f"{item['downtime']:g} s"
    return f"{item['downtime']:g} s + stop (at most {item['stop_timeout']} s)"


_PLAN = (
    column("PROJECT", "project.name"),
    column("WORKLOAD", "workload.name"),
    column("TO", "target.name"),
    column("MODE", "mode"),
    column("DATA", "data", shown=size),
    Column("DOWNTIME", downtime),
    column("CANNOT MOVE", "why_not.message"),
)

_NO_NEWS = ("no_live_containers", "not_running")

NOUN = Noun(
    "migration",
    "migrations",
    (
        column("ID", "id"),
        column("WORKLOAD", "workload.name"),
        column("FROM", "source.name"),
        column("TO", "target.name"),
        column("MODE", "mode"),
        column("PHASE", "phase"),
        column("COPIED", "copied", shown=size),
        column("AGE", "created_at", shown=age),
        column("ERROR", "error.detail"),
        column("PROJECT", "project.name", wide=True),
    ),
)


def plan_option(function: Any) -> Any:
    """``--plan``, which is what ``--dry-run`` is."""
    return click.option("--plan", is_flag=True, help="Only show what would go where, and why not.")(
        function
    )


def show_plan(session: Session, answer: Any) -> None:
    """What a dry run of a move or a drain would do."""
    plan: Sequence[Item] = answer["would"]["plan"]
    if session.output in ("json", "yaml"):
        show_item(session, {"plan": plan})
    elif not plan:
        click.echo("nothing is to be moved")
    else:
        click.echo(table(plan, _PLAN))
        for one in plan:
            if note := _why_cold(one):
                click.echo(f"note: {printable(note)}", err=True)
        hints = {at(one, "why_not.hint") for one in plan if at(one, "why_not.hint")}
        for hint in sorted(hints):
            click.echo(f"hint: {printable(hint)}", err=True)


def _why_cold(one: Item) -> str:
    """Why a VM that runs is stopped for its move; empty: it is not, or nobody asks."""
    reasons = [why for why in one["not_live"] if why["code"] not in _NO_NEWS]
    if one["mode"] != "cold" or one.get("why_not") or not reasons:
        return ""
    why = "; ".join(reason["message"] for reason in reasons)
    return f"{one['workload']['name']} is stopped meanwhile: {why}"


@command("move")
@workload_argument
@click.option("--to", metavar="HOST", help="The host to move it to. Default: the best.")
@click.option(
    "--live/--cold",
    default=None,
    help="While it runs, or stopped meanwhile. Default: live for VMs that run, else cold.",
)
@plan_option
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def move(
    session: Session,
    name: str,
    to: str | None,
    live: bool | None,
    plan: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Move a workload to another host, with its volumes; its addresses stay.

    A VM that runs goes on running meanwhile; where that is not possible it is refused, with all
    reasons, until you say --cold. Everything else is stopped, copied and started there. If it
    fails, it runs on where it was.
    """
    body: dict[str, Any] = {"to": to} if to else {}
    if live is not None:
        body["mode"] = "live" if live else "cold"
    query = {"dry_run": plan or dry_run or None}
    answer = session.client.post(session.path("workloads", name, "move"), body, query)
    if is_dry_run(answer):
        show_plan(session, answer)
        return
    settle(session, answer, wait=wait, timeout=timeout, done="moved")


@group("migration")
def migration() -> None:
    """Workloads on their way from one host to another."""


add_list(migration, NOUN, "phase")
add_show(migration, NOUN)


@migration.command("cancel")
@click.argument("name", metavar="MIGRATION")
@output_option
@pass_session
def cancel(session: Session, name: str) -> None:
    """Give a migration up; the workload stays where it was, and runs there again."""
    answer = session.client.post(NOUN.path(session, name, "cancel"))
    finish(session, answer, f"migration {name} is given up")
