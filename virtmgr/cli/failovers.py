"""``failover``: highly available workloads of lost hosts."""

from __future__ import annotations

from virtmgr.cli.command import group
from virtmgr.cli.crud import Noun, add_list, add_show
from virtmgr.cli.output import age, column

NOUN = Noun(
    "failover",
    "failovers",
    (
        column("ID", "id"),
        column("WORKLOAD", "workload.name"),
        column("LOST", "lost.name"),
        column("TO", "target.name"),
        column("PHASE", "phase"),
        column("WHY", "message"),
        column("AGE", "created_at", shown=age),
        column("PROJECT", "project.name", wide=True),
    ),
)


@group("failover")
def failover() -> None:
    """Highly available workloads of hosts that were lost."""


add_list(failover, NOUN, "phase")
add_show(failover, NOUN)
