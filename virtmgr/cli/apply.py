"""``apply``: bring what is to what files say."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TextIO

import click

from virtmgr.cli.client import Resource, segment
from virtmgr.cli.command import command, dry_run_option, output_option, project_option, yes_option
from virtmgr.cli.command import wait_options as wait_options_
from virtmgr.cli.devices import tell_if_restart_is_needed
from virtmgr.cli.documents import Document, comparable, in_order, parse
from virtmgr.cli.output import to_json
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import is_dry_run, operations_in, raise_first, wait_for_all
from virtmgr.domain.difference import merged, patch_for, unified
from virtmgr.domain.errors import InvalidRequest, NotFound


@dataclass(frozen=True)
class Change:
    """What applying a document will do. ``patch`` None: it is to be made."""

    document: Document
    path: str  # of the thing itself
    current: Resource | None
    patch: dict[str, Any] | None
    lines: list[str]

    @property
    def verb(self) -> str:
        if self.current is None:
            return "created"
        return "updated" if self.patch else "unchanged"


@command("apply")
@click.option(
    "--file",
    "-f",
    "files",
    type=click.File(encoding="utf-8"),
    multiple=True,
    required=True,
    metavar="FILE",
    help="YAML, one or more documents; - for standard input; may be repeated.",
)
@wait_options_
@dry_run_option
@yes_option
@project_option
@output_option
@pass_session
def apply(
    session: Session,
    files: tuple[TextIO, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
    yes: bool,
) -> None:
    """Create or update what YAML documents describe, and show the difference.

    A document is a workload's spec, or has a 'type': project, quota, cluster, network, volume.
    Fields that it leaves out stay as they are; null gives a field its default.
    """
    documents = in_order([document for file in files for document in read(file)])
    quiet = session.output in ("json", "name")
    results = []
    changed: list[tuple[str, str]] = []  # path and name of workloads that were there already
    operations: list[Any] = []
    for document in documents:
        change = plan(session, document)
        if change.patch and document.noun.name == "workload":
            changed.append((change.path, document.name))
        if not quiet:
            for line in change.lines:
                click.secho(line, fg=_colour_of(line))
        if change.patch and not dry_run:
            _ask(change, yes=yes)
        answer = carry_out(session, change, dry_run=dry_run)
        results.append(_result(change, answer, dry_run=dry_run))
        begun = [o for o in operations_in(answer) if "verb" in o] if not dry_run else []
        operations += begun
        if not quiet:
            note = "would be " if dry_run and change.verb != "unchanged" else ""
            click.echo(f"{document.title} {note}{change.verb}")
        elif session.output == "name":
            click.echo(document.name)
    if session.output == "json":
        click.echo(to_json(results))
    if wait and operations:
        raise_first(wait_for_all(session.client, operations, timeout)[1])
        for path, name in changed:
            tell_if_restart_is_needed(session, path, name)


def read(file: TextIO) -> Iterable[Document]:
    """The documents in a YAML file.

    :raises InvalidRequest: it is no YAML, or a document is not what it should be.
    """
    import yaml

    try:
        raw = [each for each in yaml.safe_load_all(file) if each is not None]
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{file.name} is no YAML: {error}") from error
    return [parse(each, position) for position, each in enumerate(raw, start=1)]


def plan(session: Session, document: Document) -> Change:
    """Compare what is with what is wanted."""
    path = _path(session, document)
    try:
        current = session.client.fetch(path)
    except NotFound:
        lines = unified(None, dict(document.wanted), document.title)
        return Change(document, path, None, None, lines)
    noun = document.noun
    spec = current.value[noun.spec_in] if noun.spec_in else current.value
    now = comparable(noun, spec)
    patch = patch_for(now, comparable_wanted(document, spec))
    then = comparable(noun, merged(now, patch))
    known = set(then) if noun.spec_in else set(document.wanted)
    lines = unified(
        {key: value for key, value in now.items() if key in known},
        {key: value for key, value in then.items() if key in known},
        document.title,
    )
    return Change(document, path, current, patch if lines else {}, lines)


def comparable_wanted(document: Document, spec: dict[str, Any]) -> dict[str, Any]:
    """What a document says, in the form in which the server would keep it.

    Entries of lists (NICs, ports, volumes) get their defaults, so that leaving one out is no
    difference.
    """
    full = comparable(document.noun, merged(spec, dict(document.wanted)))
    return {
        key: full[key] if isinstance(value, list) and key in full else value
        for key, value in document.wanted.items()
    }


def carry_out(session: Session, change: Change, *, dry_run: bool) -> Any:
    """Send a change; what the server answered, or None where there is nothing to do."""
    query = {"dry_run": dry_run or None}
    if change.current is None:
        collection = change.path.rpartition("/")[0]
        return session.client.post(collection, dict(change.document.wanted), query)
    if not change.patch:
        return None
    return session.client.patch(change.path, change.patch, query, etag=change.current.etag)


def _path(session: Session, document: Document) -> str:
    noun = document.noun
    if noun.name == "quota":
        return f"/projects/{segment(document.name)}/quota"
    if not noun.in_project:
        return f"/{noun.plural}/{segment(document.name)}"
    project = session.project_option or document.project or session.project
    return f"/projects/{segment(project)}/{noun.plural}/{segment(document.name)}"


def _ask(change: Change, *, yes: bool) -> None:
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm(f"Update {change.document.title}?", abort=True, err=True)


def _result(change: Change, answer: Any, *, dry_run: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": change.document.noun.name,
        "name": change.document.name,
        "change": change.verb,
        "patch": change.patch,
        "dry_run": dry_run,
    }
    if is_dry_run(answer):
        result["would"] = answer.get("would")
    elif isinstance(answer, dict) and "verb" in answer:
        result["operation"] = answer
    return result


def _colour_of(line: str) -> str | None:
    """The colour of a line of a difference."""
    if line.startswith(("---", "+++")):
        return None
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
