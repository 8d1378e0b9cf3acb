"""``console``: the serial console or terminal of a workload."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import click

from virtmgr.cli.command import command, project_option, workload_argument
from virtmgr.cli.session import Session, pass_session

ESCAPE = b"\x1d"  # ctrl-]


@command("console")
@workload_argument
@project_option
@pass_session
def console(session: Session, name: str) -> None:
    """Attach to the serial console of a VM, or the terminal of a container.

    Ctrl-] detaches; the workload goes on.
    """
    from virtmgr.cli import terminal
    from virtmgr.cli.streams import Channel, Stream, exit_code_of, open_stream

    with ExitStack() as stack:
        path = session.path("workloads", name, "console")
        stream: Stream = stack.enter_context(open_stream(session.client, path))

        def send(data: bytes) -> bool:
            before, escape, _after = data.partition(ESCAPE)
            if before:
                stream.write(before)
            if escape:
                stream.close()
            elif not data:
                stream.close_input()
            return not escape

        click.echo(f"Connected to {name}; ctrl-] leaves.", err=True)
        if sys.stdin.isatty():
            stack.enter_context(terminal.raw(sys.stdin.fileno()))
            stream.resize(*terminal.size())
        keys = terminal.Input(send, stream.resize)
        stack.enter_context(keys.running())
        for channel, data in stream.messages():
            if channel == Channel.END:
                exit_code_of(data)
                break
            if channel in (Channel.STDOUT, Channel.STDERR):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
    click.echo("\nDisconnected.", err=True)
