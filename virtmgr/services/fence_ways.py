"""Asking a fence device, directly or through other hosts: one that is down, or does not reach the
device, is left for the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.fencing import RELAY, FenceDevice, Transport, relays
from virtmgr.domain.host import Host
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.ports.power import Way
from virtmgr.ports.streams import AgentStream
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.fencing import purpose
from virtmgr.services.streams import raise_problem, stream_url

T = TypeVar("T")
_UNKNOWN: Final = "not_found"  # what agents say that know of no such stream


def reached(services: Services, uow: UnitOfWork, host: Host, device: FenceDevice) -> Reached:
    """A device of a host, as it is to be asked."""
    if device.via is None:
        return Reached(services, device)
    try:
        through = relays(device, host, uow.hosts.all())
    except Unavailable as error:
        return Reached(services, device, problem=error)
    return Reached(services, device, [RelayWay(services, device, relay) for relay in through])


class Reached:
    """One device, for one operation. The first host that reaches it is kept to."""

    def __init__(
        self,
        services: Services,
        device: FenceDevice,
        ways: Sequence[RelayWay] = (),
        *,
        problem: Unavailable | None = None,
    ) -> None:
        """Make one.

        :param problem: why there is no way, if there is to be one.
        """
        self.device = device
        self._services = services
        self._ways = list(ways)
        self._problem = problem
        self._failures: list[str] = []

    def __str__(self) -> str:
        """The device, and how it was reached: what failed before included."""
        if not self._ways:
            return self.device.name
        failures = f" ({'; '.join(self._failures)})" if self._failures else ""
        return f"{self.device.name} through host {self._ways[0].relay.name}{failures}"

    def is_on(self) -> bool:
        """:raises VirtmgrError: it does not say."""
        return self._ask(self._services.power.is_on)

    def turn_off(self) -> None:
        """:raises VirtmgrError: it was not told, or refuses."""
        self._ask(self._services.power.turn_off)

    def _ask(self, question: Callable[[FenceDevice, str, Way | None], T]) -> T:
        device = self.device
        password = self._services.vault.open(device.sealed, purpose(device.id)).decode()
        if device.via is None:
            return question(device, password, None)
        while self._ways:
            way = self._ways[0]
            try:
                return question(device, password, way)
            except VirtmgrError as error:
                if way.works:  # the device itself refuses: it would refuse others, too
                    raise
                self._failures.append(f"through host {way.relay.name}: {error.message}")
                del self._ways[0]
        raise self._problem or Unavailable(
            f"fence device {device.name!r} at {device.address} was not reached "
            + "; ".join(self._failures),
            code="no_fence_relay",
            hint="are these hosts up, of this release, and in reach of the device's address",
        )


class RelayWay:
    """``ports.power.Way`` through one host. ``works``: the device has said something that way, and
    nothing broke since."""

    def __init__(self, services: Services, device: FenceDevice, relay: Host) -> None:
        self.relay = relay
        self.works = False
        self._services = services
        self._device = device

    def open(self, transport: Transport) -> AgentStream:
        self.works = False
        request = StreamRequest(
            workload_id="",
            action=RELAY,
            parameters={
                "transport": str(transport),
                "address": self._device.address,
                "port": self._device.port,
            },
        )
        stream = self._services.dial(stream_url(self.relay), self.relay.id, request)
        try:
            self._await_connection(stream)
        except VirtmgrError:
            stream.close()
            raise
        return _Watched(stream, self)

    def _await_connection(self, stream: AgentStream) -> None:
        """The agent's first message says whether it reaches the device."""
        first = stream.receive()
        if first is None:
            raise Unavailable(
                f"host {self.relay.name!r} broke off before it reached the device",
                code="host_unreachable",
            )
        channel, content = first
        if channel is not Channel.END:
            return
        try:
            raise_problem(content)
        except VirtmgrError as error:
            if error.code != _UNKNOWN:
                raise
            raise Unavailable(
                f"the agent of host {self.relay.name!r} is of a version that reaches no fence "
                "devices for others",
                code="no_fence_relay",
                hint=f"upgrade it: 'virtmgr host upgrade {self.relay.name}'",
            ) from error


class _Watched:
    """A stream that tells its way whether the device answers."""

    def __init__(self, stream: AgentStream, way: RelayWay) -> None:
        self._stream = stream
        self._way = way
        self._ended = False  # in order: by the device, or by us

    def send(self, channel: Channel, content: bytes) -> None:
        try:
            self._stream.send(channel, content)
        except VirtmgrError:
            self._way.works = False
            raise

    def receive(self) -> tuple[Channel, bytes] | None:
        message = self._stream.receive()
        if message is None:
            self._way.works = self._way.works and self._ended
        elif message[0] is not Channel.STDOUT:
            self._ended = True
        elif message[1]:
            self._way.works = True
        return message

    def close(self) -> None:
        self._ended = True
        self._stream.close()
