"""``user``: people and programs that may log in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from virtmgr.cli import secrets
from virtmgr.cli.command import group, output_option
from virtmgr.cli.crud import ID, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import age, column
from virtmgr.cli.session import Session, pass_session

NOUN = Noun(
    "user",
    "users",
    (
        column("NAME", "name"),
        column("DISPLAY-NAME", "display_name"),
        column("DISABLED", "disabled"),
        column("AGE", "created_at", shown=age),
        ID,
    ),
    warning="Their tokens end.",
)
_FILE = click.Path(path_type=Path, allow_dash=True)


@group("user")
def user() -> None:
    """Users: people and programs that may log in."""


add_list(user, NOUN)
add_show(user, NOUN)
add_delete(user, NOUN)


@user.command("create")
@click.argument("name")
@click.option("--display-name")
@click.option("--no-password", is_flag=True, help="Only tokens, as for programs.")
@click.option("--password-file", type=_FILE, help="- for standard input. Default: asked for.")
@output_option
@pass_session
def create(
    session: Session,
    name: str,
    display_name: str | None,
    no_password: bool,
    password_file: Path | None,
) -> None:
    """Make a user. 'role bind' then says what they may do."""
    body: dict[str, Any] = {"name": name}
    if display_name:
        body["display_name"] = display_name
    if not no_password:
        prompt = f"Password for {name}"
        body["password"] = secrets.password(session, password_file, prompt, confirm=True)
    finish(session, session.client.post("/users", body), f"user {name} created")


@user.command("password")
@click.argument("name")
@click.option("--password-file", type=_FILE, help="- for standard input. Default: asked for.")
@pass_session
def password(session: Session, name: str, password_file: Path | None) -> None:
    """Set a user's password."""
    new = secrets.password(session, password_file, f"New password for {name}", confirm=True)
    session.client.put(NOUN.path(session, name, "password"), {"password": new})
    click.echo(f"password of {name} set")


def _set(session: Session, name: str, *, disabled: bool) -> None:
    answer = session.client.patch(NOUN.path(session, name), {"disabled": disabled})
    finish(session, answer, f"user {name} {'disabled' if disabled else 'enabled'}")


@user.command("disable")
@click.argument("name")
@output_option
@pass_session
def disable(session: Session, name: str) -> None:
    """Refuse a user's log-ins and tokens from now on."""
    _set(session, name, disabled=True)


@user.command("enable")
@click.argument("name")
@output_option
@pass_session
def enable(session: Session, name: str) -> None:
    """Let a user in again."""
    _set(session, name, disabled=False)
