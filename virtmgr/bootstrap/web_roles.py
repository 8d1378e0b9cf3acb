"""Which of several web processes serves operators, and which serves agents.

Of a large fleet there is always some sync to work on. A process that does both lets people's
requests wait for those, step by step; one that serves operators alone does not. So where there are
several, they take turns in who they serve, and one that is replaced is replaced in its role.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final


@dataclass(frozen=True)
class Role:
    """Whom a web process serves."""

    operators: bool
    agents: bool


EVERYBODY: Final = Role(operators=True, agents=True)


def role_of(place: int, processes: int) -> Role:
    """The role that goes with a place among so many processes, from 0 on."""
    if processes == 1:
        return EVERYBODY
    return Role(operators=place % 2 == 0, agents=place % 2 == 1)


class Place:
    """One process's own among all that share a directory, as long as it runs."""

    def __init__(self, number: int, file: IO[bytes]) -> None:
        self.number = number
        self._file = file  # its lock goes with it

    @classmethod
    def take(cls, directory: Path, processes: int) -> Place | None:
        """The first one that is free; None where all are taken."""
        for number in range(processes):
            file = (directory / f"web-{number}.lock").open("ab")
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls(number, file)
            file.close()
        return None

    def close(self) -> None:
        """Leave it to another process; the end of this one does so too."""
        self._file.close()
