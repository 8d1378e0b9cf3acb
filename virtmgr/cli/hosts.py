"""``host``: enrolled machines."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import group, label_option, output_option
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import Column, Item, age, at, column, show_item, size
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.tokens import secret_of
from virtmgr.domain.errors import Conflict


def _share(name: str, shown: Any = str) -> Any:
    """A column's text: what is claimed of the capacity."""

    def value(item: Item) -> str | None:
        claimed, capacity = at(item, f"claimed.{name}"), at(item, f"capacity.{name}")
        if capacity is None:
            return None
        return f"{shown(claimed or 0)}/{shown(capacity)}"

    return value


def _number(value: float) -> str:
    return f"{value:g}"


NOUN = Noun(
    "host",
    "hosts",
    (
        column("NAME", "name"),
        column("STATE", "state"),
        column("CLUSTER", "cluster.name"),
        column("ARCH", "architecture"),
        Column("VCPUS", _share("vcpus", _number)),
        Column("MEMORY", _share("memory", size)),
        Column("DISK", _share("disk", size)),
        column("SEEN", "last_seen_at", shown=age),
        column("VMS-UNDER", "facts.accelerator", wide=True),
        column("KERNEL", "facts.kernel", wide=True),
        LABELS,
        ID,
    ),
    warning="They must run no workloads.",
)


@group("host")
def host() -> None:
    """Hosts: enrolled machines."""


add_list(host, NOUN, "state", "cluster")
add_show(host, NOUN)
add_delete(host, NOUN, "remove")


def _post(session: Session, name: str, verb: str, told: str) -> None:
    finish(session, session.client.post(NOUN.path(session, name, verb)), told)


@host.command("cordon")
@click.argument("name")
@output_option
@pass_session
def cordon(session: Session, name: str) -> None:
    """Give a host nothing new; what it runs goes on."""
    _post(session, name, "cordon", f"host {name} takes nothing new")


@host.command("uncordon")
@click.argument("name")
@output_option
@pass_session
def uncordon(session: Session, name: str) -> None:
    """Let a host take workloads again."""
    _post(session, name, "uncordon", f"host {name} takes workloads again")


@host.command("token")
@click.argument("name")
@click.option("--cluster", help="Default: default.")
@click.option(
    "--again", is_flag=True, help="For a host that is enrolled and has lost its key or certificate."
)
@click.option(
    "--another-machine", is_flag=True, help="With --again: another machine takes the host's place."
)
@label_option
@output_option
@pass_session
def token(
    session: Session,
    name: str,
    cluster: str | None,
    again: bool,
    another_machine: bool,
    labels: dict[str, str],
) -> None:
    """Register a host and make the token with which its agent joins, once.

    Write it to a file on the host and run 'virtmgr agent --join-token-file FILE' there.
    With --again it stays the same host, with its workloads; once it has joined, its earlier
    certificates are refused. The token is for the machine that the host was, unless you say
    --another-machine.
    """
    if another_machine and not again:
        raise click.UsageError("--another-machine goes with --again")
    if again and (cluster or labels):
        raise click.UsageError("--again takes the host as it is: no --cluster, no --label")
    if again:
        path = NOUN.path(session, name, "join-token")
        how = {"another_machine": True} if another_machine else None
        _tell_token(session, name, session.client.post(path, how, repeatable=False))
        return
    body: dict[str, Any] = {"name": name}
    if cluster:
        body["cluster"] = cluster
    if labels:
        body["labels"] = labels
    try:
        answer = session.client.post("/hosts", body, repeatable=False)
    except Conflict as error:
        if error.code == "name_taken":
            error.hint = "if it has lost its key or certificate, let it join again with --again"
        raise
    _tell_token(session, name, answer)


def _tell_token(session: Session, name: str, answer: Any) -> None:
    if session.output in ("json", "yaml"):
        show_item(session, answer)
        return
    click.echo(f"host {name} may join with this token, once:", err=True)
    click.echo(secret_of(answer))


@host.command("edit")
@click.argument("name")
@label_option
@output_option
@pass_session
def edit(session: Session, name: str, labels: dict[str, str]) -> None:
    """Set labels of a host; KEY= takes one away."""
    if not labels:
        raise click.UsageError("say what to change: --label KEY=VALUE")
    patch = {"labels": {key: value or None for key, value in labels.items()}}
    finish(session, session.client.patch(NOUN.path(session, name), patch), f"host {name} updated")
