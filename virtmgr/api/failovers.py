"""Routes of failovers: highly available workloads of lost hosts."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from virtmgr.api.answers import Answer, Listing, listing
from virtmgr.api.conventions import ListParameters, Query
from virtmgr.api.filters import by_id
from virtmgr.api.routing import Route, change, read
from virtmgr.api.schemas.failovers import FailoverView, presenter
from virtmgr.api.schemas.hosts import HostView, host_presenter
from virtmgr.domain.access import Action
from virtmgr.domain.failover import FailoverPhase
from virtmgr.services import failovers
from virtmgr.services.context import Context


class FailoverParameters(ListParameters):
    """Filters of the list."""

    default_sort: ClassVar[str] = "-created_at"

    phase: list[FailoverPhase] | None = Field(
        None, max_length=16, description="waiting, restarted, done, …; repeat it for several."
    )
    workload: str | None = Field(None, max_length=64, description="Id of the workload.")
    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


def list_(context: Context, query: FailoverParameters) -> Answer[Listing[FailoverView]]:
    """List failovers, newest first: what was restarted elsewhere, and what waits for what"""
    asked = query.query(project_ids=context.visible, **by_id(context.uow, query))
    page = failovers.list_(context, asked)
    return listing(page, presenter(context.uow, page.items))


def show(context: Context, failover: str) -> Answer[FailoverView]:
    """Show a failover"""
    return Answer(presenter(context.uow)(failovers.find(context, failover)))


class ConfirmOffParameters(Query):
    """What is left behind."""

    without_volumes: bool = Field(
        False,
        description="Workloads with volumes start elsewhere, too. Their volumes are detached, and "
        "stay on the host.",
    )


def confirm_off(context: Context, query: ConfirmOffParameters, *, host: str) -> Answer[HostView]:
    """Say that an unreachable host is off: what is highly available starts elsewhere"""
    found = failovers.confirm_off(context, host, without_volumes=query.without_volumes)
    return Answer(host_presenter(context.uow)(found), found.version, f"/hosts/{found.id}")


ROUTES: tuple[Route, ...] = (
    read("/failovers", list_, Action.FAILOVERS_VIEW),
    read("/failovers/{failover}", show, Action.FAILOVERS_VIEW),
    change("POST", "/hosts/{host}/confirm-off", confirm_off, Action.HOSTS_UPDATE),
)
