"""Clusters as the API shows them."""

from __future__ import annotations

from datetime import datetime

from virtmgr.api.answers import View
from virtmgr.domain.host import Convergence, SchedulingPolicy


class ClusterView(View):
    """Hosts that schedule and migrate among each other under one policy."""

    id: str
    name: str
    description: str
    policy: SchedulingPolicy
    overcommit_vcpus: float
    overcommit_memory: float
    overcommit_disk: float
    cpu: str
    migration_bandwidth: int
    migration_downtime: int
    migration_steps: int
    migration_convergence: Convergence
    labels: dict[str, str]
    created_at: datetime
    version: int
