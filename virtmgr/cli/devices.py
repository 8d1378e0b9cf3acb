"""``resize``, ``rename``, and attaching and detaching volumes and NICs."""

from __future__ import annotations

from typing import Any

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    io_options,
    output_option,
    project_option,
    wait_options,
    workload_argument,
)
from virtmgr.cli.output import at
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.spec import parse_volume
from virtmgr.cli.waiting import is_dry_run, settle


@command("resize")
@workload_argument
@click.option("--vcpus", type=float, help="Virtual CPUs; containers may take 0.5.")
@click.option("--memory", "-m", metavar="SIZE", help="Such as 2GiB.")
@io_options
@click.option("--io-unlimited", is_flag=True, help="Lift all limits of disk I/O.")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def resize(
    session: Session,
    name: str,
    vcpus: float | None,
    memory: str | None,
    io_unlimited: bool,
    wait: bool,
    timeout: float,
    dry_run: bool,
    **io: Any,
) -> None:
    """Change vCPUs, memory and I/O: live where the driver can, else at the next restart."""
    resources: dict[str, Any] = {}
    if vcpus is not None:
        resources["vcpus"] = int(vcpus) if vcpus.is_integer() else vcpus
    if memory is not None:
        resources["memory"] = memory
    limits = {name: limit for name, limit in io.items() if limit is not None}
    if limits and io_unlimited:
        raise click.UsageError("give limits of I/O or --io-unlimited, not both")
    if limits or io_unlimited:
        resources["io"] = limits or None
    if not resources:
        raise click.UsageError("say what to change, such as --vcpus or --memory")
    path = session.path("workloads", name)
    answer = session.client.patch(path, {"resources": resources}, {"dry_run": dry_run or None})
    settle(session, answer, wait=wait, timeout=timeout, done="resized")
    if wait and not is_dry_run(answer):
        tell_if_restart_is_needed(session, path, name)


@command("rename")
@workload_argument
@click.argument("new")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def rename(
    session: Session, name: str, new: str, wait: bool, timeout: float, dry_run: bool
) -> None:
    """Name a workload NEW: in DNS at once, as its own host name at its next start."""
    answer = session.client.patch(
        session.path("workloads", name), {"name": new}, {"dry_run": dry_run or None}
    )
    settle(session, answer, wait=wait, timeout=timeout, done=f"renamed; it was {name}")
    if wait and not is_dry_run(answer):
        tell_if_restart_is_needed(session, session.path("workloads", new), new)


def tell_if_restart_is_needed(session: Session, path: str, name: str) -> None:
    """Say which changes of the workload at ``path`` wait for a restart, on stderr."""
    workload = session.client.get(path)
    if waiting := at(workload, "status.needs_restart"):
        click.echo(f"{', '.join(waiting)}: takes effect after 'virtmgr restart {name}'", err=True)


def _send(
    session: Session,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    done: str,
    *,
    wait: bool,
    timeout: float,
    dry_run: bool,
) -> None:
    query = {"dry_run": dry_run or None}
    if method == "POST":
        answer = session.client.post(path, body, query)
    else:
        answer = session.client.delete(path, query)
    settle(session, answer, wait=wait, timeout=timeout, done=done)


@command("attach-volume")
@workload_argument
@click.argument("volume", metavar="VOLUME[:PATH[:ro]]")
@click.option("--path", metavar="PATH", help="Containers: where it is mounted.")
@click.option("--read-only", is_flag=True, help="Without the right to write.")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def attach_volume(
    session: Session, name: str, volume: str, path: str | None, read_only: bool, **options: Any
) -> None:
    """Attach a volume to a workload; in containers, mounted at PATH."""
    body = parse_volume(volume)
    if path:
        body["path"] = path
    if read_only:
        body["read_only"] = True
    target = session.path("workloads", name, "volumes")
    _send(session, "POST", target, body, f"has volume {body['volume']} now", **options)


@command("detach-volume")
@workload_argument
@click.argument("volume")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def detach_volume(session: Session, name: str, volume: str, **options: Any) -> None:
    """Detach a volume from a workload; the volume and its data stay."""
    target = session.path("workloads", name, "volumes", volume)
    _send(session, "DELETE", target, None, f"is without volume {volume} now", **options)


@command("attach-nic")
@workload_argument
@click.argument("network")
@click.option("--address", metavar="ADDRESS", help="Default: the next free one.")
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def attach_nic(
    session: Session, name: str, network: str, address: str | None, **options: Any
) -> None:
    """Give a workload a NIC on a network."""
    body = {"network": network, **({"address": address} if address else {})}
    target = session.path("workloads", name, "nics")
    _send(session, "POST", target, body, f"is on network {network} now", **options)


@command("detach-nic")
@workload_argument
@click.argument("index", type=click.IntRange(min=0))
@wait_options
@dry_run_option
@project_option
@output_option
@pass_session
def detach_nic(session: Session, name: str, index: int, **options: Any) -> None:
    """Remove a workload's NIC; INDEX is its place in 'virtmgr get', from 0."""
    target = session.path("workloads", name, "nics", str(index))
    _send(session, "DELETE", target, None, f"is without NIC {index} now", **options)
