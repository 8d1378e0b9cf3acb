"""Users, their role bindings and their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Select, bindparam, select

from virtmgr.domain.project import RoleBinding, Token, User
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlNamedRepository, SqlRepository

_users = tables.users.c
_bindings = tables.role_bindings.c
_tokens = tables.tokens.c


class SqlUsers(SqlNamedRepository[User]):
    entity = User
    table = tables.users
    listing = Listing(
        tie=_users.id,
        filters={"name": _users.name, "id": _users.id, "disabled": _users.disabled},
        sorts={"name": _users.name, "created_at": _users.created_at},
        text=_users.name,
    )


class SqlRoleBindings(SqlRepository[RoleBinding]):
    entity = RoleBinding
    table = tables.role_bindings
    listing = Listing(
        tie=_bindings.id,
        filters={
            "user": _bindings.user_id,
            "role": _bindings.role,
            "project": _bindings.project_id,
        },
        sorts={"created_at": _bindings.created_at, "role": _bindings.role},
        project=_bindings.project_id,
        default_sort="created_at",
    )

    def of_user(self, user_id: str) -> Sequence[RoleBinding]:
        return self._many(_bindings.user_id == user_id, order=[_bindings.id])


class SqlTokens(SqlRepository[Token]):
    entity = Token
    table = tables.tokens
    listing = Listing(
        tie=_tokens.id,
        filters={"user": _tokens.user_id, "name": _tokens.name, "project": _tokens.project_id},
        sorts={"name": _tokens.name, "created_at": _tokens.created_at},
        text=_tokens.name,
        project=_tokens.project_id,
    )

    def shown(self, secret_hash: str) -> tuple[Token, User, Sequence[RoleBinding]] | None:
        rows = self._session.execute(_shown(), {"hash": secret_hash}).all()
        if not rows:
            return None
        bindings = [row.RoleBinding for row in rows if row.RoleBinding is not None]
        return rows[0].Token, rows[0].User, bindings


@cache
def _shown() -> Select[Token, User, RoleBinding]:
    return (
        select(Token, User, RoleBinding)
        .join(User, _users.id == _tokens.user_id)
        .outerjoin(RoleBinding, _bindings.user_id == _users.id)
        .where(_tokens.secret_hash == bindparam("hash"))
        .order_by(_bindings.id)
    )
