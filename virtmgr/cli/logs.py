"""``logs``: what a workload wrote."""

from __future__ import annotations

import sys

import click

from virtmgr.cli.command import command, project_option, workload_argument
from virtmgr.cli.session import Session, pass_session

_PATIENCE = 24 * 3600.0  # seconds that a followed log may be silent


@command("logs")
@workload_argument
@click.option("--follow", "-f", is_flag=True, help="Go on as more comes, until interrupted.")
@click.option("--tail", "-n", type=click.IntRange(min=0), metavar="LINES", help="Only the last.")
@project_option
@pass_session
def logs(session: Session, name: str, follow: bool, tail: int | None) -> None:
    """Show what a container wrote, or a VM's serial console."""
    path = session.path("workloads", name, "logs")
    query = {"follow": follow or None, "tail": tail}
    timeout = _PATIENCE if follow else None
    for data in session.client.download(path, query, timeout=timeout):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
