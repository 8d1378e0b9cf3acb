"""Whoever waits longest for the writing connection has it next."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from virtmgr.services.turns import Turns
from virtmgr.store.engine import make_engine


def test_turns_come_in_the_order_asked() -> None:
    turns = Turns()
    order: list[int] = []
    assert turns.take(0)

    def wait(number: int) -> None:
        assert turns.take(10)
        order.append(number)
        turns.pass_on()

    threads = []
    for number in range(5):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        while turns.waiting <= number:
            time.sleep(0.001)
    turns.pass_on()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert turns.take(0)


def test_who_gives_up_leaves_the_queue() -> None:
    turns = Turns()
    assert turns.take(0)
    assert not turns.take(0.01)
    turns.pass_on()
    assert turns.take(0)


def test_nobody_overtakes(tmp_path: Path) -> None:
    """One that takes the connection again and again lets another in between."""
    engine = make_engine(f"sqlite:///{tmp_path / 'virtmgr.db'}")
    taken = 0
    done = threading.Event()

    def hog() -> None:
        nonlocal taken
        while not done.is_set():
            with engine.connect():
                taken += 1

    thread = threading.Thread(target=hog)
    thread.start()
    try:
        while not taken:
            time.sleep(0.001)
        for _ in range(20):
            with engine.connect():
                pass
    finally:
        done.set()
        thread.join()
        engine.dispose()


def test_a_connection_in_use_is_refused_in_time(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'virtmgr.db'}")
    engine.pool._timeout = 0.01  # type: ignore[attr-defined]
    with engine.connect(), pytest.raises(PoolTimeout, match="not free"):
        engine.connect()
    with engine.connect():
        pass
    engine.dispose()


def test_a_killed_waiter_holds_nobody_up() -> None:
    """A greenlet that is killed while it waits, as gunicorn does with a request."""
    import subprocess
    import sys

    code = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent\n"
        "from virtmgr.services.turns import Turns\n"
        "turns = Turns()\n"
        "assert turns.take(0)\n"
        "waiter = gevent.spawn(turns.take, 60)\n"
        "gevent.sleep(0.01)\n"
        "waiter.kill()\n"
        "turns.pass_on()\n"
        "assert turns.take(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
