"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    events,
    frame,
    hosts,
    images,
    operations,
    overview,
    projects,
    users,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    events.blueprint,
    frame.blueprint,
    hosts.blueprint,
    images.blueprint,
    operations.blueprint,
    overview.blueprint,
    projects.blueprint,
    users.blueprint,
    workloads.blueprint,
)
