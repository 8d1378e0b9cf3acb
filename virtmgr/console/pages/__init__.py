"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    clusters,
    events,
    failovers,
    frame,
    host_add,
    host_drain,
    host_fencing,
    hosts,
    images,
    migrations,
    networks,
    operations,
    overview,
    pools,
    projects,
    settings,
    users,
    volumes,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    clusters.blueprint,
    events.blueprint,
    failovers.blueprint,
    frame.blueprint,
    host_add.blueprint,
    host_drain.blueprint,
    host_fencing.blueprint,
    hosts.blueprint,
    images.blueprint,
    migrations.blueprint,
    networks.blueprint,
    operations.blueprint,
    overview.blueprint,
    pools.blueprint,
    projects.blueprint,
    settings.blueprint,
    users.blueprint,
    volumes.blueprint,
    workloads.blueprint,
)
