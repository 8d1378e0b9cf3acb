"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    clusters,
    failovers,
    frame,
    host_add,
    host_drain,
    host_fencing,
    hosts,
    migrations,
    overview,
    pools,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    clusters.blueprint,
    failovers.blueprint,
    frame.blueprint,
    host_add.blueprint,
    host_drain.blueprint,
    host_fencing.blueprint,
    hosts.blueprint,
    migrations.blueprint,
    overview.blueprint,
    pools.blueprint,
    workloads.blueprint,
)
