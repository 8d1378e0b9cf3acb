"""The ORM session of a unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from virtmgr.domain.errors import Conflict
from virtmgr.store.versions import bump_versions


class InventorySession(Session):
    """Keeps entities readable after commit, bumps versions, and speaks the domain's errors."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"expire_on_commit": False, **options})

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Write pending changes.

        :raises Conflict: a row was changed or deleted by somebody else meanwhile.
        """
        try:
            super().flush(objects)
        except StaleDataError as error:
            raise Conflict(
                "save the change: what it changes was deleted meanwhile",
                code="changed_meanwhile",
                hint="read it again, then repeat the request",
            ) from error


event.listen(InventorySession, "before_flush", bump_versions)
