"""The same request for several things: one that fails does not keep the others from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from virtmgr.cli.output import show_item
from virtmgr.cli.session import Session
from virtmgr.cli.waiting import is_dry_run, operations_in, raise_first, report, wait_for_all
from virtmgr.domain.errors import VirtmgrError


def each(
    session: Session,
    names: Sequence[str],
    request: Callable[[str], Any],
    *,
    wait: bool,
    timeout: float,
    done: str | None = None,
) -> None:
    """Send ``request`` for each name, wait for all operations, report.

    :raises VirtmgrError: the first failure, after all have been tried; others are printed.
    """
    operations = []
    failures: list[VirtmgrError] = []
    for name in names:
        try:
            answer = request(name)
        except VirtmgrError as error:
            failures.append(error)
            continue
        if is_dry_run(answer):
            show_item(session, answer.get("would", answer))
        else:
            operations += operations_in(answer)
    if wait and operations:
        operations, failed = wait_for_all(session.client, operations, timeout)
        failures += failed
    if operations:
        report(session, operations, done)
    raise_first(failures)
