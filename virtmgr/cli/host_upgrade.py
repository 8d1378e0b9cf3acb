"""``host upgrade``: bringing hosts to the control plane's release, one after the other."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from virtmgr.cli.command import output_option, wait_options
from virtmgr.cli.host_add import again_body, given_secrets, login_options
from virtmgr.cli.hosts import NOUN, host
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.waiting import operations_in, raise_first, report, wait_for_all
from virtmgr.domain.errors import VirtmgrError


@host.command("upgrade")
@click.argument("names", metavar="[NAME…]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every host that has an agent.")
@click.option(
    "--drain",
    is_flag=True,
    help="Move everything away first, and let it take workloads again after.",
)
@click.option("--keep-going", is_flag=True, help="Go on with the next host after a failure.")
@login_options
@partial(wait_options, seconds=3600)
@output_option
@pass_session
def upgrade(
    session: Session,
    names: tuple[str, ...],
    everything: bool,
    drain: bool,
    keep_going: bool,
    wait: bool,
    timeout: float,
    **given: Any,
) -> None:
    """Bring hosts to the release of the control plane, one after the other, by ssh.

    Workloads run on meanwhile: the new agent takes them over. A host that does not become ready
    goes back to its release of before, and the hosts after it are left alone.
    """
    if everything == bool(names):
        raise click.UsageError("give hosts by their names, or --all")
    if not wait and (everything or len(names) > 1 or drain):
        raise click.UsageError("--no-wait goes with one host, and without --drain")
    given = given_secrets(given)
    failures: list[VirtmgrError] = []
    finished: list[Any] = []
    for name in _all(session) if everything else names:
        try:
            finished += _one(session, name, given, drain=drain, wait=wait, timeout=timeout)
        except VirtmgrError as error:
            failures.append(error)
            if not keep_going:
                break
    if finished:
        report(session, finished, "is upgraded")
    raise_first(failures)


def _all(session: Session) -> list[str]:
    coming = ("enrolling", "installing", "install_failed", "removing")
    found = session.client.pages("/hosts", {}, limit=500)
    return [str(one["name"]) for one in found if one["state"] not in coming]


def _one(
    session: Session, name: str, given: dict[str, Any], *, drain: bool, wait: bool, timeout: float
) -> list[Any]:
    """Upgrade one host; its operations.

    :raises VirtmgrError: it failed; a host that was drained for it stays in maintenance.
    """
    client = session.client
    if drain:
        _wait(session, operations_in(client.post(NOUN.path(session, name, "drain"))), timeout)
    body = again_body(name, None, given)
    answer = client.post(NOUN.path(session, name, "upgrade"), body, repeatable=False)
    operations = operations_in(answer)
    if wait:
        operations = _wait(session, operations, timeout)
    if drain:
        client.post(NOUN.path(session, name, "uncordon"))
    return operations


def _wait(session: Session, operations: list[Any], timeout: float) -> list[Any]:
    finished, failed = wait_for_all(session.client, operations, timeout)
    raise_first(failed)
    return finished
