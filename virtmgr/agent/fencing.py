"""Reaching the fence device of another host for the control plane, which does not reach it itself.

Bytes are carried and not looked at: the control plane speaks to the device, over TLS of their own
where that is Redfish. Only the control plane is served (``streams``), and says which address.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from pydantic import Field, ValidationError
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from virtmgr.agent.relay import relay, watch_peer
from virtmgr.domain.errors import HostError, InvalidRequest
from virtmgr.domain.fencing import Transport, why_not_relayed
from virtmgr.domain.streaming import Channel, frame
from virtmgr.domain.values import Message

_SECONDS: Final = 5.0  # to connect within, for each address of a name
_LARGEST_DATAGRAM: Final = 65535
_TYPES: Final = {Transport.TCP: socket.SOCK_STREAM, Transport.UDP: socket.SOCK_DGRAM}


class Device(Message):
    """What the control plane asks for."""

    transport: Transport
    address: str = Field(min_length=1, max_length=253)
    port: int = Field(ge=1, le=65535)


def carry(connection: ServerConnection, parameters: dict[str, Any]) -> None:
    """Carry what is said to a device, and what it answers, until either side ends. An empty message
    says first that the device is reached.

    :raises InvalidRequest: it is no device.
    :raises HostError: it is not reached from here.
    """
    try:
        device = Device.read_from(parameters)
    except ValidationError as error:
        raise InvalidRequest(f"what is to be reached cannot be read: {error}") from error
    peer = _connect(device)
    try:
        connection.send(frame(Channel.STDOUT, b""))
    except ConnectionClosed:
        peer.close()
        raise
    if device.transport is Transport.TCP:
        relay(connection, peer, sends=Channel.STDOUT, receives=Channel.STDIN)
    else:
        _relay_datagrams(connection, peer)


def _connect(device: Device) -> socket.socket:
    """The addresses are looked at after the name was resolved, so no name leads elsewhere."""
    failures = []
    try:
        found = socket.getaddrinfo(device.address, device.port, type=_TYPES[device.transport])
    except OSError as error:
        raise _not_reached(device, [str(error)]) from error
    for family, type, _, _, address in found:
        refused = why_not_relayed(ip_address(str(address[0]).partition("%")[0]))
        if refused is not None:
            failures.append(f"{address[0]}: {refused}")
            continue
        peer = socket.socket(family, type)
        peer.settimeout(_SECONDS)
        try:
            peer.connect(address)
        except OSError as error:
            peer.close()
            failures.append(f"{address[0]}: {error}")
        else:
            peer.settimeout(None)
            return peer
    raise _not_reached(device, failures)


def _not_reached(device: Device, failures: list[str]) -> HostError:
    return HostError(
        f"connecting to {device.address}, port {device.port} ({device.transport}) from "
        f"{socket.gethostname()} failed: {'; '.join(failures)}",
        code="fence_device_not_reached",
        hint="is the device's network reachable from this host",
    )


def _relay_datagrams(connection: ServerConnection, peer: socket.socket) -> None:
    """One message is one datagram. The end of the connection is the end of it."""
    watch_peer(connection)
    ended = threading.Event()
    pump = threading.Thread(
        target=_send_datagrams, args=(connection, peer, ended), name="datagrams", daemon=True
    )
    pump.start()
    try:
        for message in connection:
            if isinstance(message, str) or message[:1] != bytes((Channel.STDIN,)):
                break
            with suppress(OSError):  # it is lost, as datagrams may be
                peer.send(memoryview(message)[1:])
    except ConnectionClosed:
        pass  # it was done
    finally:
        ended.set()
        with suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)  # wakes the other direction
        connection.close()
        pump.join()
        peer.close()


def _send_datagrams(
    connection: ServerConnection, peer: socket.socket, ended: threading.Event
) -> None:
    while True:
        try:
            content = peer.recv(_LARGEST_DATAGRAM)
        except ConnectionRefusedError:  # nobody listens yet; whoever asks, asks again
            continue
        except OSError:
            return
        if ended.is_set():
            return
        try:
            connection.send(frame(Channel.STDOUT, content))
        except ConnectionClosed:
            return
