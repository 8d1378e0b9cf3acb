"""Events as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView, Referrer, TargetView
from virtmgr.domain.operation import Event
from virtmgr.ports.unit_of_work import UnitOfWork


class EventView(View):
    """One line of the append-only log."""

    sequence: int = Field(description="Only grows; go on after it with after= or Last-Event-ID.")
    at: datetime
    type: str = Field(description="NOUN.VERB, such as workload.created.")
    target: TargetView
    project: ReferenceView | None
    user: ReferenceView | None = Field(description="Who asked; null: virtmgr itself.")
    operation_id: str | None
    host: ReferenceView | None
    message: str
    data: dict[str, Any]


def event_presenter(uow: UnitOfWork, events: Sequence[Event] = ()) -> Callable[[Event], EventView]:
    """How to present events; what they name may be gone by now."""
    project = Referrer(uow.projects, (event.project_id for event in events))
    user = Referrer(uow.users, (event.user_id for event in events))
    host = Referrer(uow.hosts, (event.host_id for event in events))

    def named(referrer: Referrer, id: str | None) -> ReferenceView | None:
        return None if id is None else referrer.known(id)

    def present(event: Event) -> EventView:
        assert event.sequence is not None  # it comes from the database
        return EventView(
            sequence=event.sequence,
            at=event.at,
            type=event.type,
            target=TargetView(type=event.target_type, id=event.target_id, name=event.target_name),
            project=named(project, event.project_id),
            user=named(user, event.user_id),
            operation_id=event.operation_id,
            host=named(host, event.host_id),
            message=event.message,
            data=event.data,
        )

    return present
