"""The worker process: makes images, installs hosts, notices silent hosts, removes what is stale.

python -m virtmgr.bootstrap.worker    (``virtmgr serve`` forks its own)
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import structlog

from virtmgr.api.dialling import WebSocketDialler
from virtmgr.bootstrap import logs
from virtmgr.bootstrap.certificate import OwnCertificate
from virtmgr.bootstrap.control_plane import build_services, playbooks, server_certificate
from virtmgr.bootstrap.processes import run_alone
from virtmgr.config.settings import ServerSettings
from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.leases import USUAL, LeaseWatch
from virtmgr.domain.rebalancing.rounds import ROUND
from virtmgr.domain.registry import Mirror
from virtmgr.drivers.fence.control import FenceControl
from virtmgr.drivers.solver import cp_sat
from virtmgr.images.blobs import BlobStore
from virtmgr.images.builder import Builder
from virtmgr.images.importer import Importer, Registries
from virtmgr.services import failover, rebalancing_worker
from virtmgr.services.authorities import advance
from virtmgr.services.container import Services
from virtmgr.services.fence_worker import FenceWorker
from virtmgr.services.host_removal import forget_silent
from virtmgr.services.image_worker import (
    MADE_HERE,
    MADE_WITH_HOSTS,
    ImageWorker,
    remove_failed,
    remove_leftovers,
)
from virtmgr.services.installation_worker import InstallationWorker
from virtmgr.services.leadership import Leader
from virtmgr.services.migration_worker import MigrationWorker
from virtmgr.services.silence import mark_unreachable
from virtmgr.services.usage_history import forget_old

_LEASES = 1.0  # seconds between looks at the hosts' leases
_STALE = 600.0  # seconds between removals of used tickets and old idempotency keys
_FENCES = 2  # hosts whose power is cut at a time, by each worker process
_CERTIFICATE = 10.0  # seconds between looks whether our own certificate is to be another one
_MOVES = 3  # workloads that are moved at a time, by each worker process
_REBALANCINGS = 1.0  # seconds between looks whether further moves may begin
_IDEMPOTENCY_LIFE = timedelta(hours=24)

_log = structlog.get_logger()


def serve(settings: ServerSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    logs.configure("worker")
    certificate = OwnCertificate(settings)
    services = replace(
        build_services(settings, dial=WebSocketDialler(certificate.for_agents())),
        power=FenceControl(),
        rebalancing_solver=cp_sat.installed(),  # not where requests wait for it
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = BlobStore(settings.shared / "images")
    registries = Registries(
        mirrors=Mirror.parse_all(settings.registry_mirrors),
        credentials=settings.shared / "registry-auth.json",
    )
    importer = Importer(store=store, registries=registries)
    cache = settings.build_cache or settings.data_directory / "cache"
    builder = Builder(store=store, cache=cache)
    leader = Leader(services)
    stale = partial(remove_stale, services)
    leases = partial(watch_leases, services, leader, LeaseWatch())
    workers = _workers(services, settings, importer, builder) | {"leadership": leader.run}
    loops = [
        *(threading.Thread(target=run, args=(stop,), name=name) for name, run in workers.items()),
        _led(leader, "leases", _LEASES, stop, leases),
        _led(leader, "stale", _STALE, stop, stale),
        _led(
            leader,
            "rebalancing",
            _REBALANCINGS,
            stop,
            partial(rebalancing_worker.advance, services),
        ),
        _led(leader, "balance", ROUND, stop, partial(rebalancing_worker.look, services)),
        _led(leader, "authority", _LEASES, stop, partial(advance, services)),
        threading.Thread(
            target=_every,
            args=(_CERTIFICATE, stop, lambda: _renew_certificate(settings, certificate)),
            name="certificate",
        ),
    ]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()


def _workers(
    services: Services, settings: ServerSettings, importer: Importer, builder: Builder
) -> dict[str, Callable[[threading.Event], None]]:
    """What each control plane does its share of, by the name of its thread."""
    return {
        **{
            f"images-{verbs[0]}": ImageWorker(services, importer, builder, verbs).run
            for verbs in (MADE_HERE, MADE_WITH_HOSTS)
        },
        "installations": InstallationWorker(services, playbooks(settings)).run,
        **{f"migrations-{number}": MigrationWorker(services).run for number in range(_MOVES)},
        **{f"fencing-{number}": FenceWorker(services).run for number in range(_FENCES)},
    }


def _renew_certificate(settings: ServerSettings, certificate: OwnCertificate) -> None:
    server_certificate(settings)
    certificate.take_up()


def _led(
    leader: Leader, name: str, seconds: float, stop: threading.Event, work: Callable[[], object]
) -> threading.Thread:
    """A job that one of all control planes does."""
    return threading.Thread(
        target=leader.every, args=(seconds, stop, work), kwargs={"name": name}, name=name
    )


def watch_leases(services: Services, leader: Leader, watch: LeaseWatch) -> None:
    """See which hosts have fallen silent, and restart elsewhere what may be.

    While the control plane was away no host could renew its lease: first they may do so.
    """
    begun = time.monotonic()
    with services.units(read_only=True) as uow:
        leases = uow.hosts.leases()
    seen = watch.look(leases, begun, time.monotonic())
    if leader.settled(USUAL.total_seconds()):
        mark_unreachable(services, seen)
        failover.look(services, seen)
        forget_silent(services)


def remove_stale(services: Services) -> None:
    """Drop what means nothing any more: tickets, idempotency keys, uploads, failed images, old
    usage."""
    remove_leftovers(services)
    remove_failed(services)
    now = services.clock.now()
    with services.units() as uow:
        uow.tickets.purge(now)
        uow.idempotency.purge(now - _IDEMPOTENCY_LIFE)
        uow.commit()
    forget_old(services)


def _every(seconds: float, stop: threading.Event, work: Callable[[], object]) -> None:
    while not stop.wait(seconds):
        try:
            work()
        except VirtmgrError as error:
            _log.warning("worker.failed", error=error.message)
        except Exception:  # noqa: BLE001  a thread's last resort: logged, and tried again
            _log.exception("worker.crashed")


def main() -> None:
    """The same as a program of its own."""
    run_alone(serve)


if __name__ == "__main__":
    main()
