"""``start``, ``stop``, ``restart``, ``pause`` and ``resume``."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    output_option,
    project_option,
    wait_options,
    workload_arguments,
)
from virtmgr.cli.many import each
from virtmgr.cli.session import Session, pass_session


def _send(
    session: Session,
    verb: str,
    names: tuple[str, ...],
    body: dict[str, Any] | None,
    *,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    def request(name: str) -> Any:
        path = session.path("workloads", name, verb)
        return session.client.post(path, body, {"dry_run": dry_run or None})

    each(session, names, request, wait=wait, timeout=timeout)


@command("start")
@workload_arguments
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def start(session: Session, names: tuple[str, ...], **options: Any) -> None:
    """Start workloads."""
    _send(session, "start", names, None, **options)


@command("stop")
@workload_arguments
@click.option(
    "--grace",
    type=click.IntRange(0, 3600),
    metavar="SECONDS",
    help="How long a graceful stop may take before it is forced. Default: the spec's stop_timeout.",
)
@click.option("--force", "-f", is_flag=True, help="End it at once.")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def stop(
    session: Session, names: tuple[str, ...], grace: int | None, force: bool, **options: Any
) -> None:
    """Stop workloads: ask them to end, wait, then end them by force."""
    body: dict[str, Any] = {"force": True} if force else {}
    if grace is not None:
        body["timeout"] = grace
    _send(session, "stop", names, body, **options)


@command("restart")
@workload_arguments
@click.option("--force", "-f", is_flag=True, help="End it at once, without a graceful stop.")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def restart(session: Session, names: tuple[str, ...], force: bool, **options: Any) -> None:
    """Stop and start workloads; changes that need a restart take effect."""
    _send(session, "restart", names, {"force": True} if force else {}, **options)


@command("pause")
@workload_arguments
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def pause(session: Session, names: tuple[str, ...], **options: Any) -> None:
    """Freeze workloads: they keep their memory and use no CPU."""
    _send(session, "pause", names, None, **options)


@command("resume")
@workload_arguments
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def resume(session: Session, names: tuple[str, ...], **options: Any) -> None:
    """Let paused workloads go on."""
    _send(session, "resume", names, None, **options)
