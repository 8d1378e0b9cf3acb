"""What one run of the command line knows: the options given, the context, the client."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from virtmgr.cli import contexts
from virtmgr.cli.contexts import Context, Contexts

if TYPE_CHECKING:
    from virtmgr.cli.client import Client

R = TypeVar("R")

DEFAULT_PROJECT = "default"


@dataclass
class Session:
    """Options that every command shares, and what derives from them when it is needed."""

    context_name: str | None = None
    project_option: str | None = None
    output: str | None = None  # the command's own way unless -o is given
    debug: bool = False
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def config_path(self) -> Path:
        return contexts.config_path(self.environment)

    def load_contexts(self) -> Contexts:
        return contexts.load(self.config_path)

    @cached_property
    def context(self) -> Context:
        return contexts.choose(self.load_contexts(), self.context_name, self.environment)

    @property
    def project(self) -> str:
        """The project to work in: ``--project``, VIRTMGR_PROJECT, the context's, or default."""
        return self.project_option or self.context.project or DEFAULT_PROJECT

    @cached_property
    def client(self) -> Client:
        from virtmgr.cli.client import Client

        client = Client(self.context)
        click.get_current_context().find_root().call_on_close(client.close)
        return client

    def path(self, plural: str, reference: str | None = None, *rest: str) -> str:
        """The path of a resource in the project."""
        from virtmgr.cli.client import segment

        parts = ["projects", self.project, plural, *([reference] if reference else []), *rest]
        return "/" + "/".join(map(segment, parts))


def pass_session(function: Callable[..., R]) -> Callable[..., R]:
    """Give the session to a command as its first argument."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> R:
        ctx = click.get_current_context()
        return ctx.invoke(function, ctx.ensure_object(Session), *args, **kwargs)

    return wrapped
