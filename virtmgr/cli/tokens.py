"""``token``: bearer tokens for scripts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from virtmgr.cli.command import group, output_option
from virtmgr.cli.crud import Noun, add_delete, add_list
from virtmgr.cli.output import age, column, show_item
from virtmgr.cli.session import Session, pass_session

NOUN = Noun(
    "token",
    "tokens",
    (
        column("ID", "id"),
        column("NAME", "name"),
        column("USER", "user.name"),
        column("ROLE", "role"),
        column("PROJECT", "project.name"),
        column("EXPIRES", "expires_at"),
        column("LAST-USED", "last_used_at", shown=age),
    ),
    warning="Whoever uses them is locked out at once.",
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@group("token")
def token() -> None:
    """Tokens, for scripts and other machines."""


add_list(token, NOUN, "user")
add_delete(token, NOUN, "revoke")


@token.command("create")
@click.argument("name")
@click.option("--user", help="For another user; administrators only.")
@click.option(
    "--role",
    type=click.Choice(["admin", "operator", "member", "viewer"]),
    help="No more than this role.",
)
@click.option("--project", "-p", help="Only in this project.")
@click.option("--expires", default="90d", show_default=True, help="In 12h, 30d, 8w; or never.")
@output_option
@pass_session
def create(
    session: Session,
    name: str,
    user: str | None,
    role: str | None,
    project: str | None,
    expires: str,
) -> None:
    """Make a token. It is shown once: its secret is not kept."""
    body = {
        "name": name,
        "user": user,
        "role": role,
        "project": project,
        "expires_at": expiry(expires, datetime.now(UTC)),
    }
    answer = session.client.post("/tokens", {k: v for k, v in body.items() if v}, repeatable=False)
    if session.output in ("json", "yaml"):
        show_item(session, answer)
        return
    click.echo(f"token {name} made; this is the only time that it is shown:", err=True)
    click.echo(secret_of(answer))


def secret_of(answer: dict[str, Any]) -> str:
    """The secret in the answer that makes a token or a join token."""
    for key in ("token", "join_token"):
        if isinstance(answer.get(key), str):
            return str(answer[key])
    raise LookupError(f"the server's answer has no token, only {', '.join(answer)}")


def expiry(text: str, now: datetime) -> str | None:
    """The moment that ``12h``, ``30d`` or ``8w`` ends; None for ``never``. Pure."""
    if text == "never":
        return None
    found = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if found is None:
        raise click.UsageError(f"--expires: {text!r} is no duration; write 12h, 30d, 8w or never")
    return (now + timedelta(**{_UNITS[found[2]]: int(found[1])})).isoformat()
