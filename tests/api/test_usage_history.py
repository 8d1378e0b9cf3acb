"""What hosts tell of the past is answered, whoever told it and wherever it was."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost
from tests.api.test_moving import ALL, ONE, Pair, pair
from virtmgr.domain.sync import SyncRequest
from virtmgr.domain.usage_history import MINUTE, QUARTER, UsagePoint, UsageSlice
from virtmgr.services.container import Services
from virtmgr.services.usage_history import forget_old

__all__ = ["pair"]


def tell(host: PretendHost, end: datetime, seconds: int, id: str, cpus: float) -> None:
    """The host used twice of what its one workload did."""
    one = UsageSlice(
        end=end,
        seconds=seconds,
        host=UsagePoint(cpus=2 * cpus, memory=5),
        workloads={id: UsagePoint(cpus=cpus, memory=7)},
    )
    host.sync(SyncRequest(known_revision=host.known_revision, usage_history=(one,)))


def since(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def history(api: Api, path: str, moment: datetime) -> Any:
    return api.get(f"{path}/usage", since=since(moment)).body["history"]


def test_the_history_of_hosts_and_workloads(
    api: Api, services: Services, clock: StillClock
) -> None:
    host = PretendHost(services)
    api.post(ALL, {"name": "web1", "kind": "container", "image": "busybox"})
    host.converge()
    id = api.get(ONE).body["id"]
    now = clock.now().replace(microsecond=0)
    for minute in range(3):
        tell(host, now - timedelta(minutes=minute), MINUTE, id, 0.5 * minute)
    tell(host, now - timedelta(hours=3), QUARTER, id, 3)
    tell(host, now - timedelta(days=3), QUARTER, id, 4)
    tell(host, now + timedelta(days=3), QUARTER, id, 5)
    tell(host, now, MINUTE, id, 6)  # said before: what was kept stays

    found = history(api, ONE, now - timedelta(minutes=2))
    assert found["seconds"] == MINUTE
    assert found["cpus"] == [0.5, 0]
    assert found["memory"] == [7, 7]
    assert found["at"] == [since(now - timedelta(minutes=1)), since(now)]
    assert found["network_sent"] == [None, None]
    assert history(api, f"/hosts/{host.id}", now - timedelta(hours=24))["cpus"] == [6]
    assert api.get(f"/hosts/{host.id}/usage").body["history"]["cpus"] == [2, 1, 0]
    assert api.get(f"{ONE}/usage").body == {"usage": None, "history": None}

    clock.advance(hours=2)
    forget_old(services)
    assert history(api, ONE, now - timedelta(hours=1))["cpus"] == []
    assert history(api, ONE, now - timedelta(hours=24))["cpus"] == [3]
    clock.advance(hours=30)
    forget_old(services)
    assert history(api, ONE, now - timedelta(hours=90))["cpus"] == []


def test_only_where_it_was_is_believed(api: Api, services: Services, clock: StillClock) -> None:
    host = PretendHost(services)
    api.post(ALL, {"name": "web1", "kind": "container", "image": "busybox"})
    host.converge()
    id = api.get(ONE).body["id"]
    now = clock.now().replace(microsecond=0)
    tell(PretendHost(services), now, MINUTE, id, 9)
    assert history(api, ONE, now - timedelta(hours=1))["cpus"] == []


def test_it_goes_with_a_workload_that_moves(api: Api, pair: Pair, clock: StillClock) -> None:
    id = api.get(ONE).body["id"]
    now = clock.now().replace(microsecond=0)
    tell(pair.source, now - timedelta(minutes=2), MINUTE, id, 1)
    assert api.post(f"{ONE}/move").status == 202
    pair.move()
    pair.target.converge()
    pair.source.converge()
    assert api.get(ONE).body["host"]["id"] == pair.target.id
    tell(pair.target, now, MINUTE, id, 2)
    assert history(api, ONE, now - timedelta(hours=1))["cpus"] == [1, 2]


def test_who_may_see_it(services: Services, as_role: Any) -> None:
    host = PretendHost(services)
    assert as_role("viewer").get(f"/hosts/{host.id}/usage").status == 200
    assert as_role(None).get(f"/hosts/{host.id}/usage").status in (403, 404)


@pytest.mark.parametrize("given", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "0.5", "-1"])
def test_a_time_has_a_zone(api: Api, services: Services, given: str) -> None:
    host = PretendHost(services)
    assert api.get(f"/hosts/{host.id}/usage", since=given).status == 422
