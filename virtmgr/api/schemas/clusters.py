"""Clusters as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.domain.host import Convergence, FailoverPolicy, Rebalancing, SchedulingPolicy


class ClusterView(View):
    """Hosts that schedule and migrate among each other under one policy."""

    id: str
    name: str
    description: str
    policy: SchedulingPolicy
    overcommit_vcpus: float
    overcommit_memory: float
    overcommit_disk: float
    failover: FailoverPolicy
    failover_limit: float
    reserve: int
    ha_lease: float
    ha_margin: float
    cpu: str
    migration_bandwidth: int
    migration_downtime: int
    migration_steps: int
    migration_convergence: Convergence
    rebalancing: Rebalancing
    rebalancing_threshold: float
    imbalance_rounds: int = Field(
        description="Looks in a row, one a minute, that found it out of balance."
    )
    proposed_moves: int = Field(description="Moves of the last plan that was made because of that.")
    labels: dict[str, str]
    created_at: datetime
    version: int


class ShownClusterView(ClusterView):
    """A cluster with what its hosts have room for."""

    survives: int = Field(
        description="Further hosts that may fail so that what is highly available has room on the "
        "others, by sums."
    )
