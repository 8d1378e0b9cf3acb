"""Opening a stream on an agent: WebSocket over mutual TLS, the agent's certificate checked."""

from __future__ import annotations

import ssl
from typing import cast

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from virtmgr.domain.errors import Unavailable, VirtmgrError
from virtmgr.domain.streaming import LARGEST_MESSAGE, Channel, StreamRequest, frame
from virtmgr.ports.certificates import Peer, common_name
from virtmgr.ports.streams import AgentStream

PATH = "/v1/streams"
DIAL_SECONDS = 10


def check_agent(peer: Peer, host_id: str) -> None:
    """Refuse an agent that is not the host that the stream is for.

    Its certificate comes from the private CA; addresses do not matter, the host's id does.

    :param peer: the TLS object of the connection.
    :raises Unavailable: somebody else answers at the host's address.
    """
    if common_name(peer) != host_id:
        raise Unavailable(
            "another host answers at the address of the workload's host",
            code="wrong_host",
            hint="see the addresses of both with 'virtmgr host list -o wide'",
        )


def unreachable(error: Exception, host: str = "the workload's host") -> Unavailable:
    """The error of an agent that cannot be dialled.

    :param host: whose agent it is, for people.
    """
    return Unavailable(
        f"opening a stream on {host} failed: {error}",
        code="host_unreachable",
        hint="is its agent running, and its stream address reachable from the control plane?",
    )


def without_names(context: ssl.SSLContext) -> ssl.SSLContext:
    """A client context that checks the chain only; ``check_agent`` checks who it is."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class WebSocketDialler:
    """Implements ``ports.streams.Dialler``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def __call__(self, url: str, host_id: str, request: StreamRequest) -> AgentStream:
        try:
            connection = connect(
                url + PATH,
                ssl=self._context,
                max_size=LARGEST_MESSAGE,
                compression=None,
                open_timeout=DIAL_SECONDS,
                proxy=None,
            ).__enter__()  # whoever is given the stream closes it
        except (OSError, WebSocketException) as error:
            raise unreachable(error) from error
        stream = _Stream(connection)
        try:
            check_agent(cast(Peer, connection.socket), host_id)
            connection.send(request.model_dump_json())
        except VirtmgrError:
            stream.close()
            raise
        except ConnectionClosed as error:
            if not stream.has_said_why():
                raise unreachable(error) from error
        return stream


class _Stream:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last: tuple[Channel, bytes] | None = None

    def has_said_why(self) -> bool:
        """Whether an agent that has closed the connection said something before."""
        self._last = self.receive()
        return self._last is not None

    def send(self, channel: Channel, content: bytes) -> None:
        try:
            self._connection.send(frame(channel, content))
        except ConnectionClosed as error:
            raise unreachable(error) from error

    def receive(self) -> tuple[Channel, bytes] | None:
        if self._last is not None:
            last, self._last = self._last, None
            return last
        try:
            message = self._connection.recv(decode=False)
        except ConnectionClosed:
            return None
        return Channel(message[0]), message[1:]

    def close(self) -> None:
        self._connection.close()
