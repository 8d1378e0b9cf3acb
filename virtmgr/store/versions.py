"""Optimistic versions: each change of what people asked for bumps the row's ``version``.

The version is the row's ETag, so it counts what a reader may want to have changed *nothing under
him*: spec, labels, limits, settings. What is merely observed does not count. Otherwise every
usage report of a workload (several a minute, more while it starts) would turn a user's PATCH with
If-Match into a 412 that he did not deserve, and on PostgreSQL his commit and the agent's report
would knock each other over. Both can be written at the same time: an UPDATE carries only the
columns that changed, and those of user and agent are disjoint.

Where a counted column has changed, the version read must still be the row's, or the change is
refused: a lost update cannot happen even where a service forgot to ``lock``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect, update
from sqlalchemy.orm import Session, UOWTransaction
from sqlalchemy.orm.attributes import get_history, set_committed_value

from virtmgr.domain.errors import Conflict
from virtmgr.domain.host import Cluster, Host
from virtmgr.domain.image import Image
from virtmgr.domain.network import Network
from virtmgr.domain.project import Project, Quota, User
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import Workload

_OBSERVED: dict[type[Any], frozenset[str]] = {
    Project: frozenset(),
    Quota: frozenset(),
    User: frozenset({"failed_logins", "locked_until"}),
    Cluster: frozenset({"imbalance_rounds", "proposed_moves"}),
    Host: frozenset(
        {
            "certificate_serial",
            "previous_certificate_serial",
            "certificate_expires_at",
            "join_token_hash",
            "join_token_expires_at",
            "certificate_issuer",
            "trusted_authorities",
            "lease_expires_at",
            "lease_seconds",
            "renewals",
            "known_off",
            "without_volumes",
            "last_seen_at",
            "sync_run",
            "sync_run_before",
            "sync_number",
            "file_systems",
            "fullness",
            "revision",
            "prune_nonce",
        }
    ),
    Image: frozenset({"type", "state", "manifest", "digest", "size", "failure"}),
    Network: frozenset({"revision"}),
    Volume: frozenset({"state", "failure", "revision"}),
    Workload: frozenset({"status", "observed_generation", "revision", "updated_at"}),
}


def bump_versions(session: Session, _flush: UOWTransaction, _objects: object) -> None:
    """Session hook ``before_flush``.

    :raises Conflict: somebody else changed the row since it was read.
    """
    for entity in sorted(session.dirty, key=_in_locking_order):
        observed = _OBSERVED.get(type(entity))
        if observed is not None and _counted_change(entity, observed):
            _bump(session, entity)


def _in_locking_order(entity: object) -> tuple[str, tuple[Any, ...]]:
    """Rows of one kind in the order of their ids: no two units lock them the other way round."""
    return type(entity).__name__, inspect(entity).identity


def _counted_change(entity: object, observed: frozenset[str]) -> bool:
    touched = set(inspect(entity).committed_state) - observed - {"version"}
    return any(get_history(entity, name).has_changes() for name in touched)


def _bump(session: Session, entity: Any) -> None:
    state = inspect(entity)
    table: Any = state.mapper.local_table
    read: int = state.committed_state.get("version", entity.version)
    statement = (
        update(table)
        .where(*(column == value for column, value in _identity(table, state.identity)))
        .where(table.c.version == read)
        .values(version=read + 1)
        .returning(table.c.version)
    )
    if session.connection().execute(statement).scalar() is None:
        name = getattr(entity, "name", None) or state.identity[0]
        raise Conflict(
            f"change {type(entity).__name__.lower()} {name}: it was changed by somebody else "
            "since it was read",
            code="changed_meanwhile",
            hint="read it again, then repeat the request",
        )
    set_committed_value(entity, "version", read + 1)


def _identity(table: Any, identity: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    return list(zip(table.primary_key, identity, strict=True))
