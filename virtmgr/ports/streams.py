"""Opening a stream on a host's agent, from the control plane."""

from __future__ import annotations

from typing import Protocol

from virtmgr.domain.streaming import Channel, StreamRequest


class AgentStream(Protocol):
    """An open stream; one thread may send while another one receives. Any may close it."""

    def send(self, channel: Channel, content: bytes) -> None:
        """:raises Unavailable: the agent is gone."""
        ...

    def receive(self) -> tuple[Channel, bytes] | None:
        """The next message; None at the end.

        :raises Unavailable: the agent is gone.
        """
        ...

    def close(self) -> None: ...


class Dialler(Protocol):
    def __call__(self, url: str, host_id: str, request: StreamRequest) -> AgentStream:
        """Open a stream on the agent of ``host_id`` at ``url``.

        :raises Unavailable: it does not answer, or somebody else does.
        """
        ...
