"""``virtmgr agent`` and ``virtmgr host-…``: a host's drivers, storage and network."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import cast

import structlog

from virtmgr.agent.agent import Agent, Parts
from virtmgr.agent.control_plane import ControlPlane
from virtmgr.agent.departing import Departures
from virtmgr.agent.file_systems import own_file_systems
from virtmgr.agent.files import StateFiles
from virtmgr.agent.fingerprint import boot_id, fingerprint, forget_boot
from virtmgr.agent.guard import Guard
from virtmgr.agent.host_usage import host_usage
from virtmgr.agent.identity import (
    Identity,
    client_context,
    join_again,
    load_or_join,
    peer_context,
    renew_if_due,
    renew_now,
    trust,
    trusted,
)
from virtmgr.agent.images import ImageKeeper
from virtmgr.agent.migrating import Passages, Receiver
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.reconciler import Reconciler
from virtmgr.agent.status import StatusFile
from virtmgr.agent.steps import StepRunner
from virtmgr.agent.streams import StreamServer
from virtmgr.bootstrap import logs
from virtmgr.bootstrap.live_context import LiveContext
from virtmgr.config.settings import AgentSettings
from virtmgr.domain.errors import HostError, VirtmgrError
from virtmgr.domain.host import DriverFacts, Fingerprint, Tunnel
from virtmgr.domain.sync import DesiredWorkload, ObservedFileSystem
from virtmgr.domain.workload import Kind, Reason, Usage
from virtmgr.drivers.libvirt.accelerator import Accelerator, probe_accelerator
from virtmgr.drivers.network.adapter import LinuxNetwork
from virtmgr.drivers.network.facts import NetworkFacts
from virtmgr.drivers.network.underlay import Underlay
from virtmgr.drivers.oci.driver import OciDriver
from virtmgr.drivers.storage.local import LocalStorage
from virtmgr.enrollment import pki
from virtmgr.ports.certificates import KeyTools
from virtmgr.ports.clock import SystemClock
from virtmgr.ports.driver import WorkloadDriver
from virtmgr.ports.host import HostStorage

_log = structlog.get_logger()
_TOOLS = cast(KeyTools, pki)
_STOPPING_AT_ONCE = 16
_STOP_SECONDS = 10.0  # for workloads that are asked to end, before they are ended


@dataclass(frozen=True)
class HostParts:
    """What works on this host, whether it is enrolled or not."""

    storage: LocalStorage
    network: LinuxNetwork
    drivers: Mapping[Kind, WorkloadDriver]
    accelerator: Accelerator
    absent: tuple[DriverFacts, ...]  # drivers that this host cannot have, and why


def build_host(settings: AgentSettings) -> HostParts:
    """Storage, network and every driver whose libraries are there."""
    data, run = settings.data_directory, settings.run_directory
    for directory in (data, run):
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    network = LinuxNetwork(run_directory=run / "network")
    accelerator = probe_accelerator(data / "accelerator.json")
    drivers: dict[Kind, WorkloadDriver] = {
        Kind.CONTAINER: OciDriver(
            state_directory=data / "containers",
            run_directory=run / "containers",
            network=network,
            runtime=settings.runtime,
        )
    }
    absent = []
    libvirt = _libvirt_driver(data, network, accelerator)
    if isinstance(libvirt, DriverFacts):
        absent.append(libvirt)
    else:
        drivers[Kind.VM] = libvirt
    return HostParts(
        storage=LocalStorage(directory=data / "pool"),
        network=network,
        drivers=drivers,
        accelerator=accelerator,
        absent=tuple(absent),
    )


def _libvirt_driver(
    data: Path, network: LinuxNetwork, accelerator: Accelerator
) -> WorkloadDriver | DriverFacts:
    try:
        from virtmgr.drivers.libvirt.driver import LibvirtDriver
    except ImportError as error:
        reason = Reason(
            code="libvirt_python_missing",
            message=f"libvirt's Python binding cannot be loaded: {error}",
            hint="install python3-libvirt, or virtmgr[libvirt]",
        )
        return DriverFacts(name="libvirt", healthy=False, reason=reason)
    return LibvirtDriver(
        state_directory=data / "vms", accelerator=accelerator, bridge_of=network.bridge_of
    )


def run_agent(settings: AgentSettings) -> None:
    """Run until SIGTERM or SIGINT; enrol first where this host is new."""
    logs.configure("agent")
    os.umask(0o022)  # modes are those that the code gives, whoever started it
    settings.data_directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    identity = load_or_join(settings, _TOOLS)
    host = build_host(settings)
    outbox = Outbox()
    networks = NetworkKeeper(host.network)
    boot = boot_id(settings.run_directory)
    control_plane = Connector(identity)
    clock = SystemClock()
    files = StateFiles(settings.data_directory / "state")
    images = ImageKeeper(
        storage=host.storage,
        source=control_plane,
        files=files,
        clock=clock,
        keep_for=timedelta(hours=settings.keep_images),
    )
    guard = Guard(settings.run_directory / "fence" / boot)
    passages = Passages(settings.run_directory / "migrations")
    reconciler = Reconciler(
        runner=StepRunner(host.drivers, host.storage, networks, images),
        networks=networks,
        storage=host.storage,
        files=files,
        outbox=outbox,
        clock=clock,
        boot_id=boot,
        guard=guard,
        departures=Departures(partial(peer_context, identity, _TOOLS), passages),
    )
    served = served_context(identity)
    streams = StreamServer(
        (settings.stream_listen.host, settings.stream_listen.port),
        served,
        partial(_find, reconciler),
        host.storage,
        Receiver(partial(_find, reconciler), reconciler.take_over, passages),
    )
    agent = Agent(
        Parts(
            connect=control_plane,
            reconciler=reconciler,
            storage=host.storage,
            images=images,
            outbox=outbox,
            guard=guard,
            fingerprint=partial(
                _fingerprint,
                settings,
                host,
                boot,
                f"wss://{settings.stream_listen.host}:{streams.port}",
                host.network.facts(),
                Underlay(identity.server, settings.tunnel_address),
            ),
            renew=partial(renew, identity, control_plane, served),
            trusted=partial(trusted, identity, _TOOLS),
            trust=partial(take_up_trust, identity, control_plane, served),
            tell=StatusFile(settings.run_directory / "status.json", clock).tell,
            host_usage=partial(_host_usage, settings.data_directory),
            file_systems=partial(_file_systems, settings.data_directory, host.storage),
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    streams.start()
    _log.info("agent.started", host=identity.host_id, server=identity.server)
    agent.run()
    streams.close()
    _log.info("agent.stopped")


class Connector:
    """Makes connections to the control plane with the certificate as it is now."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._blobs = self()

    def __call__(self) -> ControlPlane:
        return ControlPlane(self._identity.server, client_context(self._identity, _TOOLS))

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        """``ports.host.BlobSource``, over a connection of its own."""
        return self._blobs.fetch(digest, offset)

    def close(self) -> None:
        """End the connection for blobs."""
        self._blobs.close()

    def renewed(self) -> None:
        """The certificate is a new one: the old one is refused once the new one was seen. Or other
        CAs are trusted."""
        self._blobs = self()  # a fetch that is under way goes on over the old connection


def served_context(identity: Identity) -> LiveContext:
    """For those who dial the agent: only the control plane may."""
    return LiveContext(
        lambda: pki.server_context(identity.certificate, identity.key, client_ca=identity.ca)
    )


def renew(
    identity: Identity, connector: Connector, served: LiveContext, connection: ControlPlane
) -> bool:
    """Get a fresh certificate where it is due, and take it up everywhere; whether it was."""
    if not renew_if_due(identity, connection, _TOOLS):
        return False
    served.take_up()
    connector.renewed()
    return True


def take_up_trust(
    identity: Identity, connector: Connector, served: LiveContext, authorities_pem: str
) -> None:
    """Trust other CAs, everywhere and across restarts.

    :raises InvalidRequest: they cannot be read.
    """
    trust(identity, authorities_pem, _TOOLS)
    served.take_up()
    connector.renewed()


def _host_usage(data_directory: Path) -> Usage | None:
    """What the host uses; None where it cannot be read."""
    try:
        return host_usage(data_directory)
    except OSError as error:
        _log.warning("host_usage.failed", error=str(error))
        return None


def _file_systems(
    data_directory: Path, storage: HostStorage
) -> tuple[ObservedFileSystem, ...] | None:
    """How full the host's own are; None where they cannot be looked at."""
    try:
        return own_file_systems(data_directory, [pool.path for pool in storage.pools()])
    except OSError as error:
        _log.warning("file_systems.failed", error=str(error))
        return None


def _find(
    reconciler: Reconciler, workload_id: str
) -> tuple[WorkloadDriver, DesiredWorkload] | None:
    workload = reconciler.book.desired(workload_id)
    driver = reconciler.drivers.get(workload.kind) if workload is not None else None
    return (driver, workload) if driver is not None and workload is not None else None


def _fingerprint(
    settings: AgentSettings,
    host: HostParts,
    boot: str,
    stream_url: str,
    network: NetworkFacts,
    underlay: Underlay,
) -> Fingerprint:
    has_vxlan = network.features.get("vxlan", False)
    no_vxlan = f"this kernel has no VXLAN: {network.reasons.get('vxlan', '')}"
    facts = [driver.facts() for driver in host.drivers.values()]
    return fingerprint(
        boot=boot,
        storage=host.storage,
        drivers=(*facts, *host.absent),
        accelerator=(host.accelerator.name, host.accelerator.reason),
        network_features=network.features,
        tunnel=underlay.tunnel() if has_vxlan else Tunnel(reason=no_vxlan),
        stream_url=stream_url,
        data_directory=settings.data_directory,
    )


def join_control_plane(settings: AgentSettings) -> str:
    """Enrol this host by its join token, unless it is enrolled; its id. No agent need run.

    :raises InvalidRequest: it is not enrolled, and has no join token.
    """
    logs.configure("host-join")
    return load_or_join(settings, _TOOLS).host_id


def renew_certificate(settings: AgentSettings) -> None:
    """Get this host a fresh certificate now. A running agent takes it up when it is restarted.

    With a CA file that is trusted from now on. With a join token the host joins again where its
    certificate is refused, as by a CA that has retired the one of before.

    :raises InvalidRequest: it is not enrolled.
    """
    logs.configure("host-renew")
    identity = load_or_join(replace(settings, join_token_file=None), _TOOLS)
    if settings.ca_file is not None:
        trust(identity, settings.ca_file.read_text(), _TOOLS)
    try:
        with closing(Connector(identity)()) as control_plane:
            renew_now(identity, control_plane, _TOOLS)
    except VirtmgrError as error:
        if settings.join_token_file is None:
            raise
        _log.warning("certificate.not_renewed", error=error.message)
        join_again(identity, settings.join_token_file.read_text().strip(), _TOOLS)


def stop_everything(settings: AgentSettings) -> None:
    """Stop every workload, and take networks down, as a shutdown of the host does.

    The agent starts them again: to it the host has been rebooted. Run it with the agent stopped.

    :raises HostError: some workload cannot be stopped; everything else is.
    """
    logs.configure("host-stop")
    host = build_host(settings)
    # An ExitStack calls in reverse, and goes on after a failure.
    with ThreadPoolExecutor(_STOPPING_AT_ONCE) as pool, ExitStack() as failures:
        failures.callback(forget_boot, settings.run_directory)
        failures.callback(host.network.remove_all)
        for driver in host.drivers.values():
            if isinstance(driver, OciDriver):
                failures.callback(driver.shut_down)
            stop = partial(driver.stop, timeout=_STOP_SECONDS, force=False)
            stopping = [pool.submit(stop, id) for id in _workloads_of(driver, failures)]
            for each in stopping:
                failures.callback(each.result)


def remove_everything(settings: AgentSettings) -> None:
    """Destroy every workload of virtmgr's on this host, its networks, and the agent's files.

    Volumes go too: that is what it is for. Run it with the agent stopped.

    :raises HostError: something cannot be removed; everything else is.
    """
    logs.configure("host-clean")
    host = build_host(settings)
    with ExitStack() as failures:
        for directory in (settings.data_directory, settings.run_directory):
            failures.callback(_remove_directory, directory)
        failures.callback(host.network.remove_all)
        for driver in host.drivers.values():
            if isinstance(driver, OciDriver):
                failures.callback(driver.remove_all)
            for workload_id in _workloads_of(driver, failures):
                _log.info("workload.destroyed", workload=workload_id, driver=driver.name)
                failures.callback(driver.destroy, workload_id)


def _workloads_of(driver: WorkloadDriver, failures: ExitStack) -> tuple[str, ...]:
    """Its workloads; where it does not answer, that is told when all else is done."""
    try:
        driver.recover(_ignore)
        failures.callback(driver.close)
        return driver.list()
    except HostError as error:
        _log.warning("driver.silent", driver=driver.name, error=error.message, hint=error.hint)
        return ()


def _remove_directory(directory: Path) -> None:
    """Remove a directory; of one that is a mount point, what is in it."""
    if not directory.is_mount():
        shutil.rmtree(directory)
        return
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _ignore(workload_id: str) -> None:
    """Changes during a clean-up are of its own making."""
