"""``operations``: asynchronous requests and their progress."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.client import segment
from virtmgr.cli.command import group, output_option, wait_options
from virtmgr.cli.crud import finish
from virtmgr.cli.output import (
    Column,
    Item,
    age,
    at,
    column,
    local_time,
    printable,
    show_item,
    show_items,
)
from virtmgr.cli.session import Session, pass_session

_PAUSE = 0.5  # seconds between looks at a log that is followed

_COLUMNS = (
    column("ID", "id"),
    column("VERB", "verb"),
    Column("TARGET", lambda item: f"{at(item, 'target.type')}/{at(item, 'target.name')}"),
    column("STATE", "state"),
    Column("PROGRESS", lambda item: f"{100 * float(item.get('progress') or 0):.0f}%"),
    column("AGE", "created_at", shown=age),
    Column("MESSAGE", lambda item: at(item, "error.detail") or item.get("message")),
    column("PROJECT", "project.name", wide=True),
    column("USER", "user.name", wide=True),
)


@group("operations")
def operations() -> None:
    """Asynchronous requests and their progress."""


@operations.command("list")
@click.option("--state", help="Only in this state.")
@click.option("--verb", help="create, start, …")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@output_option
@pass_session
def list_operations(session: Session, limit: int, **filters: Any) -> None:
    """List operations, newest first."""
    asked = {"sort": "-created_at", **filters}
    show_items(session, list(session.client.pages("/operations", asked, limit=limit)), _COLUMNS)


@operations.command("show")
@click.argument("operation")
@output_option
@pass_session
def show(session: Session, operation: str) -> None:
    """Show an operation in full."""
    show_item(session, session.client.get(f"/operations/{segment(operation)}"), _COLUMNS)


@operations.command("log")
@click.argument("operation")
@click.option("--follow", "-f", is_flag=True, help="Go on until the operation has ended.")
@pass_session
def log(session: Session, operation: str, follow: bool) -> None:
    """Show what an operation wrote, such as the tasks of an installation."""
    import time

    path, after = f"/operations/{segment(operation)}/log", 0
    while True:
        answer = session.client.get(path, {"after": after})
        for line in answer["items"]:
            click.echo(f"{local_time(line['at'])} {printable(line['text'])}")
            after = line["sequence"]
        if answer["finished"] or not (follow or answer["items"]):
            return
        if not answer["items"]:
            time.sleep(_PAUSE)


@operations.command("cancel")
@click.argument("operation")
@output_option
@pass_session
def cancel(session: Session, operation: str) -> None:
    """Cancel an operation that goes on, where that can still be done.

    A move, a drain or a rebalancing: what has not left its host stays there. An image that is being
    made: it is given up and removed.
    """
    answer = session.client.post(f"/operations/{segment(operation)}/cancel")
    finish(session, answer, f"operation {operation} is cancelled")


@operations.command("retry")
@click.argument("operation")
@wait_options
@output_option
@pass_session
def retry(session: Session, operation: str, wait: bool, timeout: float) -> None:
    """Ask once more for what failed, as it was asked; it is a new operation."""
    from virtmgr.cli.waiting import settle

    answer = session.client.post(f"/operations/{segment(operation)}/retry")
    settle(session, answer, wait=wait, timeout=timeout)


@operations.command("wait")
@click.argument("operation_ids", metavar="OPERATION…", nargs=-1, required=True)
@click.option("--timeout", type=float, default=600, show_default=True, metavar="SECONDS")
@output_option
@pass_session
def wait(session: Session, operation_ids: tuple[str, ...], timeout: float) -> None:
    """Wait for operations; fails as they do."""
    from virtmgr.cli.waiting import settle

    found: list[Item] = [
        session.client.get(f"/operations/{segment(each)}") for each in operation_ids
    ]
    settle(session, {"items": found}, wait=True, timeout=timeout)
