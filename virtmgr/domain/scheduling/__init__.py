"""The scheduler: which host takes a workload, and why every other one does not.

It is pure. A ``Fleet`` (clusters, hosts and their claims, and what is placed already, frozen) and
some ``PlacementRequest`` go in; a ``Decision`` for each comes out. Nothing is read and nothing is
written: committing a decision is the caller's, who checks the host's version again.

Read in this order:

1. ``model``        what goes in
2. ``capacity``     when an amount fits on a host; the one rule, used here and at commit
3. ``fleet``        the hosts as arrays
4. ``tally``        what a batch has taken so far
5. ``rules``        which hosts are out, each with its reason
6. ``weighers``     which of the others are better, ``policies`` by the cluster's policy
7. ``standing``     both, kept up to date for requests of one shape
8. ``explanation``  the answer to "why?", and ``replay``, which works it out when it is read
9. ``placing``      the choice
"""

from virtmgr.domain.scheduling.capacity import (
    Amounts,
    Overcommit,
    Shortfall,
    fits,
    limits,
    shortfalls,
)
from virtmgr.domain.scheduling.explanation import Explanation, HostVerdict
from virtmgr.domain.scheduling.fleet import Fleet
from virtmgr.domain.scheduling.model import (
    ClusterView,
    HostPort,
    HostView,
    PlacedWorkload,
    PlacementRequest,
)
from virtmgr.domain.scheduling.placing import Decision, place, still_take

__all__ = [
    "Amounts",
    "ClusterView",
    "Decision",
    "Explanation",
    "Fleet",
    "HostPort",
    "HostVerdict",
    "HostView",
    "Overcommit",
    "PlacedWorkload",
    "PlacementRequest",
    "Shortfall",
    "fits",
    "limits",
    "place",
    "shortfalls",
    "still_take",
]
