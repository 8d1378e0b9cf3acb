"""Lists that keep themselves up to date on the screen."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence

import click

from virtmgr.cli.output import Column, Item, table
from virtmgr.cli.session import Session

_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def watch_items(
    session: Session,
    fetch: Callable[[], Sequence[Item]],
    columns: Sequence[Column],
    interval: float,
) -> None:
    """Show a list again every ``interval`` seconds, until interrupted.

    On a terminal it is redrawn in place; otherwise only the items that changed are printed, a
    line each: as JSON with ``-o json``, else as table rows.
    """
    shown = [c for c in columns if session.output == "wide" or not c.wide]
    if sys.stdout.isatty() and session.output in (None, "table", "wide"):
        while True:
            text = table(fetch(), shown)
            click.echo(_HOME_AND_CLEAR + text)
            time.sleep(interval)
    known: dict[str, str] = {}
    while True:
        for item in fetch():
            line = _line(session, item, shown)
            if known.get(item["id"]) != line:
                known[item["id"]] = line
                click.echo(line)
        sys.stdout.flush()
        time.sleep(interval)


def _line(session: Session, item: Item, columns: Sequence[Column]) -> str:
    if session.output == "json":
        return json.dumps(item)
    if session.output == "name":
        return str(item["name"])
    without_age = [c for c in columns if c.title != "AGE"]
    return table([item], without_age).splitlines()[1]
