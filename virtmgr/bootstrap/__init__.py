"""The one place that wires adapters to ports, and what the command line runs.

    init, upgrade_database, current_revision    set the control plane up
    back_up, restore, convert_database          keep it, and move it
    serve                                       run it: web, hub and worker processes
    agent                                       run a host's agent
    join_host, renew_host                       enrol a host, renew its certificate
    stop_host, clean_host                       stop a host's workloads, remove every trace
    wheelhouse, collection                      what Ansible needs to enrol hosts
    prepare_simulation, run_simulation          a simulated fleet

Each function imports what it needs when it is called: the command line starts fast, and each
process loads only its own part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtmgr.config.settings import AgentSettings, BackedUp, Initialised, ServerSettings

if TYPE_CHECKING:
    from virtmgr.sim.behaviour import Behaviour
    from virtmgr.sim.fleet import Course


def init(settings: ServerSettings) -> Initialised:
    """Set up database, private CA, first administrator, default project, cluster and network."""
    from virtmgr.bootstrap import logs
    from virtmgr.bootstrap.setup import initialise

    logs.configure("init")
    return initialise(settings)


def serve(settings: ServerSettings) -> None:
    """Run the control plane in the foreground until SIGTERM or SIGINT."""
    _do_without_rich()
    from virtmgr.bootstrap.processes import leave
    from virtmgr.bootstrap.supervisor import supervise

    supervise(settings)
    leave()


def agent(settings: AgentSettings) -> None:
    """Run this host's agent in the foreground until SIGTERM or SIGINT."""
    _do_without_rich()
    from virtmgr.bootstrap.agent import run_agent
    from virtmgr.bootstrap.processes import leave

    run_agent(settings)
    leave()


def upgrade_database(settings: ServerSettings) -> None:
    """Bring the database to this version's schema."""
    from virtmgr.bootstrap import logs
    from virtmgr.store.migrate import upgrade

    logs.configure("db-upgrade")
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.database)


def current_revision(settings: ServerSettings) -> str | None:
    """The schema revision that the database has; None: it is empty."""
    from virtmgr.store.migrate import current_revision as current

    return current(settings.database)


def join_host(settings: AgentSettings) -> str:
    """Enrol this host by its join token, unless it is enrolled; its id."""
    from virtmgr.bootstrap.agent import join_control_plane

    return join_control_plane(settings)


def renew_host(settings: AgentSettings) -> None:
    """Get this host a fresh certificate now."""
    from virtmgr.bootstrap.agent import renew_certificate

    renew_certificate(settings)


def back_up(settings: ServerSettings, path: Path, *, images: bool, replace: bool) -> BackedUp:
    """Write the whole control plane into one private file, while it runs."""
    from virtmgr.bootstrap import backup

    return backup.back_up(settings, path, images=images, replace=replace)


def restore(settings: ServerSettings, path: Path, *, replace: bool) -> BackedUp:
    """Make the control plane what a backup holds."""
    from virtmgr.bootstrap import backup, logs

    logs.configure("restore")
    return backup.restore(settings, path, replace=replace)


def convert_database(settings: ServerSettings, target: str) -> list[tuple[str, int, str]]:
    """Copy the database into another, empty one; each table's name, rows and checksum in both."""
    from virtmgr.bootstrap import logs
    from virtmgr.store.transfer import convert

    logs.configure("db-convert")
    return [(one.table, one.rows, one.sha256) for one in convert(settings.database, target)]


def stop_host(settings: AgentSettings) -> None:
    """Stop every workload on this host and take its networks down; data stays."""
    from virtmgr.bootstrap.agent import stop_everything

    stop_everything(settings)


def clean_host(settings: AgentSettings) -> None:
    """Remove every workload, network, mount and file of virtmgr's agent from this host."""
    from virtmgr.bootstrap.agent import remove_everything

    remove_everything(settings)


def wheelhouse(directory: Path, pythons: Sequence[str], progress: Callable[[str], None]) -> str:
    """Make what hosts install their agent from; the release that it is."""
    from virtmgr.enrollment.wheelhouse import PYTHONS, make_wheelhouse

    return make_wheelhouse(directory, pythons or PYTHONS, progress)


def collection(directory: Path) -> Path:
    """Put the Ansible collection below one of Ansible's collections paths; where it is."""
    from virtmgr.enrollment.collection import install_collection

    return install_collection(directory)


def prepare_simulation(
    settings: ServerSettings,
    directory: Path,
    count: int,
    cluster: str,
    prefix: str,
    tell: Callable[[str], None],
) -> None:
    """Enrol simulated hosts, and keep their keys and certificates in a new directory."""
    from virtmgr.bootstrap.simulation import prepare

    prepare(settings, directory, count, cluster, prefix, tell)


def run_simulation(
    directory: Path,
    *,
    server: str | None,
    count: int | None,
    behaviour: Behaviour,
    course: Course,
    tell: Callable[[str], None],
) -> None:
    """Run a simulated fleet in the foreground until its end, SIGTERM or SIGINT."""
    from virtmgr.bootstrap.processes import leave
    from virtmgr.bootstrap.simulation import run

    run(directory, server=server, count=count, behaviour=behaviour, course=course, tell=tell)
    leave()


def _do_without_rich() -> None:
    """This process has no terminal to draw on. structlog would load it where it is: 5 MB."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
