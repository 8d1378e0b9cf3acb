"""``virtmgr sim``: simulated hosts are enrolled in bulk, and run in one process."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from virtmgr.bootstrap.control_plane import authority, build_services, called
from virtmgr.bootstrap.processes import allow_many_connections, collect_rarely
from virtmgr.config.settings import ServerSettings
from virtmgr.domain.errors import Conflict
from virtmgr.enrollment import pki
from virtmgr.services import simulation
from virtmgr.sim import identities
from virtmgr.sim.behaviour import Behaviour, machine_id
from virtmgr.sim.connection import Connections, Where
from virtmgr.sim.figures import Figures
from virtmgr.sim.fleet import Course, Fleet
from virtmgr.sim.host import SimulatedHost
from virtmgr.sim.identities import SimulatedIdentity
from virtmgr.sim.runner import Runner

Tell = Callable[[str], None]


def prepare(
    settings: ServerSettings, directory: Path, count: int, cluster: str, prefix: str, tell: Tell
) -> None:
    """Enrol simulated hosts, and keep their keys and certificates in a new directory.

    :raises Conflict: there is something in the directory.
    """
    if directory.exists() and any(directory.iterdir()):
        raise Conflict(
            f"prepare a simulated fleet in {directory}: it is not empty",
            code="fleet_exists",
            hint="run the fleet that is there with 'virtmgr sim run', or give another directory",
        )
    keys = [pki.new_key() for _ in range(count)]
    newcomers = [
        simulation.Newcomer(
            number, f"{prefix}{number + 1:05d}", machine_id(number), pki.signing_request(key)
        )
        for number, key in enumerate(keys)
    ]
    issuer = authority(settings)
    services = build_services(settings, news=False)
    hosts, secrets = [], []
    enrolled = simulation.enrol(services, issuer, cluster, newcomers)
    for newcomer, key, (host, issued) in zip(newcomers, keys, enrolled, strict=True):
        hosts.append(SimulatedIdentity(newcomer.number, host.id, host.name))
        secrets.append(key + issued.pem)
        if len(hosts) % 500 == 0:
            tell(f"{len(hosts)} of {count} simulated hosts are enrolled")
    server = f"https://{called(settings, settings.agent_listen)}"
    identities.keep(
        identities.Fleet(directory, server, tuple(hosts)), issuer.certificate(), secrets
    )


def run(
    directory: Path,
    *,
    server: str | None,
    count: int | None,
    behaviour: Behaviour,
    course: Course,
    tell: Tell,
) -> None:
    """Run the fleet of a directory until its end.

    :param server: another address of the agents' listener; None: the one that was prepared for.
    :param count: only so many of its hosts; None: all.
    """
    fleet = identities.load(directory)
    if server is not None:
        fleet = replace(fleet, server=server)
    allow_many_connections()
    collect_rarely()
    main = partial(_run, fleet, count, behaviour, course, tell)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _run(
    fleet: identities.Fleet, count: int | None, behaviour: Behaviour, course: Course, tell: Tell
) -> None:
    figures = Figures()
    trusted = pki.fingerprints(fleet.ca_file.read_bytes())
    runners = [
        _runner(fleet, identity, behaviour, trusted, figures)
        for identity in islice(fleet.hosts, count)
    ]
    await Fleet(runners, figures, course, tell).run()


def _runner(
    fleet: identities.Fleet,
    identity: SimulatedIdentity,
    behaviour: Behaviour,
    trusted: tuple[str, ...],
    figures: Figures,
) -> Runner:
    pem = fleet.certificate_file(identity)
    context = pki.client_context(fleet.ca_file, pem, pem)
    where = Where(fleet.server, _source(fleet.server, identity.number))
    host = SimulatedHost(identity, behaviour, trusted)
    return Runner(host, Connections(where, context), figures)


def _source(server: str, number: int) -> str | None:
    """On the loopback network each host calls from an address of its own, as real hosts do: the
    control plane bounds what one address may have."""
    try:
        address = ipaddress.ip_address(urlsplit(server).hostname or "")
    except ValueError:
        return None
    if address.version != 4 or not address.is_loopback:
        return None
    return str(ipaddress.IPv4Address("127.64.0.1") + number)
