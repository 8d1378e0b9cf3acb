"""Ports to the host that the agent works on, besides its drivers: network and storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from virtmgr.domain.image import ImageManifest
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload, ObservedPool
from virtmgr.ports.driver import LocalImage, Luggage, NicConnector

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class BlobSource(Protocol):
    """Where a host fetches blobs from: the control plane."""

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        """The blob's bytes from ``offset`` on.

        :raises ImageError: if it cannot be had.
        """
        ...


class HostStorage(Protocol):
    """Images and volumes on one host. All methods are idempotent and safe in threads."""

    def ensure_image(
        self, image_id: str, manifest: ImageManifest, source: BlobSource, progress: Progress
    ) -> LocalImage:
        """Fetch what is missing, verify every digest, unpack layers.

        Two callers for one blob share one fetch.

        :raises ImageError: a digest does not match, or the content is refused.
        :raises StorageError: the disk is full or fails.
        """
        ...

    def collect_images(self, keep: Iterable[ImageManifest]) -> int:
        """Remove every blob and layer that no manifest in ``keep`` needs; bytes freed."""
        ...

    def ensure_volume(self, volume_id: str, size: int) -> Path:
        """The volume's raw disk file, made (sparse) or grown to ``size`` bytes."""
        ...

    def copy_volume(self, source_id: str, volume_id: str) -> None:
        """Give a volume the content of another, which nobody writes to; replaces what it had.

        :raises StorageError: the source is not there, or the disk is full or fails.
        """
        ...

    def remove_volume(self, volume_id: str) -> None: ...

    def pack(self, luggage: Luggage) -> Iterator[bytes]:
        """Files that nobody writes to, as a stream for another host, holes left out."""
        ...

    def receive(self, arrival_id: str, stream: BinaryIO, *, limit: int) -> None:
        """Keep what another host packed, on the disk when this returns; replaces what was there.

        :param limit: bytes that may come at most.
        :raises StorageError: it is more, is damaged or cut off, or the disk is full or fails.
        """
        ...

    def arrival(self, arrival_id: str) -> Luggage:
        """What was received.

        :raises StorageError: (arrival_lost) it is not here.
        """
        ...

    def arrivals(self) -> tuple[str, ...]:
        """Ids of all that lie here, those in part included."""
        ...

    def remove_arrival(self, arrival_id: str) -> None:
        """Remove what was received; what has been taken up stays. No error if it is gone."""
        ...

    def take_up_volume(self, volume_id: str, file: Path) -> None:
        """Make a received file the content of a volume; replaces what it had."""
        ...

    def volumes(self) -> tuple[str, ...]: ...

    def pools(self) -> tuple[ObservedPool, ...]: ...


class HostNetwork(NicConnector, Protocol):
    """Bridges, DHCP, DNS, NAT, published ports and anti-spoofing on one host.

    The whole firewall is one nftables table of virtmgr's own, replaced atomically.
    """

    def recover(self) -> None:
        """Called once at agent start: adopt dnsmasq processes, notice what exists."""
        ...

    def ensure(
        self, networks: Iterable[DesiredNetwork], workloads: Iterable[DesiredWorkload]
    ) -> None:
        """Bring the host to exactly these networks, and the firewall to these workloads.

        Makes missing bridges, DNS and DHCP; updates names; sets NAT, published ports, and the
        MAC and address that each NIC may send from; removes networks of virtmgr's that are not
        in ``networks``. Does nothing where nothing changed. Never touches what is not virtmgr's.

        :raises NetworkError: with what, on which device, why, and what to do.
            Where only some networks failed, ``detail["networks"]`` maps their ids to
            ``code``, ``message`` and ``hint``; the others are there.
        """
        ...

    def port_conflicts(self, workloads: Iterable[DesiredWorkload]) -> Mapping[str, str]:
        """Why published ports of these workloads are not in force, by workload id.

        Each is taken by another program of the host or by another workload.
        """
        ...

    def remove_port(self, nic_id: str) -> None:
        """Remove the host's end of a NIC (veth, or a tap that was left); no error if gone."""
        ...

    def ports(self) -> tuple[str, ...]:
        """Device names of all NICs of virtmgr's on this host."""
        ...

    def remove_all(self) -> None:
        """Remove every trace: bridges, ports, dnsmasq, nftables table."""
        ...
