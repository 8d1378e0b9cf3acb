"""Trying again what needs a host's agent, which may be away for as long as it takes to restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from virtmgr.domain.errors import Unavailable

T = TypeVar("T")

PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between tries; an agent is back sooner."""


def patiently(
    attempt: Callable[[], T],
    wait: Callable[[float, Unavailable], None],
    pauses: Sequence[float] = PAUSES,
) -> T:
    """What ``attempt`` answers, tried again after each pause where a host does not.

    :param wait: waits so many seconds after that failure; what it raises ends it.
    :raises Unavailable: the last try failed, too.
    """
    for pause in pauses:
        try:
            return attempt()
        except Unavailable as error:
            wait(pause, error)
    return attempt()
