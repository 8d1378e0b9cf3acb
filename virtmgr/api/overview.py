"""The route of the overview."""

from __future__ import annotations

from collections.abc import Mapping

from virtmgr.api.answers import Answer
from virtmgr.api.routing import Route, read
from virtmgr.api.schemas.common import ReferenceView
from virtmgr.api.schemas.overview import (
    AlertView,
    ClusterPartView,
    HostCountView,
    OverviewView,
    TotalsView,
    WorkloadCountView,
)
from virtmgr.domain.access import Action
from virtmgr.domain.host import HostState
from virtmgr.services import overview
from virtmgr.services.context import Context
from virtmgr.services.overview import ClusterPart


def show(context: Context) -> Answer[OverviewView]:
    """Show the whole installation at a glance: counts, sums, and what needs a person"""
    found = overview.show(context)
    return Answer(
        OverviewView(
            hosts=_counts(found.hosts),
            workloads=[WorkloadCountView.model_validate(count) for count in found.workloads],
            totals=TotalsView.model_validate(found.totals),
            clusters=[_cluster(part) for part in found.clusters],
            alerts=[AlertView.model_validate(alert) for alert in found.alerts],
        )
    )


def _counts(hosts: Mapping[HostState, int]) -> list[HostCountView]:
    return [HostCountView(state=state, count=count) for state, count in hosts.items()]


def _cluster(part: ClusterPart) -> ClusterPartView:
    return ClusterPartView(
        cluster=ReferenceView(id=part.cluster.id, name=part.cluster.name),
        hosts=_counts(part.hosts),
        totals=TotalsView.model_validate(part.totals),
        reserve=part.cluster.reserve,
        survives=part.survives,
    )


ROUTES: tuple[Route, ...] = (read("/overview", show, Action.HOSTS_VIEW),)
