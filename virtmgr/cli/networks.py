"""``network``: networks and their addresses."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli import devices
from virtmgr.cli.command import (
    dry_run_option,
    group,
    label_option,
    output_option,
    project_option,
)
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_show, finish
from virtmgr.cli.output import Column, Item, age, at, column, show_items
from virtmgr.cli.session import Session, pass_session

NOUN = Noun(
    "network",
    "networks",
    (
        column("NAME", "name"),
        Column("PROJECT", lambda item: at(item, "project.name") or "(shared)"),
        column("TYPE", "type"),
        column("IPV4", "ipv4"),
        column("IPV6", "ipv6"),
        column("AGE", "created_at", shown=age),
        column("BRIDGE", "bridge", wide=True),
        column("MTU", "mtu", wide=True),
        column("VNI", "vni", wide=True),
        column("INTERFACE", "interface", wide=True),
        column("VLAN", "vlan", wide=True),
        column("DNS-DOMAIN", "dns_domain", wide=True),
        LABELS,
        ID,
    ),
    in_project=True,
    warning="Workloads must have left them.",
)


@group("network")
def network() -> None:
    """Networks and their addresses."""


@network.command("list")
@click.option("--query", "-q", metavar="TEXT", help="The name contains this.")
@click.option("--sort", metavar="FIELD", help="name, -created_at, …")
@click.option("--limit", type=click.IntRange(min=1), help="Show at most so many.")
@click.option("--own", is_flag=True, help="Only the project's own, without shared ones.")
@project_option
@output_option
@pass_session
def list_networks(
    session: Session, query: str | None, sort: str | None, limit: int | None, own: bool
) -> None:
    """List networks that may be used, shared ones included."""
    path = NOUN.path(session) if own or session.project_option else "/networks"
    found = session.client.pages(path, {"q": query, "sort": sort}, limit=limit)
    show_items(session, list(found), NOUN.columns)


add_show(network, NOUN)
add_delete(network, NOUN)


@network.command("create")
@click.argument("name")
@click.option(
    "--type", "type_", type=click.Choice(["nat", "bridge", "overlay", "vlan"]), default="nat",
    show_default=True,
)  # fmt: skip
@click.option("--ipv4", metavar="CIDR", help="Such as 10.20.0.0/24.")
@click.option("--ipv6", metavar="CIDR")
@click.option("--bridge", metavar="DEVICE", help="Type bridge: the host's bridge to join.")
@click.option("--interface", metavar="DEVICE", help="Type vlan: the hosts' interface.")
@click.option("--vlan", type=click.IntRange(1, 4094), help="Type vlan: its id.")
@click.option("--dns-domain", metavar="DOMAIN", help="Default: virt.")
@click.option("--mtu", type=int)
@label_option
@dry_run_option
@project_option
@output_option
@pass_session
def create(session: Session, name: str, type_: str, dry_run: bool, **options: Any) -> None:
    """Make a network."""
    body = {"name": name, "type": type_, **{k: v for k, v in options.items() if v}}
    answer = session.client.post(NOUN.path(session), body, {"dry_run": dry_run or None})
    finish(session, answer, f"network {name} created")


def _holder(item: Item) -> Any:
    return at(item, "workload.name") or item.get("workload") or item.get("nic_id")


@network.command("addresses")
@click.argument("name")
@project_option
@output_option
@pass_session
def addresses(session: Session, name: str) -> None:
    """List the addresses of a network that are taken, and by what."""
    columns = (
        column("ADDRESS", "address"),
        Column("WORKLOAD", _holder),
        column("MAC", "mac"),
        column("SINCE", "created_at", shown=age),
    )
    found = session.client.pages(NOUN.path(session, name, "addresses"))
    show_items(session, list(found), columns)


network.add_command(devices.attach_nic, "attach")
network.add_command(devices.detach_nic, "detach")
