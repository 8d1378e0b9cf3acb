"""``placement``: why a workload runs where it does."""

from __future__ import annotations

import click

from virtmgr.cli.command import command, output_option, project_option, workload_argument
from virtmgr.cli.output import Column, Item, column, printable, show_item, table
from virtmgr.cli.problems import explanation_of, reason_texts
from virtmgr.cli.session import Session, pass_session


def _why(item: Item) -> str:
    scores = item.get("scores") or {}
    return "; ".join(reason_texts(item)) or ", ".join(f"{k} {v:g}" for k, v in scores.items())


_COLUMNS = (
    column("HOST", "host.name"),
    Column("FITS", lambda item: bool(item["fits"])),
    column("SCORE", "score"),
    Column("WHY", _why),
)


@command("placement")
@workload_argument
@project_option
@output_option
@pass_session
def placement(session: Session, name: str) -> None:
    """Show for every host why the workload runs there, or why not."""
    found = session.client.get(session.path("workloads", name, "placement"))
    if session.output in ("json", "yaml"):
        show_item(session, found)
        return
    explanation = explanation_of(found)
    if explanation is None:
        click.echo(f"{name} has not been placed yet")
        return
    click.echo(printable(explanation["summary"]))
    click.echo(table(explanation["verdicts"], _COLUMNS))
    if not explanation.get("complete", True):
        click.echo(f"(some of {explanation['hosts']} hosts)")
