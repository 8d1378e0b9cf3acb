"""``login``, ``whoami`` and ``version``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from virtmgr import __version__
from virtmgr.cli import contexts, secrets
from virtmgr.cli.command import command, output_option
from virtmgr.cli.contexts import Context
from virtmgr.cli.output import show_item
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.tokens import secret_of
from virtmgr.domain.errors import Unavailable

_FILE = click.Path(path_type=Path, allow_dash=True)


@command("login")
@click.argument("name", required=False)
@click.option("--server", metavar="URL", help="Another server than the context's.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--password-file", type=_FILE, help="- for standard input. Default: asked for.")
@pass_session
def login(
    session: Session,
    name: str | None,
    server: str | None,
    ca_file: Path | None,
    password_file: Path | None,
) -> None:
    """Log in as user NAME and keep the token in the context."""
    from virtmgr.cli.client import Client

    known = session.load_contexts()
    label = (
        session.context_name
        or session.environment.get("VIRTMGR_CONTEXT")
        or known.current
        or "default"
    )
    found = known.contexts.get(label)
    if server:
        found = Context(server=server.rstrip("/"), project=found.project if found else None)
    elif found is None:
        found = session.context
    if ca_file:
        found = replace(found, ca_file=str(ca_file.resolve()), ca=None)
    name = name or str(click.prompt("User", err=True))
    password = secrets.password(session, password_file, f"Password for {name}")
    client = Client(replace(found, token=None))
    try:
        body = {"name": name, "password": password}
        answer = client.post("/login", body, repeatable=False)
    finally:
        client.close()
    made = replace(found, token=secret_of(answer))
    contexts.save(session.config_path, known.with_context(label, made, use=False))
    click.echo(f"logged in to {found.server} as {name}; the token is kept in context {label}")


@command("whoami")
@output_option
@pass_session
def whoami(session: Session) -> None:
    """Show who you are and what you may do."""
    show_item(session, session.client.get("/whoami"))


@command("version")
@output_option
@pass_session
def version(session: Session) -> None:
    """Show the client's and the server's version."""
    found: dict[str, object] = {"client": __version__}
    try:
        found["server"] = session.client.get("/version")
    except Unavailable as error:
        found["server"] = error.message
    show_item(session, found)
