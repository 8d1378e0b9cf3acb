"""Parts that several resources show: references, labels, times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from virtmgr.api.answers import View


class ReferenceView(View):
    """Another resource."""

    id: str
    name: str


class TargetView(View):
    """What an operation or event is about."""

    type: str = Field(description="workload, image, volume, …")
    id: str
    name: str


class Referrer:
    """Shows ids as references; each resource is looked up once, however often it occurs."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get
        self._known: dict[str, ReferenceView | None] = {}

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
