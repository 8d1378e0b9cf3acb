"""Secrets that a person or a file gives; never an argument, which others can see."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from virtmgr.cli.session import Session


def password(session: Session, file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """From ``file``, else VIRTMGR_PASSWORD, else asked at the terminal.

    :raises click.UsageError: there is nobody to ask.
    """
    if file is not None:
        return read(file)
    if given := session.environment.get("VIRTMGR_PASSWORD"):
        return given
    if not sys.stdin.isatty():
        raise click.UsageError("give --password-file or VIRTMGR_PASSWORD; nobody can be asked")
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))


def read(file: Path) -> str:
    """The first line of ``file``, or of standard input for ``-``."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    return text.partition("\n")[0].rstrip("\r")
