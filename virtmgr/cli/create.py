"""``create`` and ``run``: make workloads from options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from virtmgr.cli.command import (
    command,
    dry_run_option,
    io_options,
    label_option,
    output_option,
    pairs,
    project_option,
    wait_options,
)
from virtmgr.cli.session import Session, pass_session
from virtmgr.cli.spec import IO_FIELDS, build
from virtmgr.domain.errors import InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])

_RESOURCES = ("vcpus", "memory", "pids")
_PLACEMENT = ("cluster", "host", "require", "prefer", "spread_by")
_FIELDS = (
    *("kind", "init", "image", "description", "labels", "command", "env", "workdir", "user"),
    *("user_data", "firmware", "boot", "cdrom", "vnc", "restart", "stop_timeout"),
    *("protected", "state"),
)

_HA = (
    "Start it on another host when its own is lost, with a root disk made from the image anew: "
    "what was written to it is lost."
)
_HA_NOTE = (
    "when its host is lost it starts elsewhere from its image anew, without what it wrote to its "
    "root disk; see docs/ha.md"
)
_OPTIONS = (
    click.option("--init", type=click.Choice(["system", "app"]), help="Default: as the image."),
    click.option("--description", help="Free text for people."),
    click.option("--vcpus", type=float, help="Virtual CPUs; containers may take 0.5. Default 1."),
    click.option("--memory", "-m", metavar="SIZE", help="Such as 2GiB. Default 512MiB."),
    click.option("--pids", type=int, help="Containers: most processes at a time."),
    io_options,
    click.option("--disk", metavar="SIZE", help="Size of the root disk."),
    click.option(
        "--network",
        "networks",
        multiple=True,
        metavar="NETWORK[:ADDRESS]",
        help="May be repeated; none for no network. Default: default.",
    ),
    click.option(
        "--port",
        "ports",
        multiple=True,
        metavar="[ADDRESS:]HOST:GUEST[/udp]",
        help="Publish a port, on loopback unless an address is given; may be repeated.",
    ),
    click.option(
        "--volume",
        "volumes",
        multiple=True,
        metavar="VOLUME[:PATH[:ro]]",
        help="Attach a volume, in containers at PATH; may be repeated.",
    ),
    click.option(
        "--env",
        "-e",
        multiple=True,
        metavar="KEY=VALUE",
        callback=pairs,
        help="Containers: an environment variable; may be repeated.",
    ),
    click.option(
        "--env-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Containers: a file of KEY=VALUE lines. Secrets do not show in 'ps' this way.",
    ),
    label_option,
    click.option("--workdir", help="App containers: directory to start in."),
    click.option("--user", help="App containers: user[:group]."),
    click.option(
        "--user-data",
        "user_data_file",
        type=click.File(encoding="utf-8"),
        metavar="FILE",
        help="VMs and system containers: cloud-init user data; - for standard input.",
    ),
    click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="VMs."),
    click.option(
        "--boot",
        multiple=True,
        type=click.Choice(["disk", "cdrom", "network"]),
        help="VMs: boot order; repeat it for the next device.",
    ),
    click.option("--cdrom", metavar="IMAGE", help="VMs: an ISO image."),
    click.option("--vnc/--no-vnc", default=None, help="VMs: a graphical console or none."),
    click.option("--restart", type=click.Choice(["never", "on-failure", "always"])),
    click.option("--stop-timeout", type=int, metavar="SECONDS"),
    click.option("--protected", is_flag=True, help="Refuse stop and delete."),
    click.option("--ha", is_flag=True, help=_HA),
    click.option(
        "--ha-priority", type=int, metavar="N", help="With --ha: greater numbers first. Default 0."
    ),
    click.option("--stopped", is_flag=True, help="Make it, do not start it."),
    click.option("--cluster", help="Cluster to run in."),
    click.option("--host", help="Only this host."),
    click.option(
        "--require", multiple=True, metavar="KEY=VALUE", callback=pairs, help="Host labels needed."
    ),
    click.option(
        "--prefer", multiple=True, metavar="KEY=VALUE", callback=pairs, help="Host labels liked."
    ),
    click.option("--spread-by", type=click.Choice(["host", "rack", "zone"])),
    click.option("--count", type=click.IntRange(1, 1000), help="Make so many: NAME-1, NAME-2, …"),
    wait_options,
    dry_run_option,
    project_option,
    output_option,
)


def _spec_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command("create")
@click.argument("name")
@click.argument("command", nargs=-1)
@click.option(
    "--kind", "-k", type=click.Choice(["vm", "container"]), default="container", show_default=True
)
@click.option("--image", "-i", help="Image by name, alias or id.")
@_spec_options
@pass_session
def create(session: Session, **options: Any) -> None:
    """Make the workload NAME; what follows ``--`` is an app container's command.

    \b
    virtmgr create web1 --image nginx --port 8080:80
    virtmgr create db1 --kind vm --image debian --vcpus 2 --memory 4GiB --user-data db.yaml
    virtmgr create job1 --image busybox -- sh -c 'echo done'
    """
    _create(session, options)


@command("run")
@click.argument("image")
@click.argument("command", nargs=-1)
@click.option("--name", help="Default: from the image's name.")
@_spec_options
@pass_session
def run(session: Session, image: str, name: str | None, **options: Any) -> None:
    """Make an app container from IMAGE and start it.

    \b
    virtmgr run nginx --name web1 --port 8080:80
    virtmgr run busybox -- sleep 3600
    """
    init = options["init"] or "app"
    name = name or name_from_image(image)
    _create(session, {**options, "image": image, "name": name, "kind": "container", "init": init})


def name_from_image(image: str) -> str:
    """A workload name after an image, with a few random letters that make it unique."""
    import re
    import secrets

    base = re.sub(r"[^a-z0-9-]+", "-", image.rpartition("/")[2].partition(":")[0]).strip("-")
    return f"{base[:50] or 'workload'}-{secrets.token_hex(3)}"


def _create(session: Session, options: dict[str, Any]) -> None:
    from virtmgr.cli.waiting import settle

    if options["env_file"]:
        options["env"] = {**read_env_file(options["env_file"]), **options["env"]}
    if options["user_data_file"]:
        options["user_data"] = options["user_data_file"].read()
    if options["stopped"]:
        options["state"] = "stopped"
    if options["vcpus"] is not None and options["vcpus"].is_integer():
        options["vcpus"] = int(options["vcpus"])
    spec = build(
        name=options["name"],
        options=_fields(options, _FIELDS),
        resources=_fields(options, _RESOURCES),
        io=_fields(options, IO_FIELDS),
        placement=_fields(options, _PLACEMENT),
        disk=options["disk"],
        networks=options["networks"],
        volumes=options["volumes"],
        ports=options["ports"],
    )
    if options["vnc"] is False:
        spec["vnc"] = False
    if options["ha"]:
        spec["ha"] = {"enabled": True, **_given(priority=options["ha_priority"])}
    elif options["ha_priority"] is not None:
        raise click.UsageError("--ha-priority goes with --ha")
    if options["ha"]:
        click.echo(f"note: {_HA_NOTE}", err=True)
    query = {"count": options["count"], "dry_run": options["dry_run"] or None}
    answer = session.client.post(session.path("workloads"), spec, query)
    settle(session, answer, wait=options["wait"], timeout=options["timeout"])


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _fields(options: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: options.get(name) for name in names}


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=VALUE lines; empty lines and those that begin with ``#`` are left out.

    :raises InvalidRequest: a line is of another form.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f"{path}, line {number}: write KEY=VALUE", field="env")
        found[key.strip()] = value
    return found
