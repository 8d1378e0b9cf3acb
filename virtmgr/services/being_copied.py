"""Leaving workloads alone whose disks are being read: for clones, and for images."""

from __future__ import annotations

from collections.abc import Sequence

from virtmgr.domain.states import check_not_copied, check_not_published
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.being_moved import refuse_while_moved

PUBLISH = "publish"


def refuse_while_copied(uow: UnitOfWork, workload: Workload, verb: str) -> None:
    """Its disks are read to the end first.

    :raises IllegalTransition: clones of it, or images from it, are not made yet, or it is on its
        way to another host.
    """
    refuse_while_published(uow, workload, verb)
    copies = uow.workloads.copies_of(workload.id)
    check_not_copied(verb, workload.name, [copy.name for copy in copies])


def refuse_while_published(uow: UnitOfWork, workload: Workload, verb: str) -> None:
    """For what other clones of it do not hinder.

    :raises IllegalTransition: images from it are not made yet, or it is on its way to another host.
    """
    refuse_while_moved(uow, workload, verb)
    check_not_published(verb, workload.name, _images_in_making(uow, workload.id))


def _images_in_making(uow: UnitOfWork, workload_id: str) -> Sequence[str]:
    """Names of the images that are being made from a workload."""
    return [
        operation.target_name
        for operation in uow.operations.open_by(PUBLISH)
        if operation.parameters.get("workload") == workload_id
    ]
