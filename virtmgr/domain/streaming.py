"""The framing of interactive streams: binary messages whose first byte is the channel.

The channels are those of Kubernetes' ``v5.channel.k8s.io``; docs/api.md, "Streams".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from virtmgr.domain.values import Message


class Channel(IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    END = 3  # {"exit_code": N}, or a problem
    RESIZE = 4  # {"rows": R, "columns": C}
    CLOSE = 255  # of the channel that the second byte names


LARGEST_MESSAGE = 1 << 20
"""Bytes; senders split at far less."""


class StreamRequest(Message):
    """The first message on a connection to an agent, as JSON text."""

    workload_id: str  # empty for what is about none
    # exec | console | vnc | logs | pull | push | export | leave | arrive | migrate | fence
    action: str
    parameters: dict[str, Any]
    workload_name: str = ""  # for people, where the agent does not know the workload


def frame(channel: Channel, content: bytes) -> bytes:
    """One message."""
    return bytes((channel,)) + content
