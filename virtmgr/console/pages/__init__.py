"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    events,
    frame,
    hosts,
    images,
    networks,
    operations,
    overview,
    projects,
    settings,
    users,
    volumes,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    events.blueprint,
    frame.blueprint,
    hosts.blueprint,
    images.blueprint,
    networks.blueprint,
    operations.blueprint,
    overview.blueprint,
    projects.blueprint,
    settings.blueprint,
    users.blueprint,
    volumes.blueprint,
    workloads.blueprint,
)
