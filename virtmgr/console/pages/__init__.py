"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import account, frame, hosts, overview, workload_create, workloads

BLUEPRINTS = (
    account.blueprint,
    frame.blueprint,
    overview.blueprint,
    workload_create.blueprint,
    workloads.blueprint,
    hosts.blueprint,
)
