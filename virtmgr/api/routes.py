"""The URL table: every route of the REST API, below ``/api/v1``."""

from __future__ import annotations

from typing import Final

from virtmgr.api import (
    about,
    ca,
    clusters,
    events,
    failovers,
    fencing,
    hosts,
    images,
    migrations,
    networks,
    operations,
    overview,
    partial_uploads,
    projects,
    rebalancing,
    role_bindings,
    tokens,
    transfers,
    users,
    volumes,
    workloads,
)
from virtmgr.api.routing import Route

ROUTES: Final[tuple[Route, ...]] = (
    *about.ROUTES,
    *overview.ROUTES,
    *projects.ROUTES,
    *users.ROUTES,
    *role_bindings.ROUTES,
    *tokens.ROUTES,
    *ca.ROUTES,
    *clusters.ROUTES,
    *rebalancing.ROUTES,
    *hosts.ROUTES,
    *images.ROUTES,
    *partial_uploads.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *workloads.ROUTES,
    *transfers.ROUTES,
    *migrations.ROUTES,
    *failovers.ROUTES,
    *fencing.ROUTES,
    *operations.ROUTES,
    *events.ROUTES,
)
