"""``list``, ``show`` and ``delete``, which are the same for every noun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from virtmgr.cli.command import (
    Group,
    command,
    confirm,
    dry_run_option,
    output_option,
    project_option,
    wait_options,
    yes_option,
)
from virtmgr.cli.output import Column, column, show_item, show_items
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import is_dry_run, settle

ID = column("ID", "id", wide=True)
LABELS = column("LABELS", "labels", wide=True)


@dataclass(frozen=True)
class Noun:
    """A resource: its name, its collection in the API and its columns.

    ``warning`` says what is lost when one is deleted.
    """

    name: str
    plural: str
    columns: Sequence[Column]
    in_project: bool = False
    everywhere: bool = False  # GET /plural lists those of all projects
    warning: str = ""

    def path(self, session: Session, reference: str | None = None, *rest: str) -> str:
        """The path of the collection, or of one of it."""
        if self.in_project:
            return session.path(self.plural, reference, *rest)
        from virtmgr.cli.client import segment

        parts = [self.plural, *([reference] if reference else []), *rest]
        return "/" + "/".join(map(segment, parts))


def add_list(group: Group, noun: Noun, *filters: str) -> None:
    """``list``, with an option for each filter of the API."""

    @command("list", help=f"List {noun.plural}.")
    @click.option("--query", "-q", metavar="TEXT", help="The name contains this.")
    @click.option("--sort", metavar="FIELD", help="name, -created_at, …")
    @click.option("--limit", type=click.IntRange(min=1), help="Show at most so many.")
    @output_option
    @pass_session
    def list_them(
        session: Session,
        query: str | None,
        limit: int | None,
        all_projects: bool = False,
        **asked: Any,
    ) -> None:
        path = f"/{noun.plural}" if all_projects else noun.path(session)
        found = session.client.pages(path, {"q": query, **asked}, limit=limit)
        columns = list(noun.columns)
        if all_projects:
            columns.insert(0, column("PROJECT", "project.name"))
        show_items(session, list(found), columns)

    for name in filters:
        list_them.params.insert(0, click.Option([f"--{name}"], help=f"Only of this {name}."))
    if noun.everywhere:
        flag = click.Option(["--all-projects", "-A"], is_flag=True, help="Of all projects.")
        list_them.params.insert(0, flag)
    _take_project(list_them, noun)
    group.add_command(list_them)


def add_show(group: Group, noun: Noun) -> None:
    @command("show", help=f"Show a {noun.name} in full.")
    @click.argument("name")
    @output_option
    @pass_session
    def show(session: Session, name: str) -> None:
        show_item(session, session.client.get(noun.path(session, name)), noun.columns)

    _take_project(show, noun)
    group.add_command(show)


def add_delete(group: Group, noun: Noun, name: str = "delete") -> None:
    @command(name, help=f"Delete {noun.plural}. {noun.warning}".strip())
    @click.argument("names", metavar="NAME…", nargs=-1, required=True)
    @wait_options
    @dry_run_option
    @yes_option
    @output_option
    @pass_session
    def delete(
        session: Session,
        names: tuple[str, ...],
        wait: bool,
        timeout: float,
        dry_run: bool,
        yes: bool,
    ) -> None:
        if not dry_run:
            confirm(f"Delete {noun.name} {', '.join(names)}? {noun.warning}".strip(), yes=yes)
        for each in names:
            query = {"dry_run": dry_run or None}
            answer = session.client.delete(noun.path(session, each), query)
            finish(session, answer, f"{noun.name} {each} deleted", wait=wait, timeout=timeout)

    _take_project(delete, noun)
    group.add_command(delete)


def finish(
    session: Session, answer: Any, told: str, *, wait: bool = True, timeout: float = 600
) -> None:
    """Show what a change answered: an operation is waited for, a resource named or shown."""
    if is_dry_run(answer):
        show_item(session, answer.get("would", answer))
    elif isinstance(answer, dict) and "verb" in answer and "target" in answer:
        settle(session, answer, wait=wait, timeout=timeout)
    elif session.output in ("json", "yaml") and answer is not None:
        show_item(session, answer)
    elif session.output == "name" and isinstance(answer, dict):
        click.echo(answer.get("name") or answer.get("id"))
    else:
        click.echo(told)


def _take_project(made: click.Command, noun: Noun) -> None:
    if noun.in_project:
        project_option(made)
