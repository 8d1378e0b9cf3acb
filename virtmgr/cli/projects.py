"""``project``: tenants."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import dry_run_option, group, label_option, output_option
from virtmgr.cli.crud import ID, LABELS, Noun, add_delete, add_list, add_show, finish
from virtmgr.cli.output import age, column
from virtmgr.cli.session import Session, pass_session

NOUN = Noun(
    "project",
    "projects",
    (
        column("NAME", "name"),
        column("DESCRIPTION", "description"),
        column("AGE", "created_at", shown=age),
        LABELS,
        ID,
    ),
    warning="They must be empty.",
)


@group("project")
def project() -> None:
    """Projects own workloads, volumes and networks."""


add_list(project, NOUN)
add_show(project, NOUN)
add_delete(project, NOUN)


def _body(description: str | None, labels: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if description is not None:
        body["description"] = description
    if labels:
        body["labels"] = labels
    return body


@project.command("create")
@click.argument("name")
@click.option("--description")
@label_option
@dry_run_option
@output_option
@pass_session
def create(
    session: Session, name: str, description: str | None, labels: dict[str, str], dry_run: bool
) -> None:
    """Make a project."""
    body = {"name": name, **_body(description, labels)}
    answer = session.client.post("/projects", body, {"dry_run": dry_run or None})
    finish(session, answer, f"project {name} created")


@project.command("edit")
@click.argument("name")
@click.option("--rename", metavar="NAME", help="Its new name.")
@click.option("--description")
@label_option
@dry_run_option
@output_option
@pass_session
def edit(
    session: Session,
    name: str,
    rename: str | None,
    description: str | None,
    labels: dict[str, str],
    dry_run: bool,
) -> None:
    """Change a project's name, description or labels."""
    patch = {**({"name": rename} if rename else {}), **_body(description, labels)}
    if not patch:
        raise click.UsageError("say what to change")
    answer = session.client.patch(NOUN.path(session, name), patch, {"dry_run": dry_run or None})
    finish(session, answer, f"project {name} updated")
