"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    consoles,
    files,
    frame,
    hosts,
    overview,
    uploads,
    usage,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    consoles.blueprint,
    files.blueprint,
    frame.blueprint,
    hosts.blueprint,
    overview.blueprint,
    uploads.blueprint,
    usage.blueprint,
    workloads.blueprint,
)
