"""CP-SAT on what the domain writes down; only where OR-Tools are installed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.domain.test_rebalancing import Site, a_site, replayed, sites
from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.rebalancing import Aim, RebalancePlan, plan_rebalance
from virtmgr.drivers.solver import cp_sat

pytest.importorskip("ortools")


def solved(site: Site, **aim: object) -> RebalancePlan:
    wanted = Aim(**{"cluster_id": "c", "cold": True, **aim})  # type: ignore[arg-type]
    return plan_rebalance(site.fleet(), site.movables, wanted, cp_sat.solve)


def test_it_is_found() -> None:
    assert cp_sat.installed() is not None


@given(sites())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_it_keeps_the_rules_and_is_never_worse(site: Site) -> None:
    plan, greedy = solved(site), site.plan()
    replayed(site, plan.moves)
    assert len(plan.moves) <= 20
    assert plan.after.imbalance <= greedy.after.imbalance + 1e-6
    assert plan.after.empty >= greedy.after.empty or plan.policy is not SchedulingPolicy.PACK


def test_it_levels() -> None:
    plan = solved(a_site(SchedulingPolicy.BALANCED, 8, 2, 2), threshold=0.3)
    assert (len(plan.moves), plan.after.imbalance) == (2, 0)


def test_it_empties() -> None:
    plan = solved(a_site(SchedulingPolicy.PACK, 5, 1, 2))
    assert (len(plan.moves), plan.after.empty) == (3, 2)
