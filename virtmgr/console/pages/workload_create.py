"""The form of new workloads: one for the three kinds, with what it comes to beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from flask import Blueprint, g, render_template, request
from werkzeug.wrappers import Response

from virtmgr.console import equivalents, workload_form
from virtmgr.console.answers import done
from virtmgr.console.formatting import amount, number
from virtmgr.console.placements import Placed, placed
from virtmgr.console.rest import Refusal
from virtmgr.console.workload_form import Fields, Wanted
from virtmgr.domain.access import Action
from virtmgr.domain.image import ImageType
from virtmgr.domain.values import parse_bytes
from virtmgr.domain.workload import Init, Kind, Resources, usual_root_disk

blueprint = Blueprint("workload_create", __name__, url_prefix="/workloads/create")

_TRIED: Final = 20  # of many: to place all at each stroke of a key would keep the server busy
_MOST: Final = 500  # of each noun to choose from
_PLACEMENT: Final = ("placement.host", "placement.require", "placement.prefer")


@dataclass(frozen=True)
class Told:
    """What is wrong with a form: as a whole, and by field. ``waits``: nothing is, as yet."""

    message: str
    hint: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    waits: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class QuotaLine:
    """One resource of a project's quota, with what the form asks for."""

    title: str
    used: float
    asked: float
    limit: float | None
    text: str
    exceeded: bool


@blueprint.get("")
def show() -> str:
    """The form, empty or begun by the address: ?image=debian&project=shop."""
    given = {name: text for name, text in request.args.items() if text}
    if g.project:
        given.setdefault("project", g.project)
    return _page(workload_form.blank(given))


@blueprint.post("")
def create() -> Response | tuple[str, int]:
    """Create what the form says."""
    fields = _fields()
    wanted = workload_form.read(fields)
    if wanted.wrong:
        return _page(fields, _unreadable(wanted)), 422
    try:
        g.rest.ask(
            "POST",
            "/projects/{project}/workloads",
            wanted.spec,
            query={"count": wanted.count},
            project=wanted.project,
        )
    except Refusal as refusal:
        if refusal.status not in (400, 403, 404, 409, 422, 507):
            raise
        return _page(fields, _told(refusal, fields)), 422
    name = wanted.spec["name"]
    if wanted.count > 1:
        return done(f"{wanted.count} workloads are being created", goto=f"/workloads?q={name}-")
    goto = f"/projects/{wanted.project}/workloads/{name}"
    return done(f"{name} is being created", goto=goto)


@blueprint.post("/fields")
def change() -> str:
    """The form after another kind, image or project was chosen, or a row came or went."""
    fields = _fields()
    if request.form.get("add"):
        fields = workload_form.with_row(fields, request.form["add"])
    if request.form.get("remove"):
        fields = workload_form.without_row(fields, request.form["remove"])
    return _page(fields)


@blueprint.get("/hosts")
def hosts() -> str:
    """The choice of a host, for those who open what is seldom needed: there may be many."""
    return render_template("workloads/_host_choice.html", hosts=_hosts(), given={}, told=None)


@blueprint.post("/preview")
def preview() -> str:
    """Where it would run, what it takes of the quota, and how to say it elsewhere."""
    fields = _fields()
    wanted = workload_form.read(fields)
    told, found = None, None
    if wanted.wrong:
        told = _unreadable(wanted)
    elif not wanted.spec["name"]:
        told = Told("Give it a name, and it is told here where it would run", waits=True)
    elif wanted.spec["kind"] == Kind.CONTAINER and not wanted.spec.get("image"):
        told = Told("Choose an image, and it is told here where it would run", waits=True)
    else:
        told, found = _try(wanted, fields)
    return render_template(
        "workloads/preview.html",
        told=told,
        placed=found,
        wanted=wanted,
        quota=_quota(wanted),
        tried=_TRIED if wanted.count > _TRIED else None,
        equivalents=_equivalents(wanted),
    )


def _equivalents(wanted: Wanted) -> Sequence[equivalents.Equivalent]:
    server = request.host_url.rstrip("/")
    return equivalents.of_creation(server, wanted.project, wanted.spec, wanted.count)


def _try(wanted: Wanted, fields: Fields) -> tuple[Told | None, Placed | None]:
    """What the API says to it, without doing it."""
    query = {"count": min(wanted.count, _TRIED), "dry_run": "true"}
    try:
        would = g.rest.ask(
            "POST",
            "/projects/{project}/workloads",
            wanted.spec,
            query=query,
            project=wanted.project,
        )["would"]
    except Refusal as refusal:
        return _told(refusal, fields), placed(refusal.problem.get("explanation"), ())
    hosts = [one["host"]["name"] for one in would["workloads"] if one["host"]]
    explanations = would["placements"] or [None]
    return None, placed(explanations[0], hosts)


def _quota(wanted: Wanted) -> Sequence[QuotaLine]:
    try:
        quota = g.rest.get("/projects/{project}/quota", project=wanted.project).document
    except Refusal:
        return ()  # told by the preview: there is no such project
    return quota_lines(quota, wanted.spec, wanted.count, _image_type(wanted.spec))


def _image_type(spec: Mapping[str, Any]) -> ImageType | None:
    """Of a VM's image: one that is a kernel has no root disk. A container's makes no difference."""
    if spec["kind"] != Kind.VM or not spec.get("image"):
        return None
    try:
        image = g.rest.get("/images/{image}", image=spec["image"]).document
    except Refusal:
        return None  # told by the preview: there is no such image
    return ImageType(image["type"]) if image["type"] else None


def quota_lines(
    quota: Mapping[str, Any],
    spec: Mapping[str, Any],
    count: int,
    image_type: ImageType | None = None,
) -> Sequence[QuotaLine]:
    """The resources that are limited, with what ``count`` such workloads take of them.

    :param image_type: of the spec's image, where it is known.
    """
    resources, usual = spec.get("resources", {}), Resources()
    init = Init(spec["init"]) if spec.get("init") else None
    each: dict[str, float] = {
        "workloads": 1,
        "vcpus": resources.get("vcpus", usual.vcpus),
        "memory": _bytes(resources.get("memory"), usual.memory),
        "disk": _bytes(spec.get("root_disk", {}).get("size"), usual_root_disk(init, image_type)),
    }
    lines = []
    for name, asked in each.items():
        limit = quota[f"limit_{name}"]
        if limit is None:
            continue
        used, taken = quota[f"used_{name}"], asked * count
        shown = amount if name in ("memory", "disk") else number
        left = max(0, limit - used)
        lines.append(
            QuotaLine(
                "vCPUs" if name == "vcpus" else name.capitalize(),
                used,
                taken,
                limit,
                f"{shown(taken)} asked, {shown(left)} left",
                used + taken > limit,
            )
        )
    return lines


def _bytes(size: Any, usual: int) -> int:
    try:
        return parse_bytes(size) if size else usual
    except ValueError:
        return 0  # the API says what is wrong with it


def _fields() -> Fields:
    """The form as it was sent."""
    own = ("csrf_token", "add", "remove")
    given = {name: text for name, text in request.form.items() if name not in own}
    return workload_form.packed(given)


def _unreadable(wanted: Wanted) -> Told:
    [first, *others] = wanted.wrong.values()
    return Told(first if not others else "Some fields cannot be read", None, wanted.wrong)


def _told(refusal: Refusal, fields: Fields) -> Told:
    wrong = dict(workload_form.form_errors(refusal.fields, fields))
    return Told(str(refusal), refusal.hint, wrong)


def _page(fields: Fields, told: Told | None = None) -> str:
    """The form with what there is to choose from: a number of requests that does not grow."""
    choice = workload_form.choice_of(fields)
    projects = _all("/projects", "name")
    may_create = partial(g.rights.allows, Action.WORKLOADS_CREATE)
    names = [one["name"] for one in projects if may_create(one["name"])]
    project = fields.get("project") or ("default" if "default" in names else (names or [""])[0])
    fields = {**fields, "project": project}
    images = _all("/images", "name,type,state,size")
    networks = _all("/networks", "name,ipv4", project=project)
    volumes = g.rest.get("/volumes", {"project": project, "limit": _MOST})["items"]
    rows = {group: workload_form.rows(fields, group) for group in workload_form.ROWS}
    is_placed = rows["affinity"] or any(fields.get(name) for name in _PLACEMENT)
    return render_template(
        "workloads/create.html",
        given=fields,
        told=told,
        choice=choice,
        usual_disk=usual_root_disk(Init(choice.init) if choice.init else None),
        kinds=workload_form.KINDS,
        unseen=workload_form.unseen(fields, choice.name),
        rows=rows,
        projects=names,
        images=[one for one in images if one["type"] in choice.image_types],
        discs=[one for one in images if one["type"] == "iso"],
        networks=[_pair(one, "ipv4") for one in networks],
        volumes=[(one["name"], _volume(one)) for one in volumes if one["workload"] is None],
        hosts=_hosts() if is_placed else None,
        clusters=[one["name"] for one in _all("/clusters", "name")],
    )


def _hosts() -> Sequence[tuple[str, str]]:
    return [_pair(one, "state") for one in _all("/hosts", "name,state")]


def _pair(item: Mapping[str, Any], about: str) -> tuple[str, str]:
    """A choice, with what is told beside its name."""
    told = item.get(about)
    return item["name"], f"{item['name']} · {told}" if told else item["name"]


def _volume(volume: Mapping[str, Any]) -> str:
    where = f" · on {volume['host']['name']}" if volume["host"] else ""
    return f"{volume['name']} · {amount(volume['size'])}{where}"


def _all(path: str, fields: str, **filters: str) -> Sequence[Mapping[str, Any]]:
    query = {"limit": _MOST, "fields": fields, **filters}
    items: Sequence[Mapping[str, Any]] = g.rest.get(path, query)["items"]
    return items
