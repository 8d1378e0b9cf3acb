"""What every use case may need of the outside; ``virtmgr.bootstrap`` fills it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceDevice
from virtmgr.domain.rebalancing.exact import Solver
from virtmgr.domain.ssh import HostKey
from virtmgr.domain.streaming import StreamRequest
from virtmgr.ports.certificates import Authority
from virtmgr.ports.clock import Clock, SystemClock
from virtmgr.ports.images import BlobStore, ImageOffer
from virtmgr.ports.power import PowerControl, Way
from virtmgr.ports.streams import AgentStream, Dialler
from virtmgr.ports.unit_of_work import UnitOfWorkFactory
from virtmgr.ports.vault import Vault
from virtmgr.services.known_hosts import KnownHosts
from virtmgr.services.signal import Done, Signal


def wake_nobody(host_id: str) -> None:
    """A lost wake is harmless: the host syncs by itself seconds later."""


def dial_nobody(url: str, host_id: str, request: StreamRequest) -> AgentStream:
    """For processes that relay no streams."""
    raise Unavailable(f"this process opens no {request.action} stream to host {host_id} at {url}")


class NoVault:
    """For processes that have nothing to do with secrets."""

    def seal(self, secret: bytes, purpose: str) -> str:  # noqa: ARG002
        raise Unavailable(f"this process keeps no secrets, such as those of {purpose}")

    def open(self, sealed: str, purpose: str) -> bytes:  # noqa: ARG002
        raise Unavailable(f"this process opens no secrets, such as those of {purpose}")


class NoPower:
    """For processes that switch no machine's power."""

    def is_on(
        self,
        device: FenceDevice,
        password: str,  # noqa: ARG002
        way: Way | None = None,  # noqa: ARG002
    ) -> bool:
        raise Unavailable(f"this process asks no fence device, such as {device.name}")

    def turn_off(
        self,
        device: FenceDevice,
        password: str,  # noqa: ARG002
        way: Way | None = None,  # noqa: ARG002
    ) -> None:
        raise Unavailable(f"this process cuts no power, such as by {device.name}")


def scan_nobody(address: str, port: int) -> tuple[HostKey, ...]:
    """For processes that look at no machine."""
    raise Unavailable(f"this process does not look at ssh servers, such as {address}:{port}")


def search_nowhere(address: str, words: Sequence[str]) -> Sequence[ImageOffer]:  # noqa: ARG001
    """For processes that look at no image server."""
    raise Unavailable(f"this process does not look at image servers, such as {address}")


@dataclass(frozen=True, kw_only=True)
class Services:
    """The control plane's ports.

    ``committed`` is notified after every commit of a change, for those who wait for events, and
    ``done`` of every operation that a sync finished. ``wake_host`` hints a host to sync now.
    ``dial`` opens a stream on a host's agent. ``vault`` seals credentials of hosts and of their
    fence devices, ``power`` speaks to those. ``scan_keys`` asks the ssh server at an address and
    port for its keys, ``search_images`` an image server for what it has that all words are found
    in. ``authority`` is the private CA. ``known_hosts`` is what placing remembers.
    """

    units: UnitOfWorkFactory
    blobs: BlobStore
    clock: Clock = field(default_factory=SystemClock)
    committed: Signal = field(default_factory=Signal)
    done: Done = field(default_factory=Done)
    wake_host: Callable[[str], None] = wake_nobody
    dial: Dialler = dial_nobody
    vault: Vault = field(default_factory=NoVault)
    power: PowerControl = field(default_factory=NoPower)
    scan_keys: Callable[[str, int], tuple[HostKey, ...]] = scan_nobody
    rebalancing_solver: Solver | None = None  # None: plans are made move by move
    search_images: Callable[[str, Sequence[str]], Sequence[ImageOffer]] = search_nowhere
    authority: Authority | None = None  # None: this process has nothing to do with certificates
    known_hosts: KnownHosts = field(default_factory=KnownHosts)
    stream_url: str = ""  # where clients open streams: wss://ADDRESS:PORT
