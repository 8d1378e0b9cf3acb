"""The pages, a module for each noun; each module's ``blueprint`` holds its routes."""

from __future__ import annotations

from virtmgr.console.pages import (
    account,
    frame,
    hosts,
    overview,
    workload_actions,
    workload_bulk,
    workload_create,
    workload_spec,
    workloads,
)

BLUEPRINTS = (
    account.blueprint,
    frame.blueprint,
    overview.blueprint,
    workload_actions.blueprint,
    workload_bulk.blueprint,
    workload_create.blueprint,
    workload_spec.blueprint,
    workloads.blueprint,
    hosts.blueprint,
)
