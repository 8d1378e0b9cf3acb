"""What rebalancing plans, as the API shows it."""

from __future__ import annotations

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer, WhyNotView, why_not_view
from virtmgr.domain.host import SchedulingPolicy
from virtmgr.domain.migration import MigrationMode, live_downtime
from virtmgr.domain.rebalancing import Balance, Move, WhyNot
from virtmgr.domain.workload import PowerState
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.rebalancing import Planned


class HostLoadView(View):
    """How much of a host is claimed, as shares of what may be."""

    host: ReferenceView
    vcpus: float
    memory: float
    disk: float
    workloads: int = Field(description="Those that are on it, or on their way to it.")


class BalanceView(View):
    """How a cluster's ready hosts are loaded."""

    imbalance: float = Field(
        description="Sum, over hosts, of what their claimed shares are farther from the "
        "cluster's than its threshold; 0 for the policy pack."
    )
    empty: int = Field(description="Hosts that nothing is on.")
    hosts: list[HostLoadView] = Field(description="By name.")


class RebalanceMoveView(View):
    """One workload that would go from one host to another."""

    workload: ReferenceView
    project: ReferenceView
    source: ReferenceView | None
    target: ReferenceView | None
    mode: MigrationMode
    data: int = Field(description="Bytes to copy, about.")
    downtime: float = Field(description="Seconds that it is expected to be down.")
    stop_timeout: int = Field(description="Seconds that its stop may take beyond that.")
    why: str


class StayingView(View):
    """A workload whose move would help, and why it stays."""

    workload: ReferenceView
    project: ReferenceView
    host: ReferenceView | None
    reason: WhyNotView


class RebalancePlanView(View):
    """The moves in their order, what they do, and why there are not more of them."""

    policy: SchedulingPolicy
    moves: list[RebalanceMoveView]
    before: BalanceView
    after: BalanceView
    reasons: list[WhyNotView] = Field(description="Why there are no more moves.")
    why_not: list[StayingView] = Field(description="What stays although moving it would help.")


def present_plan(uow: UnitOfWork, planned: Planned) -> RebalancePlanView:
    """A plan with the names of what it speaks of."""
    plan = planned.plan
    ids = {*(one.project_id for one in plan.moves), *(one.project_id for one in plan.why_not)}
    project = Referrer(uow.projects, ids)
    host = Referrer(uow.hosts)

    def move(one: Move) -> RebalanceMoveView:
        proposal = planned.proposals[one.workload_id]
        workload, cold = proposal.workload, proposal.downtime
        downtime = live_downtime(workload, cold) if one.live else cold
        stays_up = one.live or workload.spec.state is PowerState.STOPPED
        return RebalanceMoveView(
            workload=ReferenceView(id=one.workload_id, name=one.workload_name),
            project=project.known(one.project_id),
            source=host(one.source_id),
            target=host(one.target_id),
            mode=MigrationMode.LIVE if one.live else MigrationMode.COLD,
            data=downtime.data,
            downtime=downtime.seconds,
            stop_timeout=0 if stays_up else workload.spec.stop_timeout,
            why=one.why,
        )

    def staying(one: WhyNot) -> StayingView:
        return StayingView(
            workload=ReferenceView(id=one.workload_id, name=one.workload_name),
            project=project.known(one.project_id),
            host=host(one.host_id),
            reason=why_not_view(one.reason),
        )

    return RebalancePlanView(
        policy=plan.policy,
        moves=[move(one) for one in plan.moves],
        before=_balance(plan.before),
        after=_balance(plan.after),
        reasons=[why_not_view(reason) for reason in plan.reasons],
        why_not=[staying(one) for one in plan.why_not],
    )


def _balance(found: Balance) -> BalanceView:
    return BalanceView(
        imbalance=round(found.imbalance, 4),
        empty=found.empty,
        hosts=[
            HostLoadView(
                host=ReferenceView(id=load.host_id, name=load.host_name),
                vcpus=round(load.vcpus, 4),
                memory=round(load.memory, 4),
                disk=round(load.disk, 4),
                workloads=load.workloads,
            )
            for load in found.hosts
        ],
    )
