"""Operations, and the queue that the control plane's own workers take them from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    bindparam,
    cast,
    exists,
    insert,
    or_,
    select,
)
from sqlalchemy.orm import Session

from virtmgr.domain.image import ImageState
from virtmgr.domain.operation import UNFINISHED, LogLine, Operation, OperationState
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlRepository, among

_operations = tables.operations.c


def _is_mended(wanted: bool) -> ColumnElement[bool]:
    """By whether the same has succeeded later. An image that was not made is made anew under its
    name."""
    later, images = tables.operations.alias().c, tables.images.c
    done = exists().where(
        later.target_id == _operations.target_id,
        later.verb == _operations.verb,
        later.state == OperationState.SUCCEEDED,
        later.id > _operations.id,  # ids grow
    )
    made = exists().where(
        _operations.target_type == "image",
        images.name == _operations.target_name,
        images.state == ImageState.READY,
        cast(images.id, String) != _operations.target_id,
    )
    mended = or_(done, made)
    return mended if wanted else ~mended


class SqlOperations(SqlRepository[Operation]):
    entity = Operation
    table = tables.operations
    listing = Listing(
        tie=_operations.id,
        filters={
            "id": _operations.id,
            "verb": _operations.verb,
            "state": _operations.state,
            "target": _operations.target_id,
            "target_type": _operations.target_type,
            "project": _operations.project_id,
            "user": _operations.user_id,
        },
        conditions={"since": lambda at: _operations.created_at >= at, "mended": _is_mended},
        sorts={
            "created_at": _operations.created_at,
            "updated_at": _operations.updated_at,
            "state": _operations.state,
            "verb": _operations.verb,
        },
        text=_operations.target_name,
        project=_operations.project_id,
        default_sort="-created_at",
    )

    def open_for(self, target_id: str) -> Sequence[Operation]:
        return self._many(
            _operations.target_id == target_id,
            _operations.state.in_(UNFINISHED),
            order=[_operations.created_at, _operations.id],
        )

    def open_for_all(self, target_ids: Collection[str]) -> Mapping[str, Sequence[Operation]]:
        found: dict[str, list[Operation]] = {}
        statement = _open_for_all(arrays=self._arrays)
        for operation in self._asked(statement, targets=list(target_ids)):
            found.setdefault(operation.target_id, []).append(operation)
        return found

    def open_by(self, verb: str) -> Sequence[Operation]:
        return self._asked(_open_by(), verb=verb)

    def last(self, verb: str, target_id: str) -> Operation | None:
        about = (_operations.target_id == target_id, _operations.verb == verb)
        found = select(Operation).where(*about)
        latest = found.order_by(_operations.created_at.desc(), _operations.id.desc())
        return self._session.scalars(latest.limit(1)).one_or_none()

    def take(
        self, verbs: Iterable[str], owner: str, lease_until: datetime, now: datetime
    ) -> Operation | None:
        return self._take(
            _operations.verb.in_(list(verbs)),
            _operations.state.in_(UNFINISHED),
            now=now,
            state=OperationState.RUNNING,
            owner=owner,
            lease_expires_at=lease_until,
            updated_at=now,
        )


class SqlOperationLog:
    """What operations write while they run. An operation has one writer at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, operation_id: str, at: datetime, texts: Iterable[str]) -> None:
        rows = [{"operation_id": operation_id, "at": at, "text": text} for text in texts]
        if rows:
            self._session.flush()
            self._session.execute(insert(tables.operation_log), rows)

    def after(self, operation_id: str, sequence: int, *, limit: int) -> Sequence[LogLine]:
        log = tables.operation_log.c
        found = (
            select(log.sequence, log.at, log.text)
            .where(log.operation_id == operation_id, log.sequence > sequence)
            .order_by(log.sequence)
            .limit(limit)
        )
        return [LogLine(*row) for row in self._session.execute(found)]


@cache
def _open_for_all(*, arrays: bool) -> Select[Operation]:
    there = among(_operations.target_id, "targets", arrays=arrays)
    found = select(Operation).where(there, _operations.state.in_(UNFINISHED))
    return found.order_by(_operations.created_at, _operations.id)


@cache
def _open_by() -> Select[Operation]:
    of_verb = _operations.verb == bindparam("verb")
    found = select(Operation).where(of_verb, _operations.state.in_(UNFINISHED))
    return found.order_by(_operations.created_at, _operations.id)
