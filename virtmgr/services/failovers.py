"""Failovers as people ask for them: what waits and why, and the word of an operator."""

from __future__ import annotations

from virtmgr.domain.errors import IllegalTransition, NotFound
from virtmgr.domain.failover import Failover, Release
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import SILENT
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import hosts
from virtmgr.services.context import Context


def list_(context: Context, query: ListQuery) -> Page[Failover]:
    """Failovers of the projects that may be seen, newest first by default."""
    return context.uow.failovers.list(query)


def find(context: Context, id: str) -> Failover:
    """A failover that the principal may see.

    :raises NotFound: there is none.
    """
    found = context.uow.failovers.get(id)
    if found is None or not context.shows(found.project_id):
        raise NotFound(f"failover {id!r} does not exist")
    return found


def confirm_off(context: Context, reference: str, *, without_volumes: bool = False) -> Host:
    """An operator says that a silent host is off: nothing runs on it. Twice is once.

    Its highly available workloads are restarted elsewhere at once, whatever its lease. If it is not
    off, they run twice: nobody checks.

    :param without_volumes: those with volumes are restarted as well, and their volumes are detached
        and stay where they are. It counts until the host speaks again.
    :raises NotFound: there is no such host.
    :raises IllegalTransition: it is not silent.
    """
    host = hosts.lock(context, reference)
    if host.state not in SILENT:
        raise IllegalTransition(
            f"cannot take host {host.name!r} for off: it is {host.state}, and syncs",
            hint="only a host that is unreachable can be off",
            detail={"state": str(host.state)},
        )
    if host.known_off is None:
        host.state, host.known_off = HostState.FENCED, Release.CONFIRMED.value
        message = f"host {host.name} is off, says an operator"
        context.record("host.confirmed_off", host, message, host_id=host.id)
    if without_volumes and not host.without_volumes:
        host.without_volumes = True
        message = f"what is highly available on host {host.name} starts without its volumes"
        context.record("host.without_volumes", host, message, host_id=host.id)
    context.uow.flush()
    return host
