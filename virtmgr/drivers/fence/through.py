"""Speaking to a device through another host: its stream, as clients want to have it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.fencing import Transport
from virtmgr.domain.streaming import Channel
from virtmgr.ports.power import Way
from virtmgr.ports.streams import AgentStream

_CHUNK: Final = 65536


def connection(way: Way) -> socket.socket:
    """A connection to the device; whoever is given it closes it.

    :raises VirtmgrError: it is not reached that way.
    """
    stream = way.open(Transport.TCP)
    ours, theirs = socket.socketpair()
    for work in (_send, _receive):
        threading.Thread(target=work, args=(stream, ours), name="fence-way", daemon=True).start()
    return theirs


def _send(stream: AgentStream, ours: socket.socket) -> None:
    """Until the client closes its end: then it wants no more answers either."""
    with suppress(VirtmgrError, OSError):  # the way broke, which the client sees below
        while content := ours.recv(_CHUNK):
            stream.send(Channel.STDIN, content)
    stream.close()


def _receive(stream: AgentStream, ours: socket.socket) -> None:
    """Until the device or the way ends; the client sees that its connection does."""
    with suppress(VirtmgrError, OSError):
        while (message := stream.receive()) is not None:
            channel, content = message
            if channel is not Channel.STDOUT:
                break
            ours.sendall(content)
    with suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)  # wakes the other direction
    ours.close()


@contextmanager
def datagrams(way: Way) -> Iterator[tuple[str, int]]:
    """The address and port on this machine where the device answers, for as long as it is needed.

    :raises VirtmgrError: it is not reached that way.
    """
    stream = way.open(Transport.UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        client = _Client()
        ended = threading.Event()
        pumps = [
            threading.Thread(target=_send_datagrams, args=(stream, ours, client, ended)),
            threading.Thread(target=_receive_datagrams, args=(stream, ours, client)),
        ]
        for pump in pumps:
            pump.start()
        try:
            yield ours.getsockname()
        finally:
            ended.set()
            with suppress(OSError):
                ours.sendto(b"", ours.getsockname())  # wakes whoever waits for the client
            stream.close()
            for pump in pumps:
                pump.join()


class _Client:
    """Whoever spoke first; nobody else on this machine is heard or answered."""

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None


def _send_datagrams(
    stream: AgentStream, ours: socket.socket, client: _Client, ended: threading.Event
) -> None:
    with suppress(VirtmgrError):  # the way broke: the client hears nothing more
        while True:
            content, address = ours.recvfrom(_CHUNK)
            if ended.is_set():
                return
            client.address = client.address or address
            if address == client.address:
                stream.send(Channel.STDIN, content)


def _receive_datagrams(stream: AgentStream, ours: socket.socket, client: _Client) -> None:
    with suppress(VirtmgrError):
        while (message := stream.receive()) is not None:
            channel, content = message
            if channel is Channel.STDOUT and client.address is not None:
                with suppress(OSError):  # it is lost, as datagrams may be
                    ours.sendto(content, client.address)
