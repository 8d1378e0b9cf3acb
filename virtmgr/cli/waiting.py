"""Waiting for operations, with progress bars where somebody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from virtmgr.cli.client import Client, Json, segment
from virtmgr.cli.output import show_item, show_items
from virtmgr.cli.problems import TIMEOUT, from_problem
from virtmgr.cli.session import Session
from virtmgr.domain.errors import Conflict, Unavailable, VirtmgrError

Report = Callable[[Json], None]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_QUIET = 0.5  # seconds before a bar appears
_FINISHED = ("succeeded", "failed", "cancelled")

_DONE = {
    "create": "created",
    "clone": "cloned",
    "delete": "deleted",
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "pause": "paused",
    "resume": "resumed",
    "update": "updated",
    "move": "moved",
    "drain": "drained",
    "publish": "published",
    "import": "imported",
    "build": "built",
    "upload": "imported",
}


def operations_in(answer: Any) -> list[Json]:
    """The operations that an asynchronous verb answered with: one, or several."""
    if isinstance(answer, Mapping) and "items" in answer:
        return list(answer["items"])
    return [dict(answer)] if answer else []


def settle(
    session: Session, answer: Any, *, wait: bool, timeout: float, done: str | None = None
) -> None:
    """Wait for what a verb began, if asked, and tell how it ended; dry runs are only shown.

    :raises VirtmgrError: an operation failed (the first failure; others are printed).
    """
    if is_dry_run(answer):
        show_item(session, answer.get("would", answer))
        return
    operations = operations_in(answer)
    failures: list[VirtmgrError] = []
    if wait:
        operations, failures = wait_for_all(session.client, operations, timeout)
    report(session, operations, done)
    raise_first(failures)


def raise_first(failures: Sequence[VirtmgrError]) -> None:
    """Raise the first failure, if any; print the others.

    :raises VirtmgrError: the first.
    """
    for failure in failures[1:]:
        click.echo(f"error: {failure.message}", err=True)
    if failures:
        raise failures[0]


def is_dry_run(answer: Any) -> bool:
    return isinstance(answer, Mapping) and answer.get("dry_run") is True


def report(session: Session, operations: Sequence[Json], done: str | None = None) -> None:
    """One line an operation, or the operations themselves with ``-o json`` or ``yaml``."""
    if session.output in ("json", "yaml"):
        if len(operations) == 1:
            show_item(session, operations[0])
        else:
            show_items(session, operations, ())
        return
    for operation in operations:
        target = operation.get("target") or {}
        name = target.get("name") or target.get("id")
        if session.output == "name":
            click.echo(name)
        elif operation["state"] == "succeeded":
            verb = str(operation.get("verb", ""))
            click.echo(f"{target.get('type')} {name} {done or _DONE.get(verb, verb + ' done')}")
        elif operation["state"] not in _FINISHED:
            click.echo(f"{target.get('type')} {name}: operation {operation['id']} is under way")


def wait_for(client: Client, operation: Json, timeout: float) -> Json:
    """Wait for one operation and return it finished.

    :raises VirtmgrError: it failed, was cancelled, or is not finished in time.
    """
    finished, failures = wait_for_all(client, [operation], timeout)
    if failures:
        raise failures[0]
    return finished[0]


def wait_for_all(
    client: Client, operations: Sequence[Json], timeout: float
) -> tuple[list[Json], list[VirtmgrError]]:
    """Wait for operations side by side; what became of each, and the failures among them."""
    deadline = time.monotonic() + timeout
    current = list(operations)
    pause = _FIRST_PAUSE
    with _progress(current) as show:
        while True:
            for index, operation in enumerate(current):
                if operation["state"] not in _FINISHED:
                    current[index] = client.get(f"/operations/{segment(operation['id'])}")
                show(current[index])
            if all(operation["state"] in _FINISHED for operation in current):
                break
            if time.monotonic() >= deadline:
                break
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    failures = [error for error in map(failure_of, current) if error is not None]
    return current, failures


def failure_of(operation: Json) -> VirtmgrError | None:
    """What is wrong with an operation that was waited for; None if it succeeded."""
    target = operation.get("target") or {}
    what = f"{operation.get('verb')} of {target.get('type')} {target.get('name')}"
    if operation["state"] == "succeeded":
        return None
    if operation["state"] == "cancelled":
        return Conflict(f"{what} was cancelled", code="cancelled")
    if operation["state"] == "failed":
        error = from_problem(operation.get("error") or {"detail": operation.get("message")})
        if what not in error.message:
            error.message = f"{what} failed: {error.message}"
        if operation.get("verb") in ("create", "clone") and target.get("type") == "workload":
            stays = "it stays and is tried again until you delete it"
            error.hint = f"{error.hint}; {stays}" if error.hint else stays
        return error
    return Unavailable(
        f"{what} is not finished in time; it goes on",
        code=TIMEOUT,
        hint=f"'virtmgr operations wait {operation['id']}' waits on",
    )


@contextmanager
def _progress(operations: Sequence[Json]) -> Iterator[Report]:
    """A function that shows an operation's progress; silent unless somebody watches."""
    if not sys.stderr.isatty() or not operations:
        yield lambda _operation: None
        return
    bars = _Bars()
    try:
        yield bars.show
    finally:
        bars.close()


class _Bars:
    """A bar for each operation; rich is imported only once something takes its time."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def show(self, operation: Json) -> None:
        if self._progress is None:
            if time.monotonic() - self._begun < _QUIET or operation["state"] in _FINISHED:
                return
            self._progress = progress_bar()
            self._progress.start()
        target = operation.get("target") or {}
        label = f"{operation.get('verb')} {target.get('name') or ''}"
        if operation["id"] not in self._tasks:
            self._tasks[operation["id"]] = self._progress.add_task(label, total=1.0, note="")
        finished = operation["state"] == "succeeded"
        self._progress.update(
            self._tasks[operation["id"]],
            completed=1.0 if finished else float(operation.get("progress") or 0),
            note=operation.get("message") or operation["state"],
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def progress_bar(*columns: Any) -> Any:
    """A rich progress display on stderr that leaves nothing behind."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        *columns,
        console=Console(stderr=True),
        transient=True,
    )
