"""``host``: enrolled machines."""

from __future__ import annotations

import time
from typing import Any

import click

from virtmgr.cli.command import (
    confirm,
    dry_run_option,
    group,
    label_changes,
    label_option,
    output_option,
    wait_options,
    yes_option,
)
from virtmgr.cli.crud import ID, LABELS, Noun, add_list, add_show, finish
from virtmgr.cli.fencing import fence
from virtmgr.cli.moves import plan_option, show_plan
from virtmgr.cli.output import Column, Item, age, at, column, show_item, size, until
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.tokens import secret_of
from virtmgr.cli.waiting import is_dry_run, settle
from virtmgr.domain.errors import Conflict, NotFound, Unavailable


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
        column("AGENT", "facts.agent_version"),
        column("SEEN", "last_seen_at", shown=age),
        column("CERTIFICATE", "certificate_expires_at", shown=until),
        column("VMS-UNDER", "facts.accelerator", wide=True),
        column("KERNEL", "facts.kernel", wide=True),
        LABELS,
        ID,
    ),
)


@group("host")
def host() -> None:
    """Hosts: enrolled machines."""


host.add_command(fence)
add_list(host, NOUN, "state", "cluster")
add_show(host, NOUN)


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


@host.command("activate")
@click.argument("name")
@output_option
@pass_session
def activate(session: Session, name: str) -> None:
    """Let a host take workloads again: 'uncordon' by another name, for one in maintenance."""
    _post(session, name, "uncordon", f"host {name} takes workloads again")


@host.command("maintenance")
@click.argument("name")
@output_option
@pass_session
def maintenance(session: Session, name: str) -> None:
    """Put a host on which nothing runs into maintenance; a drain does so at its end."""
    _post(session, name, "maintenance", f"host {name} is in maintenance")


@host.command("confirm-off")
@click.argument("name")
@click.option(
    "--without-volumes",
    is_flag=True,
    help="Those with volumes start elsewhere, too. Their volumes are detached, and stay on NAME.",
)
@yes_option
@output_option
@pass_session
def confirm_off(session: Session, name: str, without_volumes: bool, yes: bool) -> None:
    """Say that an unreachable host is off, after you have seen so yourself.

    Its highly available workloads are started on other hosts at once. If it is not off, they run
    twice, with the same addresses: nobody checks.

    With --without-volumes also those that have volumes, without what is on them: a database begins
    empty, and a VM whose /etc/fstab needs a volume may not boot.
    """
    click.echo(
        f"highly available workloads of host {name} are started elsewhere; if it still runs, "
        "they run twice",
        err=True,
    )
    if without_volumes:
        click.echo("those with volumes start without what is on them", err=True)
    confirm(f"Is the power of host {name} off for certain?", yes=yes)
    path = NOUN.path(session, name, "confirm-off")
    answer = session.client.post(path, query={"without_volumes": without_volumes or None})
    finish(session, answer, f"host {name} is taken for off")


@host.command("drain")
@click.argument("name")
@plan_option
@click.option("--cancel", is_flag=True, help="End its drain; what has not left stays.")
@click.option("--cold", is_flag=True, help="Stop VMs that run, too, instead of moving them live.")
@wait_options
@dry_run_option
@output_option
@pass_session
def drain(
    session: Session,
    name: str,
    plan: bool,
    cancel: bool,
    cold: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    """Move every workload of a host elsewhere; then it is in maintenance.

    VMs that run go on running meanwhile, where that is possible; all else is stopped for it.
    It takes nothing new from now on. What cannot be moved is named, and stays; then the host is
    cordoned. The same command again goes on with what is left.
    """
    if cancel:
        answer = session.client.post(NOUN.path(session, name, "drain", "cancel"))
        finish(session, answer, f"the drain of host {name} is cancelled; the host is cordoned")
        return
    query = {"dry_run": plan or dry_run or None}
    body = {"cold": True} if cold else None
    answer = session.client.post(NOUN.path(session, name, "drain"), body, query)
    if is_dry_run(answer):
        show_plan(session, answer)
        return
    settle(session, answer, wait=wait, timeout=timeout, done="drained: it is in maintenance")


@host.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Forget what is on it, too: it is named, and lost.")
@click.option(
    "--take-back",
    is_flag=True,
    help="With --force: what it was taking up goes on where it came from, as it was there.",
)
@dry_run_option
@yes_option
@output_option
@pass_session
def remove(
    session: Session, name: str, force: bool, take_back: bool, dry_run: bool, yes: bool
) -> None:
    """Remove a host. It must have no workloads and no volumes, unless --force is given.

    One that answers clears up first, which takes seconds. With --force its certificate is refused
    at once, and whatever still runs there runs on: use it for hosts that are dead for good.
    """
    if take_back and not force:
        raise click.UsageError("--take-back goes with --force")
    if force and not dry_run:
        click.echo(_what_is_lost(session, name), err=True)
    if not dry_run:
        confirm(f"Remove host {name}?", yes=yes)
    query = {"dry_run": dry_run or None, "force": force or None, "take_back": take_back or None}
    path = NOUN.path(session, name)
    answer = session.client.delete(path, query)
    if not dry_run:
        _wait_until_gone(session, path)
    finish(session, answer, f"host {name} removed")


def _wait_until_gone(session: Session, path: str) -> None:
    """A host that clears up has a minute for it."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            session.client.get(path)
        except NotFound:
            return
        time.sleep(0.3)
    raise Unavailable(
        "the host is still being removed",
        hint="see 'virtmgr host list'; --force does not wait for it",
    )


def _what_is_lost(session: Session, name: str) -> str:
    """What virtmgr forgets with a host, for people."""
    parts = []
    for noun in ("workloads", "volumes"):
        found = session.client.pages(f"/{noun}", {"host": name}, limit=500)
        names = [f"{at(one, 'project.name')}/{one['name']}" for one in found]
        if names:
            parts.append(f"{len(names)} {noun} are lost with host {name}: {', '.join(names)}")
    return "\n".join(parts) or f"nothing is lost with host {name}"


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
        answer = session.client.post("/host-tokens", body, repeatable=False)
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
    patch = {"labels": label_changes(labels)}
    finish(session, session.client.patch(NOUN.path(session, name), patch), f"host {name} updated")
