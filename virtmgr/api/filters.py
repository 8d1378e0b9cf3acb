"""Filters that name other resources by name or id, as the ids that the inventory wants."""

from __future__ import annotations

from typing import Any

from virtmgr.api.conventions import ListParameters
from virtmgr.ports.unit_of_work import UnitOfWork


def by_id(uow: UnitOfWork, query: ListParameters) -> dict[str, Any]:
    """The given filters by id: ``cdrom``, ``cluster``, ``host``, ``image``, ``project``, ``user``.

    What does not exist matches nothing.
    """
    finders = {
        "cdrom": uow.images.find,
        "cluster": uow.clusters.find,
        "host": uow.hosts.find,
        "image": uow.images.find,
        "project": uow.projects.find,
        "user": uow.users.find,
    }
    replaced: dict[str, Any] = {}
    for name, reference in query.filters().items():
        if name in finders:
            found = finders[name](reference)
            replaced[name] = () if found is None else found.id
    return replaced
