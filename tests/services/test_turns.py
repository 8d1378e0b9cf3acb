"""Turns: no more than so many at once, urgent ones first, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.bootstrap.raw import eventually
from virtmgr.domain.errors import Unavailable
from virtmgr.services.turns import Turns

_LONG = 60.0


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_urgent_ones_are_first_and_others_in_their_order() -> None:
    turns, order = Turns(), list[str]()

    def ask(name: str, urgent: bool) -> None:
        with turns.turn("try", _LONG, urgent=urgent):
            order.append(name)

    with turns.turn("try", _LONG):
        threads = []
        for number, (name, urgent) in enumerate([("a", False), ("b", False), ("c", True)]):
            threads.append(_thread(lambda name=name, urgent=urgent: ask(name, urgent)))
            eventually(lambda number=number: turns.waiting == number + 1)
    for thread in threads:
        thread.join()
    assert order == ["c", "a", "b"]


def test_so_many_at_once_and_who_waits_too_long_is_told() -> None:
    turns = Turns(2)
    with ExitStack() as stack:
        stack.enter_context(turns.turn("the first", 0.01))
        stack.enter_context(turns.turn("the second", 0.01))
        with pytest.raises(Unavailable, match="the third: its turn did not come") as refused:
            stack.enter_context(turns.turn("the third", 0.01))
        assert refused.value.code == "busy"
        assert not turns.waiting
    with turns.turn("another", 0.01), turns.turn("and another", 0.01):
        pass


def test_a_turn_that_fails_is_passed_on() -> None:
    turns = Turns()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns.turn("try", 0.01):
            raise ZeroDivisionError
    with turns.turn("try", 0.01):
        pass
