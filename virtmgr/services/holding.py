"""Holding work by a lease: who holds it, and the heartbeat that renews it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.ids import new_id

DATABASE_AWAY: Final = ("database_busy", "database_unavailable")
"""Codes of errors that say nothing of the work: whoever takes it next goes on with it."""

_EVERY: Final = 1.0  # seconds

log = structlog.get_logger(__name__)


def new_holder() -> str:
    """A name for one worker that no other one has, with which machine and process it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{new_id()}"


def keep_working(
    once: Callable[[], bool], stop: threading.Event, idle: float, *, name: str
) -> None:
    """Call ``once`` again and again until ``stop`` is set; after ``idle`` seconds where it found
    nothing to do, or failed. What fails is logged: it is taken again after its lease."""
    while not stop.is_set():
        try:
            if not once():
                stop.wait(idle)
        except VirtmgrError as error:  # such as a database that is away
            log.warning(f"{name}_worker_failed", error=error.message, code=error.code)
            stop.wait(idle)
        except Exception:  # a thread's last resort
            log.exception(f"{name}_worker_crashed")
            stop.wait(idle)


@contextmanager
def heartbeat(beat: Callable[[], None], *, name: str) -> Iterator[None]:
    """Call ``beat`` each second in a thread. What fails is logged: a lease lasts a while longer."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_EVERY):
            try:
                beat()
            except VirtmgrError as error:
                log.warning("heartbeat_failed", work=name, error=error.message)

    thread = threading.Thread(target=run, name=f"{name}-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
