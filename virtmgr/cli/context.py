"""``context``: the servers that this client knows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from virtmgr.cli import contexts, secrets
from virtmgr.cli.command import group, output_option
from virtmgr.cli.contexts import Context
from virtmgr.cli.output import Column, column, show_item, show_items
from virtmgr.cli.session import Session, pass_session
from virtmgr.domain.errors import InvalidRequest, NotFound

_FILE = click.Path(path_type=Path, allow_dash=True)


@group("context")
def context() -> None:
    """Servers that this client knows, and as whom it talks to them."""


def _public(name: str, found: Context, *, current: bool) -> dict[str, Any]:
    """A context without its secret."""
    return {
        "name": name,
        "current": current,
        "server": found.server,
        "project": found.project,
        "ca": "(in the context)" if found.ca else found.ca_file,
        "token": "(kept)" if found.token else None,
    }


@context.command("list")
@output_option
@pass_session
def list_contexts(session: Session) -> None:
    """List contexts; * marks the current one."""
    known = session.load_contexts()
    items = [
        _public(name, found, current=name == known.current)
        for name, found in sorted(known.contexts.items())
    ]
    columns = (
        Column("", lambda item: "*" if item["current"] else " "),
        *(column(title, title.lower()) for title in ("NAME", "SERVER", "PROJECT", "TOKEN")),
        column("CA", "ca", wide=True),
    )
    show_items(session, items, columns)


@context.command("show")
@click.argument("name", required=False)
@output_option
@pass_session
def show(session: Session, name: str | None) -> None:
    """Show a context, by default the one in use, environment included; never the token."""
    known = session.load_contexts()
    chosen = name or session.context_name or session.environment.get("VIRTMGR_CONTEXT")
    found = known.named(name) if name else session.context
    label = chosen or known.current or "(environment)"
    show_item(session, _public(label, found, current=label == known.current))


@context.command("use")
@click.argument("name")
@pass_session
def use(session: Session, name: str) -> None:
    """Make a context the current one."""
    known = session.load_contexts()
    found = known.named(name)
    contexts.save(session.config_path, known.with_context(name, found, use=True))
    click.echo(f"context {name} is in use")


@context.command("add")
@click.argument("name")
@click.option("--server", required=True, metavar="URL", help="https://ADDRESS:PORT")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--embed-ca", is_flag=True, help="Keep the certificate itself, not its path.")
@click.option("--token-file", type=_FILE, help="A file with the token; - for standard input.")
@click.option("--project", "-p", metavar="NAME", help="Project to work in by default.")
@click.option("--use", is_flag=True, help="Make it the current one.")
@pass_session
def add(
    session: Session,
    name: str,
    server: str,
    ca_file: Path | None,
    embed_ca: bool,
    token_file: Path | None,
    project: str | None,
    use: bool,
) -> None:
    """Add a context, or replace it."""
    from virtmgr.cli.transport import Transport

    made = Context(
        server=server.rstrip("/"),
        ca_file=str(ca_file.resolve()) if ca_file and not embed_ca else None,
        ca=ca_file.read_text(encoding="ascii") if ca_file and embed_ca else None,
        token=secrets.read(token_file) if token_file else None,
        project=project,
    )
    Transport(made.server, ca_file=made.ca_file, ca=made.ca)  # says what is wrong with it now
    known = session.load_contexts()
    contexts.save(session.config_path, known.with_context(name, made, use=use))
    click.echo(f"context {name} added" + ("" if made.token else "; 'virtmgr login' gets a token"))


@context.command("refresh-ca")
@click.argument("name", required=False)
@pass_session
def refresh_ca(session: Session, name: str | None) -> None:
    """Trust the CAs that the server's own are now, while it still has one that is trusted.

    They are kept in the context. For every client once, while the CA is being changed.
    """
    from virtmgr.cli.client import Client

    known = session.load_contexts()
    label = name or session.context_name or known.current or ""
    found = known.named(label)
    if not found.ca and not found.ca_file:
        raise InvalidRequest(
            f"context {label} trusts the CAs of this system, not one of its own",
            hint="there is nothing to refresh; 'virtmgr context add' with --ca-file changes that",
        )
    with closing(Client(found)) as client:
        trusted = client.get("/ca")["certificate"]
    made = replace(found, ca=trusted, ca_file=None)
    contexts.save(session.config_path, known.with_context(label, made, use=False))
    click.echo(f"context {label} trusts {trusted.count('BEGIN CERTIFICATE')} CAs")


@context.command("remove")
@click.argument("name")
@pass_session
def remove(session: Session, name: str) -> None:
    """Forget a context and its token."""
    known = session.load_contexts()
    if name not in known.contexts:
        raise NotFound(f"there is no context {name!r}", hint="'virtmgr context list' shows them")
    contexts.save(session.config_path, known.without(name))
    click.echo(f"context {name} removed")
