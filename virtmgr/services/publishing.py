"""Publishing: an image made from a stopped workload.

Its host sends what the workload has on its own disk (``exports``); the image worker imports that
like any file that nobody vouches for, and adds it to what the workload started from. Until the
image is made, the workload can be neither started, changed nor deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from virtmgr.domain.access import Action
from virtmgr.domain.errors import Conflict
from virtmgr.domain.ids import new_id
from virtmgr.domain.operation import Operation
from virtmgr.domain.states import check_at_rest
from virtmgr.domain.workload import Kind, Workload
from virtmgr.ports.driver import Feature
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import features, images
from virtmgr.services.being_moved import refuse_while_moved
from virtmgr.services.context import Context
from virtmgr.services.images import ImageFields

VERB = "publish"


def publish(context: Context, workload: Workload, fields: ImageFields) -> Operation:
    """An image that the worker is to make from a locked workload.

    :raises Forbidden: files of the workload may not be read.
    :raises IllegalTransition: it is not stopped.
    :raises Unsupported: its host's driver does not publish.
    :raises Conflict: it has no disk of its own.
    :raises NameTaken: another image has the name or alias.
    """
    context.require(Action.WORKLOADS_FILES, workload.project_id, f"workload {workload.name!r}")
    refuse_while_moved(context.uow, workload, VERB)
    check_at_rest(VERB, workload.status.state, workload.spec, workload.deleting)
    features.require(context.uow, workload, Feature.PUBLISH)
    base = context.uow.images.get(workload.image_id) if workload.image_id is not None else None
    if workload.kind is Kind.VM and not workload.spec.root_disk_size(base.type if base else None):
        raise Conflict(
            f"cannot publish VM {workload.name!r}: it has no disk of its own",
            code="nothing_to_publish",
            hint=f"use its image {base.name if base else ''} itself",
        )
    source = f"publish:{context.own_project.name}/{workload.name}"
    parameters = {"workload": workload.id, "upload": new_id()}
    operation = images.begin(context, fields, source, VERB, parameters)
    context.record(
        "workload.published",
        workload,
        f"image {fields.name} is made from it",
        operation_id=operation.id,
        host_id=workload.host_id,
    )
    return operation


def images_in_making(uow: UnitOfWork, workload_id: str) -> Sequence[str]:
    """Names of the images that are being made from a workload."""
    return [
        operation.target_name
        for operation in uow.operations.open_by(VERB)
        if operation.parameters.get("workload") == workload_id
    ]
