"""The entry point ``virtmgr``: finds the command, runs it, and turns errors into exit codes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from virtmgr import __version__
from virtmgr.cli.lazy import Entry, LazyGroup
from virtmgr.cli.problems import Exit, as_json, as_text, exit_code
from virtmgr.cli.session import Session
from virtmgr.domain.errors import VirtmgrError

_HERE = "virtmgr.cli."
_WORKLOADS = "Workloads"
_INSIDE = "Inside a workload"
_RESOURCES = "Resources"
_CLIENT = "This client"
_SYSTEM = "Run virtmgr itself"


def _entry(target: str, help: str, section: str) -> Entry:
    return Entry(_HERE + target, help, section)


WORKLOAD_ENTRIES = {
    "create": _entry("create:create", "Make a workload of any kind.", _WORKLOADS),
    "run": _entry("create:run", "Make an app container and start it.", _WORKLOADS),
    "apply": _entry("apply:apply", "Create or update from YAML.", _WORKLOADS),
    "list": _entry("workloads:list_workloads", "List workloads.", _WORKLOADS),
    "get": _entry("workloads:get", "Show workloads in full.", _WORKLOADS),
    "delete": _entry("workloads:delete", "Delete workloads.", _WORKLOADS),
    "start": _entry("power:start", "Start workloads.", _WORKLOADS),
    "stop": _entry("power:stop", "Stop workloads: gracefully, then by force.", _WORKLOADS),
    "restart": _entry("power:restart", "Stop and start workloads.", _WORKLOADS),
    "pause": _entry("power:pause", "Freeze workloads.", _WORKLOADS),
    "resume": _entry("power:resume", "Let paused workloads go on.", _WORKLOADS),
    "edit": _entry("edit:edit", "Change a workload's spec in an editor.", _WORKLOADS),
    "resize": _entry("devices:resize", "Change vCPUs, memory and I/O limits.", _WORKLOADS),
    "rename": _entry("devices:rename", "Give a workload another name.", _WORKLOADS),
    "clone": _entry("clone:clone", "Make copies of a stopped workload.", _WORKLOADS),
    "move": _entry("moves:move", "Move a workload to another host.", _WORKLOADS),
    "attach-volume": _entry("devices:attach_volume", "Attach a volume.", _WORKLOADS),
    "detach-volume": _entry("devices:detach_volume", "Detach a volume.", _WORKLOADS),
    "attach-nic": _entry("devices:attach_nic", "Attach to a network.", _WORKLOADS),
    "detach-nic": _entry("devices:detach_nic", "Detach from a network.", _WORKLOADS),
    "placement": _entry("placement:placement", "Show why it runs where it does.", _WORKLOADS),
    "exec": _entry("exec:exec_command", "Run a command inside.", _INSIDE),
    "console": _entry("console:console", "Attach to the serial console.", _INSIDE),
    "vnc": _entry("vnc:vnc", "Give the display of a VM a local port.", _INSIDE),
    "logs": _entry("logs:logs", "Show the output.", _INSIDE),
    "cp": _entry("files:cp", "Copy files in and out.", _INSIDE),
    "top": _entry("usage:top", "Show what workloads use.", _INSIDE),
    "usage": _entry("usage:usage", "Show what has been used.", _INSIDE),
}
WORKLOAD_ALIASES = {"ls": "list", "show": "get", "rm": "delete"}

ENTRIES = {
    **WORKLOAD_ENTRIES,
    "workload": _entry("main:workload_group", "All verbs of workloads.", _RESOURCES),
    "image": _entry("images:image", "Images that workloads start from.", _RESOURCES),
    "volume": _entry("volumes:volume", "Disks that outlive workloads.", _RESOURCES),
    "network": _entry("networks:network", "Networks and their addresses.", _RESOURCES),
    "project": _entry("projects:project", "Projects.", _RESOURCES),
    "quota": _entry("quotas:quota", "What projects may use.", _RESOURCES),
    "user": _entry("users:user", "Users.", _RESOURCES),
    "role": _entry("roles:role", "Who may do what, where.", _RESOURCES),
    "token": _entry("tokens:token", "Tokens for scripts.", _RESOURCES),
    "ca": _entry("ca:ca", "The private CA, and its change.", _RESOURCES),
    "cluster": _entry("clusters:cluster", "Clusters and their policies.", _RESOURCES),
    "host": _entry("host_upgrade:host", "Hosts.", _RESOURCES),
    "failover": _entry("failovers:failover", "Workloads of lost hosts.", _RESOURCES),
    "migration": _entry("moves:migration", "Workloads between hosts.", _RESOURCES),
    "pool": _entry("pools:pool", "Where hosts keep disks.", _RESOURCES),
    "operations": _entry("operations:operations", "Requests and their progress.", _RESOURCES),
    "events": _entry("events:events", "What happened, and what happens now.", _RESOURCES),
    "login": _entry("login:login", "Log in and keep the token.", _CLIENT),
    "whoami": _entry("login:whoami", "Show who you are and what you may do.", _CLIENT),
    "context": _entry("context:context", "Servers that this client knows.", _CLIENT),
    "explain": _entry("explain:explain", "Describe the fields of a workload.", _CLIENT),
    "completion": _entry("completion:completion", "Completion for your shell.", _CLIENT),
    "version": _entry("login:version", "Show the client's and the server's version.", _CLIENT),
    "init": _entry("admin:init", "Set the control plane up.", _SYSTEM),
    "serve": _entry("admin:serve", "Run the control plane.", _SYSTEM),
    "agent": _entry("admin:agent", "Run the agent of this host.", _SYSTEM),
    "db": _entry("admin:db", "The database: its schema, and moving to another one.", _SYSTEM),
    "backup": _entry("backup:backup", "Keep the whole control plane in one file.", _SYSTEM),
    "restore": _entry("backup:restore", "Bring it back from such a file.", _SYSTEM),
    "host-join": _entry("admin:host_join", "Enrol this host.", _SYSTEM),
    "host-renew": _entry("admin:host_renew", "Renew this host's certificate.", _SYSTEM),
    "host-stop": _entry("admin:host_stop", "Stop every workload on this host.", _SYSTEM),
    "host-clean": _entry("admin:host_clean", "Remove every trace from this host.", _SYSTEM),
    "wheelhouse": _entry("wheelhouse:wheelhouse", "Make what hosts install from.", _SYSTEM),
    "sim": _entry("sim:sim", "A simulated fleet, for tests and measurements.", _SYSTEM),
    "collection": _entry("wheelhouse:collection", "Put the Ansible collection in place.", _SYSTEM),
}
_NOUNS = (
    *("workload", "image", "volume", "network", "project", "quota", "user", "role", "token"),
    *("cluster", "failover", "host", "migration", "pool"),
)
ALIASES = {
    **WORKLOAD_ALIASES,
    **{f"{noun}s": noun for noun in _NOUNS},
    "operation": "operations",
    "event": "events",
}


class Root(LazyGroup):
    """The root command; its ``main`` is where every error ends."""

    def main(self, args: Sequence[str] | None = None, *_given: Any, **extra: Any) -> Any:
        """Run and exit; click's own ``standalone_mode`` is replaced by this."""
        session = extra.setdefault("obj", Session())
        try:
            extra.update(prog_name="virtmgr", standalone_mode=False)
            code = super().main(args, **extra)
        except click.exceptions.Abort as error:
            if not isinstance(error.__cause__, KeyboardInterrupt):
                click.echo("aborted", err=True)
            code = Exit.INTERRUPTED
        except click.ClickException as error:
            _show_usage_error(session, error)
            code = error.exit_code
        except VirtmgrError as error:
            _show_error(session, error)
            code = exit_code(error)
        except OSError as error:
            _show_error(session, VirtmgrError(_os_error(error), code="os_error"))
            code = Exit.FAILURE
        sys.exit(code if isinstance(code, int) else Exit.OK)


def _show_usage_error(session: Session, error: click.ClickException) -> None:
    if session.output == "json":
        from virtmgr.domain.errors import InvalidRequest

        click.echo(as_json(InvalidRequest(error.format_message(), code="usage")), err=True)
    else:
        error.show()


def _show_error(session: Session, error: VirtmgrError) -> None:
    if session.debug:
        traceback.print_exception(error)
    click.echo(as_json(error) if session.output == "json" else as_text(error), err=True)


def _os_error(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    return what + (error.strerror or str(error))


@click.group(
    cls=Root,
    entries=ENTRIES,
    aliases=ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="virtmgr", message="%(prog)s %(version)s")
@click.option("--context", metavar="NAME", help="Context to use instead of the current one.")
@click.option("--project", "-p", metavar="NAME", help="Project to work in.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.pass_context
def root(ctx: click.Context, context: str | None, project: str | None, debug: bool) -> None:
    """One manager for virtual machines and containers.

    Every command explains itself with --help; docs/cli.md has the whole picture.
    """
    session = ctx.ensure_object(Session)
    session.context_name = context
    session.project_option = project
    session.debug = debug


@click.group(
    "workload",
    cls=LazyGroup,
    entries={
        name: Entry(entry.target, entry.help)
        for name, entry in WORKLOAD_ENTRIES.items()
        if name != "apply"
    },
    aliases=WORKLOAD_ALIASES,
)
def workload_group() -> None:
    """Workloads: VMs, system containers and app containers."""


def main() -> NoReturn:
    """Run the command line and exit."""
    root.main()
    raise AssertionError("unreachable")
