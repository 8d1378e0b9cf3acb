"""``edit``: a spec in the user's editor, sent back as a merge patch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    output_option,
    project_option,
    wait_options,
    workload_argument,
)
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import settle
from virtmgr.domain.difference import patch_between, to_yaml
from virtmgr.domain.errors import InvalidRequest, VirtmgrError

_HEADER = """\
# The spec of workload {name}. Lines that you remove take their defaults.
# 'virtmgr explain workload' describes every field. Save without a change to leave it as it is.
"""


@command("edit")
@workload_argument
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def edit(session: Session, name: str, wait: bool, timeout: float, dry_run: bool) -> None:
    """Change a workload's spec in $VISUAL or $EDITOR."""
    path = session.path("workloads", name)
    found = session.client.fetch(path)
    before = given(found.value["spec"])
    text = click.edit(_HEADER.format(name=name) + to_yaml(before), extension=".yaml")
    if text is None:
        click.echo("nothing was changed", err=True)
        return
    try:
        patch = patch_between(before, _parse(text))
        if not patch:
            click.echo("nothing was changed", err=True)
            return
        query = {"dry_run": dry_run or None}
        answer = session.client.patch(path, patch, query, etag=found.etag)
    except VirtmgrError as error:
        kept = _keep(text)
        error.hint = f"{error.hint + '; ' if error.hint else ''}your text is kept in {kept}"
        raise
    settle(session, answer, wait=wait, timeout=timeout)


def given(value: Any) -> Any:
    """``value`` without fields that are null: they have no place in an editor. Pure."""
    if isinstance(value, dict):
        return {key: given(each) for key, each in value.items() if each is not None}
    return [given(each) for each in value] if isinstance(value, list) else value


def _parse(text: str) -> dict[str, Any]:
    import yaml

    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRequest(f"the text is no YAML: {error}") from error
    if not isinstance(spec, dict):
        raise InvalidRequest("the text is no mapping of fields")
    return spec


def _keep(text: str) -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="virtmgr-edit-", suffix=".yaml", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    return Path(file.name)
