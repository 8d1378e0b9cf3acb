"""Rebalancing: the fewest moves that bring a cluster to where its policy wants it. Pure.

A ``Fleet``, what can be moved and an ``Aim`` go in; a ``RebalancePlan`` comes out. Which hosts may
take a workload is decided by the rules of ``virtmgr.domain.scheduling``, the same that place it.

Read in this order:

1. ``model``      what goes in and what comes out
2. ``measure``    how far a cluster is from where its policy wants it
3. ``moving``     what one move may do
4. ``levelling``  plans for ``spread`` and ``balanced``: no host far from the cluster's mean
5. ``emptying``   plans for ``pack``: hosts with nothing on them, which may be switched off
6. ``exact``      the same as a problem of whole numbers, for a solver
7. ``planning``   ``plan_rebalance``
8. ``running``    a plan that is carried out
9. ``rounds``     when a cluster has been out of balance for long enough to be told
"""

from virtmgr.domain.rebalancing.measure import Balance, HostLoad
from virtmgr.domain.rebalancing.model import Aim, Movable, Move, RebalancePlan, WhyNot
from virtmgr.domain.rebalancing.planning import plan_rebalance, worth_looking

__all__ = [
    "Aim",
    "Balance",
    "HostLoad",
    "Movable",
    "Move",
    "RebalancePlan",
    "WhyNot",
    "plan_rebalance",
    "worth_looking",
]
