"""One-time stream tickets, idempotency keys, and the installation's own settings."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite
from sqlalchemy.orm import Session

from virtmgr.domain.ids import is_id
from virtmgr.domain.operation import IdempotencyKey, StreamTicket
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlRepository

_tickets = tables.stream_tickets.c
_keys = tables.idempotency_keys.c
_settings = tables.settings.c


class SqlTickets(SqlRepository[StreamTicket]):
    entity = StreamTicket
    table = tables.stream_tickets
    listing = Listing(
        tie=_tickets.id,
        filters={"workload": _tickets.workload_id, "host": _tickets.host_id},
        sorts={"expires_at": _tickets.expires_at},
        default_sort="expires_at",
    )

    def redeem(self, secret_hash: str, now: datetime) -> StreamTicket | None:
        statement = (
            update(StreamTicket)
            .where(
                _tickets.secret_hash == secret_hash,
                _tickets.used_at.is_(None),
                _tickets.expires_at > now,
            )
            .values(used_at=now)
            .returning(StreamTicket)
            .execution_options(synchronize_session=False, populate_existing=True)
        )
        self._session.flush()
        return self._session.scalars(statement).one_or_none()

    def purge(self, before: datetime) -> None:
        self._session.flush()
        self._session.execute(delete(tables.stream_tickets).where(_tickets.expires_at < before))


class SqlIdempotency:
    """Answers that were given, by user and key."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, user_id: str, key: str) -> IdempotencyKey | None:
        if not is_id(user_id):
            return None
        return self._session.get(IdempotencyKey, (user_id, key))

    def add(self, entry: IdempotencyKey) -> None:
        """Insert at once.

        :raises NameTaken: another request has given an answer under this key.
        """
        self._session.add(entry)
        self._session.flush()

    def purge(self, before: datetime) -> None:
        self._session.flush()
        self._session.execute(delete(tables.idempotency_keys).where(_keys.created_at < before))


class SqlSettings:
    """Small facts of the installation itself."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, key: str) -> str | None:
        return self._session.scalar(select(_settings.value).where(_settings.key == key))

    def set(self, key: str, value: str) -> None:
        postgresql = self._session.get_bind().dialect.name == "postgresql"
        insert = insert_on_postgresql if postgresql else insert_on_sqlite
        statement = insert(tables.settings).values(key=key, value=value)
        self._session.execute(
            statement.on_conflict_do_update(index_elements=["key"], set_={"value": value})
        )
