"""The commands that run virtmgr itself: ``init``, ``serve``, ``agent``, ``db``, ``host-…``.

They only make the settings; ``virtmgr.bootstrap`` wires and runs what they ask for, and is
imported when they are called.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from virtmgr.cli import contexts
from virtmgr.cli.command import command, confirm, group, yes_option
from virtmgr.cli.contexts import Context
from virtmgr.cli.session import Session, pass_session
from virtmgr.config.settings import AgentSettings, Initialised, ServerSettings, has_password
from virtmgr.domain.errors import Unavailable

F = TypeVar("F", bound=Callable[..., Any])

_SERVER = ServerSettings()
_AGENT = AgentSettings()
_RIGHTS = "run it as root, or as the user that the directories belong to"
_WAYS_OUT = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "choose a directory that can be written to: --data-directory, --run-directory",
    errno.ENOSPC: "make room on that disk",
}


def _option(name: str, help: str, default: object, variable: str) -> Callable[[F], F]:
    return click.option(
        f"--{name}",
        metavar="PATH"
        if any(word in name for word in ("directory", "file", "wheelhouse"))
        else "ADDRESS",
        help=f"{help} Default: {default}. Environment: {variable}.",
    )


def _plain(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def server_options(function: F) -> F:
    """The options of ServerSettings."""
    return _plain(
        function,
        (
            _option(
                "data-directory",
                "SQLite's file, private CA, images.",
                _SERVER.data_directory,
                "VIRTMGR_DATA_DIRECTORY",
            ),
            click.option(
                "--shared-directory",
                metavar="PATH",
                help="Private CA and images, where several control planes share them. "
                "Default: the data directory. Environment: VIRTMGR_SHARED_DIRECTORY.",
            ),
            _option("run-directory", "Sockets.", _SERVER.run_directory, "VIRTMGR_RUN_DIRECTORY"),
            click.option(
                "--database",
                metavar="URL",
                callback=without_password,
                help="sqlite:///… or postgresql+psycopg://…, without a password. "
                "Default: SQLite in the data directory. Environment: VIRTMGR_DATABASE.",
            ),
            click.option(
                "--database-file",
                metavar="PATH",
                help="A file with the URL, which may have a password. "
                "Environment: VIRTMGR_DATABASE_FILE.",
            ),
            _option(
                "wheelhouse",
                "Directory that hosts' packages come from.",
                "wheelhouse in the data directory",
                "VIRTMGR_WHEELHOUSE",
            ),
            _option("listen", "REST API and console.", _SERVER.listen, "VIRTMGR_LISTEN"),
            _option("agent-listen", "Agents.", _SERVER.agent_listen, "VIRTMGR_AGENT_LISTEN"),
            _option("stream-listen", "Streams.", _SERVER.stream_listen, "VIRTMGR_STREAM_LISTEN"),
            click.option(
                "--control-plane-addresses",
                metavar="ADDRESS,…",
                help="Where hosts are dialled from: the addresses of all control planes. Hosts "
                "that are enrolled from here let only these in. Default: that of the name that "
                "agents use. Environment: VIRTMGR_CONTROL_PLANE_ADDRESSES.",
            ),
            click.option(
                "--certificate",
                metavar="PATH",
                help="A certificate of your own for API and streams, with its chain, in PEM. "
                "Default: one of the private CA. Environment: VIRTMGR_CERTIFICATE.",
            ),
            click.option(
                "--key",
                metavar="PATH",
                help="The key of that certificate. Environment: VIRTMGR_KEY.",
            ),
            click.option(
                "--web-processes",
                metavar="NUMBER",
                help="How many processes serve, operators and agents in turn; several need "
                "PostgreSQL. Default: 1. Environment: VIRTMGR_WEB_PROCESSES.",
            ),
            click.option(
                "--address",
                metavar="NAME",
                help="What clients and agents call the control plane by, if not by the addresses "
                "that it listens on: a load balancer's name. Environment: VIRTMGR_ADDRESS.",
            ),
        ),
    )


def agent_options(function: F) -> F:
    """The options of AgentSettings."""
    return _plain(
        function,
        (
            _option(
                "data-directory",
                "Key, desired state, images, disks.",
                _AGENT.data_directory,
                "VIRTMGR_AGENT_DATA_DIRECTORY",
            ),
            _option(
                "run-directory", "Sockets.", _AGENT.run_directory, "VIRTMGR_AGENT_RUN_DIRECTORY"
            ),
            click.option(
                "--server",
                metavar="URL",
                help="https://ADDRESS:PORT where the control plane listens for agents. "
                "Environment: VIRTMGR_AGENT_SERVER.",
            ),
            click.option(
                "--join-token-file",
                metavar="PATH",
                help="A file with the token of 'virtmgr host token', to enrol this host. "
                "Environment: VIRTMGR_AGENT_JOIN_TOKEN_FILE.",
            ),
            _option(
                "stream-listen",
                "The control plane's streams (exec, console, VNC); port 0 for any.",
                _AGENT.stream_listen,
                "VIRTMGR_AGENT_STREAM_LISTEN",
            ),
            click.option(
                "--tunnel-address",
                metavar="ADDRESS",
                help="This host's address that other hosts send frames of overlay networks to. "
                "Default: the one that it reaches the control plane from. "
                "Environment: VIRTMGR_AGENT_TUNNEL_ADDRESS.",
            ),
            _option(
                "runtime",
                "OCI runtime of containers, by name or path: crun or runc.",
                _AGENT.runtime,
                "VIRTMGR_AGENT_RUNTIME",
            ),
            click.option(
                "--ca-file",
                metavar="PATH",
                help="The control plane's CA certificate. Environment: VIRTMGR_AGENT_CA_FILE.",
            ),
            click.option(
                "--keep-images",
                metavar="HOURS",
                help="How long an image stays that no workload here needs. "
                f"Default: {_AGENT.keep_images:g}. Environment: VIRTMGR_AGENT_KEEP_IMAGES.",
            ),
        ),
    )


@contextmanager
def telling() -> Iterator[None]:
    """What the system refuses while virtmgr itself is set up or run, as an error with a way out.

    :raises Unavailable: it refused something.
    """
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        raise Unavailable(
            f"virtmgr cannot be run: {what}{error.strerror or error}",
            code="os_error",
            hint=_WAYS_OUT.get(error.errno or 0, "see that the options name what is there"),
        ) from error


def without_password(_ctx: click.Context, parameter: click.Parameter, url: str | None) -> Any:
    """A database URL, as a command line may show it to every user of the machine.

    :raises click.UsageError: there is a password in it.
    """
    if url and has_password(url):
        raise click.UsageError(
            f"{parameter.opts[0]} has a password in it, and every user of this machine can read "
            f"arguments; write the URL into a file and use {parameter.opts[0]}-file"
        )
    return url


def server_settings(options: dict[str, str | None]) -> ServerSettings:
    """The control plane's settings, out of options and environment.

    :raises click.UsageError: one of them is not usable.
    """
    from virtmgr.domain.registry import Mirror

    try:
        settings = ServerSettings.load(options, os.environ)
        Mirror.parse_all(settings.registry_mirrors)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return settings


def _agent_settings(options: dict[str, str | None]) -> AgentSettings:
    try:
        return AgentSettings.load(options, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@command("init")
@server_options
@click.option(
    "--context-name", metavar="NAME", default="default", show_default=True,
    help="The context to keep the administrator's token in.",
)  # fmt: skip
@click.option("--no-context", is_flag=True, help="Only print the token.")
@pass_session
def init(session: Session, context_name: str, no_context: bool, **options: str | None) -> None:
    """Set the control plane up: database, private CA, first administrator, default network.

    Doing it again changes nothing that is there.
    """
    from virtmgr import bootstrap

    known = session.load_contexts()  # complains before anything is made
    with telling():
        made: Initialised = bootstrap.init(server_settings(options))
    if made.token is None:
        click.echo("virtmgr is initialised already; nothing was changed", err=True)
        return
    click.echo(f"the token of {made.user}; this is the only time that it is shown:", err=True)
    click.echo(made.token)
    if not no_context:
        ca_file = None if made.ca_file is None else str(made.ca_file)
        kept = Context(server=made.server, ca_file=ca_file, token=made.token)
        contexts.save(session.config_path, known.with_context(context_name, kept, use=True))
        click.echo(f"context {context_name} is in use: {made.server} as {made.user}", err=True)


@command("serve")
@server_options
def serve(**options: str | None) -> None:
    """Run the control plane in the foreground."""
    from virtmgr import bootstrap

    with telling():
        bootstrap.serve(server_settings(options))


@command("agent")
@agent_options
def agent(**options: str | None) -> None:
    """Run the agent of this host in the foreground; enrol it first if it is new."""
    from virtmgr import bootstrap

    with telling():
        bootstrap.agent(_agent_settings(options))


@group("db")
def db() -> None:
    """The database: its schema, and moving to another one."""


@db.command("upgrade")
@server_options
def upgrade(**options: str | None) -> None:
    """Bring the database to this version's schema."""
    from virtmgr import bootstrap

    with telling():
        bootstrap.upgrade_database(server_settings(options))


@db.command("current")
@server_options
def current(**options: str | None) -> None:
    """Show which revision of the schema the database has."""
    from virtmgr import bootstrap

    with telling():
        revision = bootstrap.current_revision(server_settings(options))
    click.echo(revision or "none")


@db.command("convert")
@server_options
@click.option(
    "--to", metavar="URL", callback=without_password,
    help="The new database, empty, without a password: postgresql://…",
)  # fmt: skip
@click.option("--to-file", metavar="PATH", help="A file with its URL, which may have a password.")
def convert(to: str | None, to_file: str | None, **options: str | None) -> None:
    """Copy everything into another database, such as from SQLite to PostgreSQL.

    Stop the control plane first. Each table is read back from the copy, and its rows and checksum
    are shown. The old database stays as it is. What fails leaves the new one empty, so that it can
    be done again.
    """
    from virtmgr import bootstrap
    from virtmgr.cli.backup import show_tables

    target = to or _first_line(to_file)
    with telling():
        proofs = bootstrap.convert_database(server_settings(options), target)
    show_tables(proofs)
    click.echo(
        "every table holds the same in both; give the new URL to 'virtmgr serve' from now on",
        err=True,
    )


def _first_line(path: str | None) -> str:
    if path is None:
        raise click.UsageError("say where to: --to URL or --to-file PATH")
    with telling(), open(path, encoding="utf-8") as file:
        return file.readline().strip()


@command("host-join")
@agent_options
def host_join(**options: str | None) -> None:
    """Enrol this host by its join token, and end; 'virtmgr agent' does it too, and goes on.

    Prints the host's id. One that is enrolled stays as it is.
    """
    from virtmgr import bootstrap

    click.echo(bootstrap.join_host(_agent_settings(options)))


@command("host-renew")
@agent_options
def host_renew(**options: str | None) -> None:
    """Get this host a fresh certificate now, for the same key.

    The agent does it by itself in time. Restart it to let it take up the new one. With --ca-file
    the host trusts these CAs from now on; with --join-token-file it joins again where its
    certificate is refused: it has expired, or its CA was retired.
    """
    from virtmgr import bootstrap

    bootstrap.renew_host(_agent_settings(options))


@command("host-stop")
@agent_options
@yes_option
def host_stop(yes: bool, **options: str | None) -> None:
    """Stop every workload on this host and take its networks down; data stays.

    Stop the agent first. It starts the workloads again when it is started.
    """
    from virtmgr import bootstrap

    confirm("Stop all workloads of virtmgr on this host?", yes=yes)
    with telling():
        bootstrap.stop_host(_agent_settings(options))


@command("host-clean")
@agent_options
@yes_option
def host_clean(yes: bool, **options: str | None) -> None:
    """Remove every trace of virtmgr from this host: workloads, networks, mounts, files.

    Stop the agent first.
    """
    from virtmgr import bootstrap

    confirm("Remove all workloads and data of virtmgr from this host?", yes=yes)
    with telling():
        bootstrap.clean_host(_agent_settings(options))
