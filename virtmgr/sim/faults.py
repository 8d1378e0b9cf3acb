"""What goes wrong in a simulated fleet, and when. Pure.

A fault is written ``COUNT@SECONDS`` or ``COUNT@SECONDS+LASTING``: ``50@60s+2m`` is fifty hosts, one
minute after the beginning, for two minutes. ``all`` hosts may be said for a count.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from virtmgr.domain.errors import InvalidRequest

ALL: Final = -1
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = r"(\d+(?:\.\d+)?)([smh]?)"
_FAULT = re.compile(rf"(\d+|all)@{_TIME}(?:\+{_TIME})?")
_COMMAND = re.compile(rf"(lose|partition|restart)\s+(\d+|all)(?:\s+{_TIME})?")


class Kind(StrEnum):
    """What may happen to a host."""

    LOSE = "lose"  # its power is gone: guests end; it boots again at the end of it
    PARTITION = "partition"  # it reaches nobody; guests run on
    RESTART = "restart"  # its agent is started again; guests run on


@dataclass(frozen=True)
class Fault:
    """``count`` hosts (or ``ALL``), ``at`` seconds after the beginning, for ``lasts`` seconds.

    ``lasts`` None: until the end, or until 'back' is said.
    """

    kind: Kind
    count: int
    at: float
    lasts: float | None = None

    def __str__(self) -> str:
        many = "all" if self.count == ALL else str(self.count)
        how_long = "" if self.lasts is None else f" for {self.lasts:g} s"
        return f"{self.kind} {many} hosts after {self.at:.1f} s{how_long}"


def parse(kind: Kind, text: str) -> Fault:
    """A fault as an option has it.

    :raises InvalidRequest: it is written otherwise.
    """
    found = _FAULT.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"cannot {kind} hosts as {text!r} says: that is no COUNT@SECONDS",
            hint="write 50@60s, 50@1m+30s (for thirty seconds), or all@1m",
        )
    lasts = None if found[4] is None else _seconds(found[4], found[5])
    return Fault(kind, _count(found[1]), _seconds(found[2], found[3]), lasts)


def parse_command(text: str, at: float) -> Fault:
    """The same as a line of standard input has it: ``lose 50``, ``partition all 30s``.

    :param at: when it was said, in seconds after the beginning.
    :raises InvalidRequest: it is written otherwise.
    """
    found = _COMMAND.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"the simulated fleet does not know the command {text.strip()!r}",
            hint="say 'lose COUNT [SECONDS]', 'partition …', 'restart …', 'back', 'status' or "
            "'quit'",
        )
    lasts = None if found[3] is None else _seconds(found[3], found[4])
    return Fault(Kind(found[1]), _count(found[2]), at, lasts)


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """As they are to happen."""
    return sorted(faults, key=lambda fault: fault.at)


def victims(fault: Fault, well: Sequence[int], dice: random.Random) -> list[int]:
    """Which hosts it happens to, of those that nothing has happened to, by their numbers."""
    if fault.count == ALL or fault.count >= len(well):
        return list(well)
    return sorted(dice.sample(list(well), fault.count))


def _count(text: str) -> int:
    return ALL if text == "all" else int(text)


def _seconds(number: str, unit: str) -> float:
    return float(number) * _SECONDS[unit]
