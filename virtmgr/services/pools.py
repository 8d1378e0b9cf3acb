"""Pools: where hosts keep disks. Hosts report them; nobody sets them."""

from __future__ import annotations

from virtmgr.domain.host import Pool
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services.context import Context


def list_(context: Context, query: ListQuery) -> Page[Pool]:
    """All pools."""
    return context.uow.pools.list(query)
