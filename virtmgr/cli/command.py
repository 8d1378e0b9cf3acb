"""The base of every command: common options, parameters of more than one command, types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from virtmgr.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS = ("table", "wide", "json", "yaml", "name")


class Command(click.Command):
    """A command that also takes ``--context`` and ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["--context"],
                metavar="NAME",
                expose_value=False,
                callback=_keep("context_name"),
                help="Context to use instead of the current one.",
            ),
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                callback=_keep("debug"),
                help="Show a traceback with an error.",
            ),
        ]


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def command(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` with the common options."""
    return click.command(name, cls=Command, **attributes)


def group(name: str | None = None, **attributes: Any) -> Callable[[Callable[..., Any]], Group]:
    """``click.group`` whose commands have the common options."""
    return click.group(name, cls=Group, **attributes)


def _keep(attribute: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback that keeps an option, if it is given, in the session."""

    def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        if value:
            setattr(ctx.ensure_object(Session), attribute, value)
        return value

    return callback


def project_option(function: F) -> F:
    """``--project``, kept in the session."""
    return click.option(
        "--project",
        "-p",
        metavar="NAME",
        expose_value=False,
        is_eager=True,
        callback=_keep("project_option"),
        help="Project to work in.",
    )(function)


def output_option(function: F) -> F:
    """``-o``, kept in the session."""
    return click.option(
        "--output",
        "-o",
        type=click.Choice(OUTPUTS),
        expose_value=False,
        is_eager=True,
        callback=_keep("output"),
        help="How to show the result. Default: table.",
    )(function)


def wait_options(function: F, *, seconds: float = 600) -> F:
    """``--wait/--no-wait`` and ``--timeout``, by default so many seconds."""
    function = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait.",
    )(function)
    return click.option(
        "--wait/--no-wait", default=True, help="Wait until it is done (the default), or not."
    )(function)


def dry_run_option(function: F) -> F:
    return click.option(
        "--dry-run", is_flag=True, help="Check everything and show what would be done; do nothing."
    )(function)


def yes_option(function: F) -> F:
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def label_changes(labels: dict[str, str]) -> dict[str, str | None]:
    """What ``--label`` says, as a change of labels: ``KEY=`` takes one away."""
    return {key: value or None for key, value in labels.items()}


def label_option(function: F) -> F:
    """``--label key=value``, as a dict in ``labels``."""
    return click.option(
        "--label",
        "-l",
        "labels",
        multiple=True,
        metavar="KEY=VALUE",
        callback=pairs,
        help="A label; may be repeated.",
    )(function)


def io_options(function: F) -> F:
    """Limits of disk I/O, by the names of their fields in ``resources.io``."""
    options = (
        click.option(
            "--io-read", "read_bytes_per_second", metavar="SIZE",
            help="Most that is read from each disk in a second, such as 50MiB.",
        ),
        click.option(
            "--io-write", "write_bytes_per_second", metavar="SIZE",
            help="Most that is written to each disk in a second.",
        ),
        click.option(
            "--io-read-ops", "read_operations_per_second", type=int,
            help="Most read operations of each disk in a second.",
        ),
        click.option(
            "--io-write-ops", "write_operations_per_second", type=int,
            help="Most write operations of each disk in a second.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def workload_argument(function: F) -> F:
    """One workload, by name or id."""
    return click.argument("name", metavar="WORKLOAD", shell_complete=complete_workload)(function)


def workload_arguments(function: F) -> F:
    """One or more workloads."""
    return click.argument(
        "names", metavar="WORKLOAD…", nargs=-1, required=True, shell_complete=complete_workload
    )(function)


def pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Any:
    """``KEY=VALUE`` arguments as a dict."""
    found: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r}: write KEY=VALUE", param=parameter)
        found[key] = value
    return found


def complete_workload(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> Any:
    """Names of workloads that begin so, for the shell; none where the server does not answer."""
    from virtmgr.cli.client import Client
    from virtmgr.domain.errors import VirtmgrError

    session = ctx.ensure_object(Session)
    try:
        client = Client(session.context, timeout=2)
        query = {"q": incomplete, "fields": "name"}
        found = [item["name"] for item in client.pages(session.path("workloads"), query, limit=200)]
    except VirtmgrError:
        return []  # a shell that completes a line has no place for an error
    return [name for name in found if name.startswith(incomplete)]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is lost, unless told not to.

    :raises click.UsageError: nobody can be asked.
    """
    import sys

    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("nobody is there to confirm this; give --yes")
    click.confirm(question, abort=True, err=True)
