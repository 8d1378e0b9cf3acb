"""What the processes of ``virtmgr serve`` share, and what they must not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.control_plane import new_control_plane
from tests.fixtures.processes import processes
from tests.scaleout.client import wait_until
from tests.scaleout.plane import Plane
from virtmgr.bootstrap.supervisor import MODULES, restart_delay

# What of the packages that are loaded before the fork is still what gevent puts something else in
# the place of, as (module, name), or is derived from it; and locks that modules have.
_HELD = """
import json, sys, threading
from virtmgr import bootstrap
bootstrap._do_without_rich()
from virtmgr.bootstrap.forks import adopt_gevent, load_common, names_taken
load_common("postgresql+psycopg:///test")
import virtmgr.bootstrap.web_worker
locks = (type(threading.Lock()), type(threading.RLock()))
threads = len(threading.enumerate())
from gevent import monkey
taken = names_taken()
monkey.patch_all()
adopt_gevent(taken)
from psycopg import waiting
replaced = {
    id(old)
    for module, names in monkey.saved.items()
    for name, old in names.items()
    if callable(old) and old is not getattr(sys.modules.get(module), name, None)
}
held = [
    (name, key)
    for name, module in sorted(sys.modules.items())
    if module and name.split(".")[0] not in sys.stdlib_module_names | {"gevent", "__mp_main__"}
    for key, value in vars(module).items()
    if id(value) in replaced or isinstance(value, locks)
    or isinstance(value, type)
    and not str(value.__module__).startswith("gevent.")
    and any(id(base) in replaced for base in value.__mro__)
]
print(json.dumps([threads, waiting.wait.__name__, held]))
"""
_HARMLESS = {
    ("gunicorn.reloader", "preferred_reloader"),  # nobody reloads
    ("gunicorn.reloader", "Reloader"),
    ("gunicorn.reloader", "ReloaderBase"),
    ("psycopg._acompat", "Queue"),  # of copies that write in a thread of their own
    ("psycopg._copy", "Queue"),
    # Locks under which nothing waits for what another greenlet does:
    ("pydantic.main", "_rebuild_lock"),
    ("sqlalchemy.orm.collections", "__instrumentation_mutex"),
    ("sqlalchemy.orm.mapper", "_CONFIGURE_MUTEX"),
}


def test_nothing_that_is_loaded_before_the_fork_holds_what_gevent_replaces() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _HELD], capture_output=True, text=True, check=True
    )
    threads, psycopg_waits, held = json.loads(ended.stdout)
    assert threads == 1
    assert psycopg_waits != "wait_c"  # which keeps all greenlets from going on
    assert {tuple(each) for each in held} - _HARMLESS == set()


@pytest.mark.parametrize(
    ("lasted", "delay", "expected"),
    [(11, 8.0, 0.0), (1, 0.0, 0.5), (1, 0.5, 1.0), (9, 20.0, 30.0), (10, 30.0, 30.0)],
)
def test_what_ends_soon_is_started_again_ever_later(
    lasted: float, delay: float, expected: float
) -> None:
    assert restart_delay(lasted, delay) == expected


def test_each_process_has_its_name_and_its_environment_and_is_started_again(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path)
    plane = Plane(server)
    try:
        with _ends_of_children_ignored():  # as some starters do
            plane.start()
        assert plane.process is not None
        wait_until(lambda: set(_children(plane)) == set(MODULES))
        own = Path(f"/proc/{plane.process.pid}/cmdline").read_bytes().split(b"\0")
        assert own[-2:] == [b"serve", b""]
        children = _children(plane)
        run = f"VIRTMGR_RUN_DIRECTORY={server.settings.run_directory}"
        for pid in children.values():
            assert run in Path(f"/proc/{pid}/environ").read_text().split("\0")
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: (
                set(_children(plane)) == set(MODULES)
                and not set(_children(plane).values()) & set(children.values())
            )
        )
        plane.process.terminate()
        assert plane.process.wait(30) == 0
    finally:
        plane.stop()


@contextmanager
def _ends_of_children_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _children(plane: Plane) -> dict[str, int]:
    """Process ids by module."""
    assert plane.process is not None
    return {
        module: child.pid
        for module in MODULES
        for child in processes(module)
        if child.parent == plane.process.pid
    }
