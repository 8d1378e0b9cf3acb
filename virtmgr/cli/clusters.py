"""``cluster``: hosts under one scheduling policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from virtmgr.cli.command import dry_run_option, group, label_option, output_option
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import age, column
from virtmgr.cli.rebalancing import rebalance
from virtmgr.cli.session import Session, pass_session

F = TypeVar("F", bound=Callable[..., Any])

NOUN = Noun(
    "cluster",
    "clusters",
    (
        column("NAME", "name"),
        column("POLICY", "policy"),
        column("CPU-OVERCOMMIT", "overcommit_vcpus"),
        column("MEMORY-OVERCOMMIT", "overcommit_memory"),
        column("DISK-OVERCOMMIT", "overcommit_disk"),
        column("FAILOVER", "failover"),
        column("RESERVE", "reserve"),
        column("CPU", "cpu", wide=True),
        column("REBALANCING", "rebalancing", wide=True),
        column("OUT-OF-BALANCE", "imbalance_rounds", wide=True),
        column("AGE", "created_at", shown=age),
        column("DESCRIPTION", "description", wide=True),
        LABELS,
        ID,
    ),
    warning="They must have no hosts.",
)
_OPTIONS = (
    click.option("--description"),
    click.option("--policy", type=click.Choice(["spread", "pack", "balanced"])),
    click.option("--overcommit-vcpus", type=float, metavar="RATIO", help="Default 4."),
    click.option("--overcommit-memory", type=float, metavar="RATIO", help="Default 1."),
    click.option("--overcommit-disk", type=float, metavar="RATIO", help="Default 1."),
    click.option("--failover", type=click.Choice(["automatic", "manual"])),
    click.option(
        "--failover-limit", type=float, metavar="SHARE", help="Of silent hosts. Default 0.34."
    ),
    click.option("--reserve", type=int, metavar="HOSTS", help="Keep room for so many failures."),
    click.option("--ha-lease", type=float, metavar="SECONDS", help="Default 9."),
    click.option("--ha-margin", type=float, metavar="SECONDS", help="Default 2."),
    click.option("--cpu", metavar="MODEL", help="host, auto or a model's name. Default host."),
    click.option("--migration-bandwidth", type=int, metavar="MIB/S", help="Default 0: no limit."),
    click.option("--migration-downtime", type=int, metavar="MS", help="Default 300."),
    click.option("--migration-steps", type=int, metavar="N", help="Default 4."),
    click.option("--migration-convergence", type=click.Choice(["pause", "give_up"])),
    click.option("--rebalancing", type=click.Choice(["manual", "automatic"])),
    click.option(
        "--rebalancing-threshold",
        type=float,
        metavar="SHARE",
        help="How far a host may be from the cluster's share. Default 0.2.",
    ),
    label_option,
    dry_run_option,
    output_option,
)


def _options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@group("cluster")
def cluster() -> None:
    """Clusters: hosts under one scheduling policy."""


add_list(cluster, NOUN)
add_show(cluster, NOUN)
add_delete(cluster, NOUN)
cluster.add_command(rebalance)


@cluster.command("create")
@click.argument("name")
@_options
@pass_session
def create(session: Session, name: str, dry_run: bool, **fields: Any) -> None:
    """Make a cluster."""
    body = {"name": name, **_given(fields)}
    answer = session.client.post("/clusters", body, {"dry_run": dry_run or None})
    finish(session, answer, f"cluster {name} created")


@cluster.command("edit")
@click.argument("name")
@_options
@pass_session
def edit(session: Session, name: str, dry_run: bool, **fields: Any) -> None:
    """Change a cluster's policy, ratios, description or labels."""
    patch = _given(fields)
    if not patch:
        raise click.UsageError("say what to change")
    answer = session.client.patch(NOUN.path(session, name), patch, {"dry_run": dry_run or None})
    finish(session, answer, f"cluster {name} updated")


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, {})}
