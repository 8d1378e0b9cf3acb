"""Routes of workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from virtmgr.api.answers import Answer, Listing, Started, listing
from virtmgr.api.conventions import ListParameters, StartQuery, UsageQuery
from virtmgr.api.filters import by_id
from virtmgr.api.merge_patch import Patch
from virtmgr.api.problems import refusing_invalid
from virtmgr.api.routing import Route, change, read, start
from virtmgr.api.schemas.images import present as present_image
from virtmgr.api.schemas.usage_history import present_history
from virtmgr.api.schemas.workloads import (
    PlacementView,
    TicketView,
    UsageView,
    WorkloadView,
    presenter,
)
from virtmgr.domain.access import Action
from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.network import known_address
from virtmgr.domain.values import Value
from virtmgr.domain.workload import (
    AbsolutePath,
    Init,
    Kind,
    NicSpec,
    State,
    VolumeMount,
    WorkloadSpec,
)
from virtmgr.services import (
    cloning,
    images,
    publishing,
    streams,
    usage_history,
    workload_changes,
    workloads,
)
from virtmgr.services.cloning import CloneFields
from virtmgr.services.context import Context
from virtmgr.services.images import ImageFields
from virtmgr.services.workloads import Changed


class WorkloadParameters(ListParameters):
    """Filters of lists of workloads."""

    kind: list[Kind] | None = Field(
        None, max_length=16, description="vm or container; repeat it for several."
    )
    init: list[Init] | None = Field(
        None, max_length=16, description="system or app; repeat it for several."
    )
    state: list[State] | None = Field(
        None, max_length=16, description="Observed state; repeat it for several."
    )
    host: str | None = Field(None, max_length=128, description="Host, by name or id.")
    image: str | None = Field(None, max_length=128, description="Image, by name or id.")
    cdrom: str | None = Field(None, max_length=128, description="CD image, by name or id.")
    cluster: str | None = Field(None, max_length=128, description="Cluster, by name or id.")
    network: str | None = Field(None, max_length=64, description="Id of a network it has a NIC on.")
    address: Annotated[str, AfterValidator(known_address)] | None = Field(
        None, max_length=64, description="IP address or MAC of one of its NICs, the whole of it."
    )
    moving: bool | None = Field(None, description="Whether it is on its way to another host.")


class AllWorkloadsParameters(WorkloadParameters):
    """Filters of the list over all projects."""

    project: str | None = Field(None, max_length=128, description="Project, by name or id.")


class CreateQuery(StartQuery):
    """How many to create."""

    count: int = Field(
        1, ge=1, le=workloads.MOST_AT_ONCE, description="Create NAME-1 … NAME-N as one batch."
    )


class StopBody(Value):
    """How to stop."""

    timeout: int | None = Field(
        None, ge=0, le=3600, description="Seconds before it is forced. Default: stop_timeout."
    )
    force: bool = Field(False, description="Do not ask the workload; end it at once.")


class RestartBody(Value):
    """How to restart."""

    force: bool = Field(False, description="Do not ask the workload; end it at once.")


class LogStreamBody(Value):
    """Which output."""

    tail: int | None = Field(None, ge=0, le=1_000_000, description="Begin with the last lines.")


class ExecBody(Value):
    """A command to run in a workload."""

    command: tuple[str, ...] = Field(min_length=1, max_length=1024)
    tty: bool = Field(False, description="Give it a terminal.")
    stdin: bool = Field(False, description="Keep its standard input open.")
    env: dict[str, str] = Field(default_factory=dict, max_length=256)
    workdir: AbsolutePath | None = None
    user: str | None = Field(None, max_length=256, description="user[:group]")
    rows: int = Field(24, ge=1, le=10000)
    columns: int = Field(80, ge=1, le=10000)


# ---- reading


def list_all(context: Context, *, query: AllWorkloadsParameters) -> Answer[Listing[WorkloadView]]:
    """Workloads of all projects that may be seen"""
    return _list(context, query, context.visible)


def list_of_project(
    context: Context, *, query: WorkloadParameters
) -> Answer[Listing[WorkloadView]]:
    """Workloads of a project"""
    return _list(context, query, frozenset({context.own_project.id}))


def show(context: Context, *, workload: str) -> Answer[WorkloadView]:
    """One workload"""
    found = workloads.find(context, workload)
    return Answer(presenter(context.uow, [found])(found), found.version)


def show_usage(context: Context, query: UsageQuery, *, workload: str) -> Answer[UsageView]:
    """What a workload uses, and has used: CPU, memory, disk, network"""
    found = workloads.find(context, workload)
    history = None
    if query.since is not None:
        history = present_history(usage_history.of_workload(context, found, query.since))
    return Answer(UsageView(usage=found.status.usage, history=history))


def show_placement(context: Context, *, workload: str) -> Answer[PlacementView]:
    """Why a workload runs on its host, and not on another"""
    found = workloads.find(context, workload)
    host = presenter(context.uow, [])(found).host
    return Answer(PlacementView(host=host, explanation=context.uow.workloads.explanation(found.id)))


def _list(
    context: Context, query: WorkloadParameters, project_ids: frozenset[str] | None
) -> Answer[Listing[WorkloadView]]:
    asked = query.query(project_ids=project_ids, **by_id(context.uow, query))
    page = context.uow.workloads.list(asked)
    return listing(page, presenter(context.uow, page.items))


# ---- changing


def create(context: Context, *, body: WorkloadSpec, query: CreateQuery) -> Started:
    """Create workloads: checked, placed and claimed at once, started by their hosts"""
    return _made(context, workloads.create(context, body, query.count), query)


def clone(context: Context, *, workload: str, body: CloneFields, query: CreateQuery) -> Started:
    """Clone a stopped workload: the same spec and a copy of its disks, on its host"""
    found = workloads.lock(context, workload)
    with refusing_invalid():
        return _made(context, cloning.clone(context, found, body, query.count), query)


def publish(context: Context, *, workload: str, body: ImageFields) -> Started:
    """Make an image from a stopped workload: what it started from, and its disk as it is now"""
    operation = publishing.publish(context, workloads.lock(context, workload), body)

    def would() -> dict[str, Any]:
        image = images.find(context, operation.target_id)
        return {"image": present_image(image).model_dump(mode="json")}

    return Started([operation], would=would)


def _made(context: Context, changed: Sequence[Changed], query: CreateQuery) -> Started:
    def would() -> Mapping[str, Any]:
        present = presenter(context.uow, [one.workload for one in changed])
        return {
            "workloads": [present(one.workload).model_dump(mode="json") for one in changed],
            "placements": [one.decision.explanation.to_json() for one in changed if one.decision],
        }

    return Started([one.operation for one in changed], many=query.count > 1, would=would)


def patch(context: Context, *, workload: str, patch: Patch[WorkloadSpec]) -> Started:
    """Change a workload's spec (JSON merge patch)"""
    found = workloads.lock(context, workload)
    with refusing_invalid():
        spec = patch.apply(found.spec)
    return _started(context, workload_changes.update(context, found, spec))


def delete(context: Context, *, workload: str) -> Started:
    """Delete a workload, running or not; its volumes stay"""
    return _started(context, workloads.delete(context, workloads.lock(context, workload)))


def power_on(context: Context, *, workload: str) -> Started:
    """Start a workload"""
    return _power(context, workload, "start")


def stop(context: Context, *, workload: str, body: StopBody) -> Started:
    """Stop a workload: gracefully, and by force after a time"""
    return _power(context, workload, "stop", force=body.force, timeout=body.timeout)


def restart(context: Context, *, workload: str, body: RestartBody) -> Started:
    """Stop a workload and start it again"""
    return _power(context, workload, "restart", force=body.force)


def pause(context: Context, *, workload: str) -> Started:
    """Freeze a workload where it is"""
    return _power(context, workload, "pause")


def resume(context: Context, *, workload: str) -> Started:
    """Let a paused workload go on"""
    return _power(context, workload, "resume")


def attach_volume(context: Context, *, workload: str, body: VolumeMount) -> Started:
    """Attach a volume, live where the driver can"""
    found = workloads.lock(context, workload)
    with refusing_invalid():
        return _started(context, workload_changes.attach_volume(context, found, body))


def detach_volume(context: Context, *, workload: str, volume: str) -> Started:
    """Detach a volume; its data stays"""
    found = workloads.lock(context, workload)
    return _started(context, workload_changes.detach_volume(context, found, volume))


def attach_nic(context: Context, *, workload: str, body: NicSpec) -> Started:
    """Attach a NIC, live where the driver can"""
    found = workloads.lock(context, workload)
    with refusing_invalid():
        return _started(context, workload_changes.attach_nic(context, found, body))


def detach_nic(context: Context, *, workload: str, index: str) -> Started:
    """Detach a NIC"""
    if not index.isdecimal():
        raise InvalidRequest("a NIC is named by its index: 0 for eth0", field="index")
    found = workloads.lock(context, workload)
    return _started(context, workload_changes.detach_nic(context, found, int(index)))


# ---- streams


def execute(context: Context, *, workload: str, body: ExecBody) -> Answer[TicketView]:
    """Run a command in a workload: answers where to open the stream"""
    return _ticket(context, workload, "exec", body.model_dump(mode="json"))


def console(context: Context, *, workload: str) -> Answer[TicketView]:
    """Open the serial console or terminal: answers where to open the stream"""
    return _ticket(context, workload, "console", {})


def vnc(context: Context, *, workload: str) -> Answer[TicketView]:
    """Open the graphical console (RFB): answers where to open the stream"""
    return _ticket(context, workload, "vnc", {})


def follow_logs(context: Context, *, workload: str, body: LogStreamBody) -> Answer[TicketView]:
    """Follow a workload's output: answers where to open the stream"""
    return _ticket(context, workload, "logs", {"follow": True, "tail": body.tail})


def _ticket(
    context: Context,
    workload: str,
    action: Literal["exec", "console", "vnc", "logs"],
    parameters: dict[str, Any],
) -> Answer[TicketView]:
    found = workloads.find(context, workload)
    ticket = streams.issue(context, found, action, parameters)
    return Answer(TicketView(url=ticket.url, expires_at=ticket.expires_at))


def _power(
    context: Context,
    workload: str,
    verb: str,
    *,
    force: bool = False,
    timeout: int | None = None,
) -> Started:
    found = workloads.lock(context, workload)
    return _started(
        context, workloads.set_power(context, found, verb, force=force, timeout=timeout)
    )


def _started(context: Context, changed: Changed) -> Started:
    def would() -> Mapping[str, Any]:
        view = presenter(context.uow, [changed.workload])(changed.workload)
        return {"workload": view.model_dump(mode="json")}

    return Started([changed.operation], would=would)


_ALL = "/projects/{project}/workloads"
_ONE = _ALL + "/{workload}"

ROUTES: tuple[Route, ...] = (
    read("/workloads", list_all, Action.WORKLOADS_VIEW),
    read(_ALL, list_of_project, Action.WORKLOADS_VIEW),
    start("POST", _ALL, create, Action.WORKLOADS_CREATE),
    read(_ONE, show, Action.WORKLOADS_VIEW),
    start("PATCH", _ONE, patch, Action.WORKLOADS_UPDATE),
    start("DELETE", _ONE, delete, Action.WORKLOADS_DELETE),
    start("POST", _ONE + "/start", power_on, Action.WORKLOADS_POWER),
    start("POST", _ONE + "/stop", stop, Action.WORKLOADS_POWER),
    start("POST", _ONE + "/restart", restart, Action.WORKLOADS_POWER),
    start("POST", _ONE + "/pause", pause, Action.WORKLOADS_POWER),
    start("POST", _ONE + "/resume", resume, Action.WORKLOADS_POWER),
    start("POST", _ONE + "/clone", clone, Action.WORKLOADS_CREATE),
    start("POST", _ONE + "/publish", publish, Action.IMAGES_CREATE),
    start("POST", _ONE + "/volumes", attach_volume, Action.WORKLOADS_UPDATE),
    start("DELETE", _ONE + "/volumes/{volume}", detach_volume, Action.WORKLOADS_UPDATE),
    start("POST", _ONE + "/nics", attach_nic, Action.WORKLOADS_UPDATE),
    start("DELETE", _ONE + "/nics/{index}", detach_nic, Action.WORKLOADS_UPDATE),
    read(_ONE + "/usage", show_usage, Action.WORKLOADS_VIEW),
    read(_ONE + "/placement", show_placement, Action.WORKLOADS_VIEW),
    change("POST", _ONE + "/exec", execute, Action.WORKLOADS_EXEC),
    change("POST", _ONE + "/console", console, Action.WORKLOADS_CONSOLE),
    change("POST", _ONE + "/vnc", vnc, Action.WORKLOADS_VNC),
    change("POST", _ONE + "/logs", follow_logs, Action.WORKLOADS_LOGS),
)
