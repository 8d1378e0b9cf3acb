"""Routes of migrations: moves of workloads between hosts, and drains of hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, Started, listing
from virtmgr.api.conventions import ListParameters
from virtmgr.api.filters import by_id
from virtmgr.api.routing import Route, change, read, start
from virtmgr.api.schemas.hosts import HostView, host_presenter
from virtmgr.api.schemas.migrations import MigrationView, presenter, proposal_presenter
from virtmgr.domain.access import Action
from virtmgr.domain.live_migration import Wish, wish_for
from virtmgr.domain.migration import MigrationMode, Phase
from virtmgr.domain.values import Reference, Value
from virtmgr.services import drains, migrations, workloads
from virtmgr.services.context import Context


class MigrationParameters(ListParameters):
    """Filters of the list."""

    default_sort: ClassVar[str] = "-created_at"

    phase: list[Phase] | None = Field(
        None,
        max_length=16,
        description="planned, copying, …, done, failed; repeat it for several.",
    )
    workload: str | None = Field(None, max_length=64, description="Id of the workload.")
    drain: str | None = Field(None, max_length=64, description="Id of a drain's operation.")
    rebalance: str | None = Field(
        None, max_length=64, description="Id of a rebalancing's operation."
    )
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


class MoveBody(Value):
    """Where to move a workload."""

    to: Reference | None = Field(None, description="Host, by name or id. Default: the best.")
    mode: MigrationMode | None = Field(
        None,
        description="live: it runs on meanwhile; cold: it is stopped, copied and started. Default: "
        "live for VMs that run, and refused where that is not possible; cold for all others.",
    )


class DrainBody(Value):
    """How to move what is on a host."""

    cold: bool = Field(False, description="Also VMs that run are stopped meanwhile.")


def list_(context: Context, query: MigrationParameters) -> Answer[Listing[MigrationView]]:
    """List migrations, newest first"""
    asked = query.query(project_ids=context.visible, **by_id(context.uow, query))
    page = migrations.list_(context, asked)
    return listing(page, presenter(context.uow, page.items))


def show(context: Context, migration: str) -> Answer[MigrationView]:
    """Show a migration"""
    return Answer(presenter(context.uow)(migrations.find(context, migration)))


def cancel(context: Context, migration: str) -> Answer[MigrationView]:
    """Give a migration up: the workload stays on its host, and runs there again"""
    found = migrations.find(context, migration)
    context.require(Action.WORKLOADS_MOVE, found.project_id, f"migration {migration!r}")
    return Answer(presenter(context.uow)(migrations.cancel(context, migration)))


def move(context: Context, *, workload: str, body: MoveBody) -> Started:
    """Move a workload to another host with its volumes: while it runs, or stopped meanwhile"""
    locked = workloads.lock(context, workload, every_host=True)
    moved = migrations.move(context, locked, body.to, wish_for(body.mode))

    def would() -> Mapping[str, Any]:
        plan = proposal_presenter(context.uow)(moved.proposal)
        return {"plan": [plan.model_dump(mode="json")]}

    return Started([moved.operation], would=would)


def drain(context: Context, *, host: str, body: DrainBody) -> Started:
    """Move everything away from a host, which takes nothing new; then it is in maintenance"""
    drained = drains.drain(context, host, Wish.COLD if body.cold else Wish.EITHER)

    def would() -> Mapping[str, Any]:
        present = proposal_presenter(context.uow)
        return {"plan": [present(one).model_dump(mode="json") for one in drained.plan]}

    return Started([drained.operation], would=would)


def cancel_drain(context: Context, *, host: str) -> Answer[HostView]:
    """End the drain of a host: what has not left stays, and the host is cordoned"""
    found = drains.cancel(context, host)
    return Answer(host_presenter(context.uow)(found), found.version, f"/hosts/{found.id}")


_ONE = "/migrations/{migration}"

ROUTES: tuple[Route, ...] = (
    read("/migrations", list_, Action.MIGRATIONS_VIEW),
    read(_ONE, show, Action.MIGRATIONS_VIEW),
    change("POST", _ONE + "/cancel", cancel, Action.MIGRATIONS_VIEW),
    start("POST", "/projects/{project}/workloads/{workload}/move", move, Action.WORKLOADS_MOVE),
    start("POST", "/hosts/{host}/drain", drain, Action.HOSTS_UPDATE),
    change("POST", "/hosts/{host}/drain/cancel", cancel_drain, Action.HOSTS_UPDATE),
)
