"""Whom each of several web processes serves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from virtmgr.bootstrap.web_roles import EVERYBODY, Place, Role, role_of


@contextmanager
def taken(directory: Path, processes: int) -> Iterator[Place]:
    place = Place.take(directory, processes)
    assert place is not None
    with closing(place):
        yield place


def test_one_serves_everybody(tmp_path: Path) -> None:
    with taken(tmp_path, 1) as place:
        assert role_of(place.number, 1) == EVERYBODY


@pytest.mark.parametrize("processes", range(2, 9))
def test_of_several_some_serve_operators_and_some_agents(processes: int) -> None:
    roles = [role_of(place, processes) for place in range(processes)]
    assert set(roles) == {Role(operators=True, agents=False), Role(operators=False, agents=True)}
    operators = sum(role.operators for role in roles)
    assert 0 <= operators - (processes - operators) <= 1


def test_a_place_is_one_process_s_own_until_that_ends(tmp_path: Path) -> None:
    ready, waiting = os.pipe()
    with taken(tmp_path, 2) as here:
        child = os.fork()
        if child == 0:  # as gunicorn's workers are; killed, it cleans nothing up
            there = Place.take(tmp_path, 2)
            os.write(waiting, str(there and there.number).encode())
            signal.pause()
        assert (here.number, os.read(ready, 8)) == (0, b"1")
        assert Place.take(tmp_path, 2) is None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with taken(tmp_path, 2) as again:
            assert again.number == 1
    for descriptor in (ready, waiting):
        os.close(descriptor)
