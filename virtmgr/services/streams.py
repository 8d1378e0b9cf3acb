"""Interactive streams: a one-time ticket, good for one connection within seconds."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from virtmgr.domain.errors import Conflict, HostError, Unauthenticated, Unavailable
from virtmgr.domain.host import Host
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import StreamTicket
from virtmgr.domain.states import Verb, check_verb
from virtmgr.domain.streaming import StreamRequest
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.context import Context

TICKET_LIFE = timedelta(seconds=30)


@dataclass(frozen=True)
class Ticket:
    """Where a client opens its stream. ``url`` holds the secret."""

    url: str
    expires_at: datetime


@dataclass(frozen=True)
class Route:
    """Where a stream goes: the agent to dial, and what to ask of it."""

    host_id: str
    agent_url: str
    request: StreamRequest


@dataclass(frozen=True)
class OpenedRoute(Route):
    """One that a ticket stood for, and whose it was."""

    user_id: str | None
    host_name: str


def issue(context: Context, workload: Workload, action: str, parameters: dict[str, Any]) -> Ticket:
    """The right to open one stream to a workload.

    :raises IllegalTransition: the workload's state does not allow it.
    :raises Unavailable: its host does not answer.
    """
    check_verb(action, workload.status.state, workload.spec, workload.deleting)
    host = _reachable_host(context.uow, workload)
    secret = secrets.token_urlsafe(32)
    ticket = StreamTicket(
        id=new_id(),
        secret_hash=_hash(secret),
        workload_id=workload.id,
        host_id=host.id,
        user_id=context.principal.user_id,
        action=action,
        parameters=parameters,
        expires_at=context.now + TICKET_LIFE,
    )
    context.uow.tickets.add(ticket)
    if action != Verb.LOGS:  # reading is not recorded
        context.record(
            f"workload.{action}",
            workload,
            f"{action} was opened",
            host_id=host.id,
            data={"command": parameters["command"]} if "command" in parameters else None,
        )
    return Ticket(f"{context.services.stream_url}/streams/v1/{secret}", ticket.expires_at)


def redeem(services: Services, secret: str) -> OpenedRoute:
    """Use a ticket up.

    :raises Unauthenticated: it is unknown, too old or used.
    :raises Unavailable: the workload's host does not answer any more.
    """
    with services.units() as uow:
        ticket = uow.tickets.redeem(_hash(secret), services.clock.now())
        if ticket is None:
            raise Unauthenticated(
                "this stream ticket is unknown, used or older than "
                f"{TICKET_LIFE.total_seconds():.0f} seconds",
                code="ticket_refused",
                hint="ask for a new one",
            )
        host = uow.hosts.get(ticket.host_id)
        workload = uow.workloads.get(ticket.workload_id)
        route = OpenedRoute(
            user_id=ticket.user_id,
            host_name=host.name if host is not None else "",
            host_id=ticket.host_id,
            agent_url=stream_url(host),
            request=StreamRequest(
                workload_id=ticket.workload_id,
                workload_name=workload.name if workload is not None else "",
                action=ticket.action,
                parameters=ticket.parameters,
            ),
        )
        uow.commit()
    return route


def direct(uow: UnitOfWork, workload: Workload, action: str, parameters: dict[str, Any]) -> Route:
    """The route of a stream that the control plane itself relays (logs, files, exports)."""
    check_verb(
        {"logs": Verb.LOGS, "export": Verb.PUBLISH}.get(action, Verb.FILES),
        workload.status.state,
        workload.spec,
        workload.deleting,
    )
    host = _reachable_host(uow, workload)
    return Route(
        host_id=host.id,
        agent_url=stream_url(host),
        request=StreamRequest(
            workload_id=workload.id,
            workload_name=workload.name,
            action=action,
            parameters=parameters,
        ),
    )


def raise_problem(content: bytes) -> None:
    """Raise the problem that a stream ended with; nothing if it ended well.

    :raises HostError: it did not.
    """
    problem = json.loads(content)
    if "code" in problem:
        raise HostError(problem["detail"], code=problem["code"], hint=problem.get("hint"))


def _reachable_host(uow: UnitOfWork, workload: Workload) -> Host:
    host = uow.hosts.get(workload.host_id) if workload.host_id else None
    if host is None:
        raise Conflict(
            f"workload {workload.name!r} is not on any host yet",
            hint="wait until it is placed",
        )
    if host.state in SILENT:
        raise Unavailable(
            f"host {host.name!r} of workload {workload.name!r} does not answer",
            code="host_unreachable",
            hint=f"see 'virtmgr host show {host.name}'",
        )
    return host


def stream_url(host: Host | None) -> str:
    """Where a host's agent offers streams.

    :raises Unavailable: it does not.
    """
    url = str(host.facts.get("stream_url", "")) if host is not None else ""
    if not url:
        raise Unavailable(
            "the workload's host offers no streams",
            code="no_stream_address",
            hint="see the agent's log on the host",
        )
    return url


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
