"""What needs a person, and the list that shows it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from virtmgr.domain.failover import FailoverPhase
from virtmgr.domain.host import HostState
from virtmgr.domain.operation import OperationState
from virtmgr.domain.overview import Severity, Watch
from virtmgr.domain.workload import State

EXPIRES_SOON: Final = timedelta(days=14)
"""Agents renew their certificates long before; one that is so near its end has a reason."""
LATELY: Final = timedelta(days=1)
NEARLY_FULL: Final = 0.85  # of a pool, and of a host's own file system


def watched(now: datetime) -> tuple[Watch, ...]:
    """What is looked for, each with the filters of the list that shows it."""
    return (
        Watch(
            code="hosts_silent",
            severity=Severity.CRITICAL,
            noun="hosts",
            filters={"state": (HostState.UNREACHABLE, HostState.FENCED)},
            one="a host does not answer",
            many="{count} hosts do not answer",
            hint="look at its power, network and agent; what is highly available starts elsewhere "
            "by itself once the host cannot be running it",
        ),
        Watch(
            code="failovers_waiting",
            severity=Severity.CRITICAL,
            noun="failovers",
            filters={"phase": (FailoverPhase.WAITING,)},
            one="a highly available workload of a lost host waits",
            many="{count} highly available workloads of lost hosts wait",
            hint="each says what it waits for: room, or that its host is known to be off",
        ),
        Watch(
            code="workloads_failed",
            severity=Severity.CRITICAL,
            noun="workloads",
            filters={"state": (State.FAILED,)},
            one="a workload failed",
            many="{count} workloads failed",
            hint="each says why; start it again when that is mended",
        ),
        Watch(
            code="installations_failed",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"state": (HostState.INSTALL_FAILED,)},
            one="the installation of a host failed",
            many="the installations of {count} hosts failed",
            hint="its last operation names the task that failed; mend that, then retry",
        ),
        Watch(
            code="hosts_lacking",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"state": (HostState.PROBING,)},
            one="a host lacks what workloads need",
            many="{count} hosts lack what workloads need",
            hint="the host's page says what; it becomes ready by itself",
        ),
        Watch(
            code="drains_incomplete",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"drain_incomplete": True},
            one="a host could not be drained of everything",
            many="{count} hosts could not be drained of everything",
            hint="look at the plan of a further drain: it says what stays and why",
        ),
        Watch(
            code="certificates_expire",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"certificate_before": now + EXPIRES_SOON},
            one="the certificate of a host ends within two weeks",
            many="the certificates of {count} hosts end within two weeks",
            hint="agents renew them by themselves; renew it by ssh where that does not happen",
        ),
        Watch(
            code="pools_nearly_full",
            severity=Severity.WARNING,
            noun="pools",
            filters={"fullness": NEARLY_FULL},
            one="a pool is nearly full",
            many="{count} pools are nearly full",
            hint="prune images that nothing needs, move workloads away, or add disk",
        ),
        Watch(
            code="file_systems_nearly_full",
            severity=Severity.WARNING,
            noun="hosts",
            filters={"fullness": NEARLY_FULL},
            one="a file system of a host is nearly full",
            many="file systems of {count} hosts are nearly full",
            hint="the host's page says which; logs and packages are the usual reasons; an agent "
            "that has no room for its own state takes nothing in",
        ),
        Watch(
            code="operations_failed",
            severity=Severity.WARNING,
            noun="operations",
            filters={
                "state": (OperationState.FAILED,),
                "since": now - LATELY,
                "mended": False,
            },
            one="an operation failed within the last day",
            many="{count} operations failed within the last day",
            hint="each says what was attempted and why it failed; one that succeeds when it is "
            "tried again is told no more",
        ),
    )
