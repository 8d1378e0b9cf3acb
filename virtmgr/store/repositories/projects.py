"""Projects and their quotas."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import bindparam, case, or_, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from virtmgr.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from virtmgr.domain.project import Project, Quota
from virtmgr.domain.quota import written
from virtmgr.store import tables
from virtmgr.store.listing import Listing
from virtmgr.store.repositories.base import SqlNamedRepository, SqlRepository

_projects = tables.projects.c
_quotas = tables.quotas.c


class SqlProjects(SqlNamedRepository[Project]):
    entity = Project
    table = tables.projects
    listing = Listing(
        tie=_projects.id,
        filters={"name": _projects.name, "id": _projects.id},
        sorts={"name": _projects.name, "created_at": _projects.created_at},
        text=_projects.name,
        labels=_projects.labels,
        project=_projects.id,
    )


class SqlQuotas(SqlRepository[Quota]):
    """A quota's id is its project's."""

    entity = Quota
    table = tables.quotas
    listing = Listing(
        tie=_quotas.project_id,
        filters={"project": _quotas.project_id},
        sorts={"project": _quotas.project_id},
        project=_quotas.project_id,
        default_sort="project",
    )

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._given_back: dict[str, dict[str, float]] = {}

    def charge(self, project_id: str, amounts: Mapping[str, float]) -> None:
        unknown = set(amounts) - set(tables.QUOTA_RESOURCES)
        if unknown:
            raise InvalidRequest(f"charge a quota: no resource is called {sorted(unknown)}")
        wanted = {name: amount for name, amount in amounts.items() if amount}
        if not wanted or self._charge(project_id, wanted):
            return
        quota = self.lock(project_id)
        if quota is None:
            raise NotFound(f"charge the quota of project {project_id}: it has none")
        # Between the two statements something may have been given back; now nobody can.
        if not self._charge(project_id, wanted):
            raise _exceeded(quota, wanted)

    def check(self, project_id: str, amounts: Mapping[str, float]) -> None:
        quota = self.get(project_id)
        if quota is None:
            raise NotFound(f"charge the quota of project {project_id}: it has none")
        if _over(quota, amounts):
            raise _exceeded(quota, amounts)

    def give_back(self, project_id: str, amounts: Mapping[str, float]) -> None:
        pending = self._given_back.setdefault(project_id, {})
        for name, amount in amounts.items():
            pending[name] = pending.get(name, 0) + amount

    def flush_given_back(self) -> None:
        """Write what was given back, in the order of projects. The unit of work's part."""
        while self._given_back:
            project_id = min(self._given_back)
            amounts = self._given_back.pop(project_id)
            self.charge(project_id, {name: -amount for name, amount in amounts.items()})

    def forget_given_back(self) -> None:
        """Drop what was given back and not committed."""
        self._given_back.clear()

    def _charge(self, project_id: str, amounts: Mapping[str, float]) -> bool:
        self._session.flush()
        signs = tuple((name, amount > 0) for name, amount in sorted(amounts.items()))
        values = {"of": project_id, **{name: abs(amount) for name, amount in amounts.items()}}
        row = self._session.execute(_charged(signs), values).one_or_none()
        if row is None:
            return False
        self._take_over(project_id, dict(row._mapping))
        return True


@cache
def _charged(signs: tuple[tuple[str, bool], ...]) -> ReturningUpdate[Any]:
    """What charges these resources (True) or gives them back, by amounts bound to their names."""
    return (
        update(tables.quotas)
        .where(
            _quotas.project_id == bindparam("of"),
            *(_fits(name) for name, is_charged in signs if is_charged),
        )
        .values({f"used_{name}": _added(name, is_charged) for name, is_charged in signs})
        .returning(*(_quotas[f"used_{name}"] for name, _ in signs))
    )


def _fits(name: str) -> Any:
    limit, used = _quotas[f"limit_{name}"], _quotas[f"used_{name}"]
    return or_(limit.is_(None), used + _amount(name) <= limit)


def _added(name: str, is_charged: bool) -> Any:
    used, amount = _quotas[f"used_{name}"], _amount(name)
    return used + amount if is_charged else case((used >= amount, used - amount), else_=0)


def _amount(name: str) -> Any:
    return bindparam(name, type_=_quotas[f"used_{name}"].type)


def _over(quota: Quota, amounts: Mapping[str, float]) -> dict[str, dict[str, float]]:
    over: dict[str, dict[str, float]] = {}
    for name, asked in amounts.items():
        limit, used = getattr(quota, f"limit_{name}"), getattr(quota, f"used_{name}")
        if limit is not None and asked > 0 and used + asked > limit:
            over[name] = {"used": used, "asked": asked, "limit": limit}
    return over


def _exceeded(quota: Quota, amounts: Mapping[str, float]) -> QuotaExceeded:
    over = _over(quota, amounts)
    told = "; ".join(
        f"{name}: {written(name, it['used'])} of {written(name, it['limit'])} used, "
        f"{written(name, it['asked'])} asked"
        for name, it in over.items()
    )
    return QuotaExceeded(
        f"the project's quota would be exceeded: {told}",
        hint="delete something, ask for less, or have an operator raise the quota",
        detail={"exceeded": over, "project_id": quota.project_id},
    )
