"""Parts that several resources show: references, labels, times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.domain.workload import Reason
from virtmgr.ports.unit_of_work import Repository


class ReferenceView(View):
    """Another resource."""

    id: str
    name: str


class TargetView(View):
    """What an operation or event is about."""

    type: str = Field(description="workload, image, volume, …")
    id: str
    name: str


class WhyNotView(View):
    """Why something is not done."""

    code: str
    message: str
    hint: str | None


def why_not_view(reason: Reason) -> WhyNotView:
    return WhyNotView(code=reason.code, message=reason.message, hint=reason.hint)


class Referrer:
    """Shows ids as references; each resource is looked up once, however often it occurs.

    :param ids: what will be asked for, as far as it is known: one query finds them all.
    :param names: those that are known already, by id.
    """

    def __init__(
        self,
        repository: Repository[Any],
        ids: Iterable[str | None] = (),
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._get = repository.get
        already = {id: ReferenceView(id=id, name=name) for id, name in (names or {}).items()}
        wanted = {id for id in ids if id is not None} - already.keys()
        named = repository.called(wanted) if wanted else {}
        self._known: dict[str, ReferenceView | None] = {
            id: ReferenceView(id=id, name=named[id]) if id in named else None for id in wanted
        }
        self._known |= already

    def __call__(self, id: str | None) -> ReferenceView | None:
        if id is None:
            return None
        if id not in self._known:
            found = self._get(id)
            self._known[id] = None if found is None else ReferenceView(id=id, name=found.name)
        return self._known[id]

    def known(self, id: str) -> ReferenceView:
        """The same where a foreign key says that it is there."""
        return self(id) or ReferenceView(id=id, name="")
