"""The whole installation at a glance, as the API shows it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView
from virtmgr.api.schemas.hosts import CapacityView
from virtmgr.domain.host import HostState
from virtmgr.domain.overview import Severity
from virtmgr.domain.workload import Init, Kind, State


class TotalsView(View):
    """Sums over hosts."""

    capacity: CapacityView = Field(description="What the machines have.")
    limit: CapacityView = Field(description="What may be claimed, overcommit included.")
    claimed: CapacityView = Field(description="What workloads claim.")
    free: CapacityView = Field(description="What new ones may claim: on hosts that are ready.")


class HostCountView(View):
    """Hosts in one state."""

    state: HostState
    count: int


class WorkloadCountView(View):
    """Workloads of one kind in one state."""

    kind: Kind
    init: Init | None
    state: State
    count: int


class ClusterPartView(View):
    """One cluster."""

    cluster: ReferenceView
    hosts: list[HostCountView]
    totals: TotalsView
    reserve: int = Field(description="Failures of hosts that there is to be room for.")
    survives: int = Field(
        description="Further hosts that may fail so that what is highly available has room on the "
        "others, by sums."
    )


class AlertView(View):
    """Something that needs a person."""

    code: str = Field(description="For programs: hosts_silent, operations_failed, …")
    severity: Severity
    message: str
    hint: str = Field(description="What to do next.")
    count: int
    noun: str = Field(description="The list that shows all of it: hosts, operations, …")
    filters: dict[str, Any] = Field(description="That list's query parameters.")
    names: list[str] = Field(description="Of the latest few.")


class OverviewView(View):
    """The whole installation, as far as one may see it."""

    hosts: list[HostCountView]
    workloads: list[WorkloadCountView] = Field(description="Of the projects that one may see.")
    totals: TotalsView
    clusters: list[ClusterPartView]
    alerts: list[AlertView] = Field(description="The gravest first.")
