"""``clone``: new workloads with the spec of another and a copy of its disks."""

from __future__ import annotations

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    output_option,
    project_option,
    wait_options,
    workload_argument,
)
from virtmgr.cli.output import at
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import settle


@command("clone")
@workload_argument
@click.argument("new")
@click.option("--start", is_flag=True, help="Start it; otherwise it is made and stays stopped.")
@click.option("--with-volumes", is_flag=True, help="Copy its volumes, too: VOLUME-NEW.")
@click.option("--count", type=click.IntRange(1, 1000), help="Make so many: NEW-1, NEW-2, …")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def clone(
    session: Session,
    name: str,
    new: str,
    start: bool,
    with_volumes: bool,
    count: int | None,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Make NEW, a copy of a stopped workload: its spec and its disks, on its host.

    Addresses are new, and published ports are left out.
    """
    path = session.path("workloads", name)
    source = session.client.get(path)
    body = {"name": new, "start": start, "with_volumes": with_volumes}
    query = {"count": count, "dry_run": dry_run or None}
    answer = session.client.post(f"{path}/clone", body, query)
    settle(session, answer, wait=wait, timeout=timeout, done=f"cloned from {source['name']}")
    if ports := at(source, "spec.ports"):
        shown = ", ".join(f"{port['host']}:{port['guest']}" for port in ports)
        click.echo(
            f"published ports stay with {source['name']} ({shown}); "
            f"give {new} its own with 'virtmgr edit'",
            err=True,
        )
