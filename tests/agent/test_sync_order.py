"""The agent numbers what it says, so that what comes late is known as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.fakes import NoBlobs
from tests.bootstrap.raw import eventually
from tests.fixtures.answering import Answering
from tests.fixtures.running_agent import looping, parts
from virtmgr.agent import pacing
from virtmgr.agent.agent import Agent
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.sync import SyncOrder, SyncRequest, SyncResponse
from virtmgr.domain.sync_order import OVERTAKEN


class Remembering(Answering):
    """Remembers the place of every sync that it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[SyncOrder] = []
        self.refuses = False

    def sync(self, request: SyncRequest, **_: object) -> SyncResponse:
        if request.order is not None:
            self.orders.append(request.order)
        if self.refuses:
            raise Unavailable("it came late", code=OVERTAKEN)
        return super().sync(request)


def test_syncs_are_numbered_and_a_refusal_begins_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INTERVAL", "BACK_OFF_MOST"):
        monkeypatch.setattr(pacing, name, getattr(pacing, name) / 100)
    control_plane = Remembering()
    orders = control_plane.orders
    with looping(Agent(parts(tmp_path, lambda: control_plane, NoBlobs()))):
        eventually(lambda: len(orders) > 3)
        control_plane.is_away = True  # what it was sent may still come
        eventually(lambda: len(orders) > 5)
        control_plane.is_away = False
        assert {order.run for order in orders} == {orders[0].run}
        control_plane.refuses = True
        seen = len(orders)
        eventually(lambda: len(orders) > seen)
        control_plane.refuses = False
        eventually(lambda: orders[-1].run != orders[0].run)
    assert [order.number for order in orders] == list(range(1, len(orders) + 1))
