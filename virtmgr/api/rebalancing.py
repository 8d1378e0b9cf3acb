"""Routes of rebalancing clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from virtmgr.api.answers import Answer, Started
from virtmgr.api.routing import Route, change, start
from virtmgr.api.schemas.clusters import ClusterView
from virtmgr.api.schemas.rebalancing import present_plan
from virtmgr.domain.access import Action
from virtmgr.domain.rebalancing.model import AT_ONCE, MOST_MOVES
from virtmgr.domain.values import Value
from virtmgr.services import clusters, rebalancing
from virtmgr.services.context import Context
from virtmgr.services.rebalancing import Bounds


class RebalanceBody(Value):
    """How much to move, and how."""

    moves: int = Field(MOST_MOVES, ge=1, le=100, description="Most moves in all.")
    at_once: int = Field(AT_ONCE, ge=1, le=10, description="Most of them at a time.")
    cold: bool = Field(
        False,
        description="Also workloads that have to be stopped for it. Default: live moves only.",
    )


def rebalance(context: Context, *, cluster: str, body: RebalanceBody) -> Started:
    """Bring a cluster to where its policy wants it by few moves; a dry run answers the plan"""
    bounds = Bounds(most_moves=body.moves, at_once=body.at_once, cold=body.cold)
    found = rebalancing.rebalance(context, cluster, bounds)

    def would() -> Mapping[str, Any]:
        if found.planned is None:
            return {"plan": None}
        return {"plan": present_plan(context.uow, found.planned).model_dump(mode="json")}

    return Started([found.operation], would=would)


def cancel(context: Context, *, cluster: str) -> Answer[ClusterView]:
    """End the rebalancing of a cluster: nothing more begins, and what has not left stays"""
    rebalancing.cancel(context, cluster)
    found = clusters.find(context, cluster)
    return Answer(ClusterView.model_validate(found), found.version, f"/clusters/{found.id}")


_ONE = "/clusters/{cluster}/rebalance"

ROUTES: tuple[Route, ...] = (
    start("POST", _ONE, rebalance, Action.CLUSTERS_REBALANCE),
    change("POST", _ONE + "/cancel", cancel, Action.CLUSTERS_REBALANCE),
)
