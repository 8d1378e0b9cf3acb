"""How far a drain is, by the phases of its migrations. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from virtmgr.domain.migration import Phase

SHARE: Final[Mapping[Phase, int]] = {
    Phase.PLANNED: 0,
    Phase.STOPPING: 10,
    Phase.PREPARING: 10,
    Phase.COPYING: 20,
    Phase.MIGRATING: 20,
    Phase.STARTING: 80,
}
"""How much of a migration is done, in percent; what is not named here is away, or stays."""
_AWAY: Final = (Phase.CLEANING, Phase.DONE)
_STAYED: Final = (Phase.RETREATING, Phase.FAILED)  # whatever the target still removes


def on_their_way(count: int) -> str:
    """How many are moving, for people."""
    return f"{count} on {'its' if count == 1 else 'their'} way"


@dataclass(frozen=True)
class Standing:
    """How many of a drain's workloads are where."""

    total: int
    moved: int
    on_their_way: int
    stayed: int
    ended: bool  # nothing more is to come, from the source either
    progress: float

    @property
    def message(self) -> str:
        """For people."""
        parts = [f"{self.moved} of {self.total} moved"]
        if self.on_their_way:
            parts.append(on_their_way(self.on_their_way))
        if self.stayed:
            parts.append(f"{self.stayed} stayed")
        return ", ".join(parts)


def standing(phases: Mapping[Phase, int]) -> Standing:
    """How far a drain is.

    :param phases: how many of its migrations, of which there is one at least, are in each.
    """
    total = sum(phases.values())
    begun = [phase for phase, share in SHARE.items() if share]
    under_way = sum(phases.get(phase, 0) for phase in (*SHARE, Phase.CLEANING))
    done = sum(SHARE.get(phase, 100) * count for phase, count in phases.items())
    return Standing(
        total=total,
        moved=sum(phases.get(phase, 0) for phase in _AWAY),
        on_their_way=sum(phases.get(phase, 0) for phase in begun),
        stayed=sum(phases.get(phase, 0) for phase in _STAYED),
        ended=under_way == 0,
        progress=min(0.99, done / (100 * total)),
    )
