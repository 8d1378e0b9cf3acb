"""``host fence``: what cuts a host's power from outside of it."""

from __future__ import annotations

import sys
from typing import Any

import click

from virtmgr.cli.command import confirm, group, output_option, wait_options, yes_option
from virtmgr.cli.crud import finish
from virtmgr.cli.output import column, show_item, table
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import settle

_COLUMNS = (
    column("NAME", "name"),
    column("LEVEL", "level"),
    column("AGENT", "agent"),
    column("ADDRESS", "address"),
    column("PORT", "port"),
    column("USER", "user"),
    column("VIA", "via"),
)


@group("fence")
def fence() -> None:
    """Fence devices of a host, which cut its power from outside."""


def _path(name: str, *more: str) -> str:
    return "/".join(("/hosts", name, *more))


@fence.command("set")
@click.argument("name", metavar="HOST")
@click.option("--device", default="bmc", show_default=True, help="Name of the device.")
@click.option("--agent", type=click.Choice(["ipmi", "redfish"]), required=True)
@click.option("--address", required=True, help="Name or IP address.")
@click.option("--port", type=int, help="Default: 623 or 443.")
@click.option("--user", required=True)
@click.option(
    "--password-file", type=click.File(), metavar="FILE", help="- for standard input. Default: ask."
)
@click.option("--keep-password", is_flag=True, help="The password stays as it is.")
@click.option("--level", type=click.IntRange(1, 9), help="The lowest is tried first. Default 1.")
@click.option("--system", metavar="PATH", help="Redfish: of several systems, which one.")
@click.option("--no-verify", is_flag=True, help="Redfish: do not check the certificate.")
@click.option(
    "--via",
    metavar="HOST",
    help="The host that reaches it, or any: whichever other one of the cluster is ready. "
    "Default: the control plane.",
)
@output_option
@pass_session
def set_(
    session: Session,
    name: str,
    device: str,
    password_file: Any,
    keep_password: bool,
    no_verify: bool,
    **fields: Any,
) -> None:
    """Set a fence device of HOST. Try it with 'virtmgr host fence test HOST'."""
    body = {key: value for key, value in fields.items() if value is not None}
    if password_file is not None:
        body["password"] = password_file.read().rstrip("\n")
    elif not keep_password:
        if not sys.stdin.isatty():
            raise click.UsageError("give --password-file, or --keep-password")
        body["password"] = click.prompt("Password", hide_input=True, err=True)
    if no_verify:
        body["verify"] = False
    answer = session.client.put(_path(name, "fence-devices", device), body)
    finish(session, answer, f"fence device {device} of host {name} is set")


@fence.command("show")
@click.argument("name", metavar="HOST")
@output_option
@pass_session
def show(session: Session, name: str) -> None:
    """Show the fence devices of HOST, as they are tried."""
    answer = session.client.get(_path(name, "fence-devices"))
    if session.output in ("json", "yaml"):
        show_item(session, answer)
    else:
        click.echo(table(answer["items"], _COLUMNS))


@fence.command("remove")
@click.argument("name", metavar="HOST")
@click.option("--device", default="bmc", show_default=True)
@yes_option
@output_option
@pass_session
def remove(session: Session, name: str, device: str, yes: bool) -> None:
    """Forget a fence device of HOST."""
    confirm(f"Remove fence device {device} of host {name}?", yes=yes)
    answer = session.client.delete(_path(name, "fence-devices", device))
    finish(session, answer, f"fence device {device} of host {name} removed")


@fence.command("test")
@click.argument("name", metavar="HOST")
@wait_options
@output_option
@pass_session
def test(session: Session, name: str, wait: bool, timeout: float) -> None:
    """Ask every fence device of HOST whether the power is on. Nothing is switched."""
    answer = session.client.post(_path(name, "fence", "test"))
    settle(session, answer, wait=wait, timeout=timeout, done="answered")


@fence.command("run")
@click.argument("name", metavar="HOST")
@yes_option
@wait_options
@output_option
@pass_session
def run(session: Session, name: str, yes: bool, wait: bool, timeout: float) -> None:
    """Cut the power of HOST at once, without a shutdown."""
    confirm(f"Cut the power of host {name}, and of all that runs on it?", yes=yes)
    answer = session.client.post(_path(name, "fence"))
    settle(session, answer, wait=wait, timeout=timeout, done="off")
