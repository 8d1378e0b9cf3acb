"""Which file systems a host tells of, and that it tells of them only to who wants to know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent.fakes import NoBlobs
from tests.bootstrap.raw import eventually
from tests.fixtures.answering import Answering
from tests.fixtures.running_agent import looping, parts
from virtmgr.agent import pacing
from virtmgr.agent.agent import Agent
from virtmgr.agent.file_systems import Place, apart, look, own_file_systems
from virtmgr.domain.sync import FILE_SYSTEMS, ObservedFileSystem, SyncRequest, SyncResponse

_ROOT = Place("/", device=1, capacity=100, used=90)
_DATA = Place("/data", device=2, capacity=1000, used=10)


def test_each_is_told_of_once_and_not_where_a_pool_is() -> None:
    told = apart([_ROOT, replace(_ROOT, path="/var"), _DATA], pools=[_DATA])
    assert told == (ObservedFileSystem(path="/", capacity=100, used=90),)
    assert apart([_ROOT, _DATA], pools=[replace(_ROOT, path="/pool")])[0].path == "/data"
    assert apart([_ROOT], pools=[_ROOT]) == ()


def test_what_nobody_writes_to_is_as_full_as_it_should_be() -> None:
    assert apart([replace(_ROOT, read_only=True), replace(_DATA, capacity=0)], pools=[]) == ()


def test_the_kernel_says_it(tmp_path: Path) -> None:
    place = look(str(tmp_path))
    assert 0 < place.used <= place.capacity
    assert place.device == tmp_path.stat().st_dev
    told = own_file_systems(tmp_path, [str(tmp_path)])
    assert str(tmp_path) not in {one.path for one in told}


class _Asking(Answering):
    """Remembers what it was told, and from the third sync on says that it wants to know."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[ObservedFileSystem, ...] | None] = []

    def sync(self, request: SyncRequest, **_: object) -> SyncResponse:
        self.told.append(request.file_systems)
        if len(self.told) > 2:
            self.accepts = frozenset({FILE_SYSTEMS})
        return super().sync(request)


def test_only_who_wants_to_know_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "INTERVAL", pacing.INTERVAL / 100)
    full = (ObservedFileSystem(path="/", capacity=100, used=90),)
    asking = _Asking()
    asking.pause = 0.01
    made = parts(tmp_path, lambda: asking, NoBlobs(), file_systems=lambda: full)
    with looping(Agent(made)):
        eventually(lambda: full in asking.told)
    assert asking.told[:3] == [None] * 3
