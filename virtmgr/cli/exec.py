"""``exec``: run a command inside a workload."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any, BinaryIO

import click

from virtmgr.cli.command import command, pairs, project_option, workload_argument
from virtmgr.cli.session import Session, pass_session


@command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--stdin", "-i", "interactive", is_flag=True, help="Pass standard input on.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@click.option("--env", "-e", multiple=True, metavar="KEY=VALUE", callback=pairs)
@click.option("--workdir", "-w", metavar="PATH", help="Directory to run it in.")
@click.option("--user", "-u", help="user[:group].")
@project_option
@workload_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def exec_command(
    session: Session,
    name: str,
    command: tuple[str, ...],
    interactive: bool,
    tty: bool,
    env: dict[str, str],
    workdir: str | None,
    user: str | None,
) -> int:
    """Run COMMAND inside a workload; its exit code is virtmgr's own.

    \b
    virtmgr exec web1 -- cat /etc/hosts
    virtmgr exec -it web1 -- sh
    """
    from virtmgr.cli import terminal

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("say which command to run")
    if tty and interactive and not sys.stdin.isatty():
        raise click.UsageError("-t needs a terminal as standard input; leave it out in scripts")
    body: dict[str, Any] = {"command": list(words), "tty": tty, "stdin": interactive}
    body.update({k: v for k, v in (("env", env), ("workdir", workdir), ("user", user)) if v})
    if tty:
        body["rows"], body["columns"] = terminal.size()
    return run(session, session.path("workloads", name, "exec"), body)


def run(session: Session, path: str, body: dict[str, Any]) -> int:
    """Carry the streams until the command ends; its exit code.

    :raises VirtmgrError: it could not be run, or the connection is lost.
    """
    from virtmgr.cli import terminal
    from virtmgr.cli.streams import Channel, exit_code_of, open_stream

    outputs: dict[int, BinaryIO] = {
        Channel.STDOUT: sys.stdout.buffer,
        Channel.STDERR: sys.stderr.buffer,
    }
    with ExitStack() as stack:
        stream = stack.enter_context(open_stream(session.client, path, body))

        def send(data: bytes) -> None:
            if data:
                stream.write(data)
            else:
                stream.close_input()

        if body["stdin"]:
            keys = terminal.Input(send, stream.resize if body["tty"] else None)
            if body["tty"]:
                stack.enter_context(terminal.raw(sys.stdin.fileno()))
            stack.enter_context(keys.running())
        for channel, data in stream.messages():
            if channel == Channel.END:
                return exit_code_of(data)
            if channel in outputs:
                outputs[channel].write(data)
                outputs[channel].flush()
    raise _no_end()


def _no_end() -> Exception:
    from virtmgr.domain.errors import Unavailable

    return Unavailable(
        "the stream ended without the command's exit code; whether it goes on is not known",
        code="server_unreachable",
    )
