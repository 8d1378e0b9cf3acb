"""How simulated hosts and their guests behave: sizes, delays, failures, usage. Pure, by a seed.

The same seed, host and workload behave the same in every run; what is drawn for one does not
depend on the order in which others are asked for.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from virtmgr import __version__
from virtmgr.domain.host import DriverFacts, Fingerprint, Tunnel
from virtmgr.domain.plan import Step
from virtmgr.domain.sync import DesiredWorkload, ObservedPool
from virtmgr.domain.workload import GIB, Kind, Usage

_MEDIAN = {
    Step.PREPARE: (0.15, 0.6),
    Step.CLONE: (0.5, 2.0),
    Step.START: (0.25, 2.5),
    Step.STOP: (0.4, 4.0),
    Step.DESTROY: (0.1, 0.3),
    Step.UPDATE: (0.05, 0.1),
}
"""Seconds that half of the containers and half of the VMs take at most; other steps take none."""

_SPREAD = 0.5  # of the logarithm of what a step takes: one in twenty takes 2.3 times the median
_FETCH = (8.0, 0.7)  # seconds for an image that is not at hand: median, spread
_SIZES = ((32, 128), (64, 256), (96, 512), (128, 1024))  # vCPUs, GiB of memory
_POOL = 4096 * GIB
_MACHINE = "51m" + "0" * 29


@dataclass(frozen=True)
class Behaviour:
    """What all hosts of a fleet have in common.

    ``failing`` is the share of steps that fail, ``crashes`` how often a guest ends by itself in an
    hour, ``pace`` what everything's time is multiplied by (0: at once).
    """

    seed: int = 1
    failing: float = 0.0
    crashes: float = 0.0
    pace: float = 1.0

    def draw(self, *what: object) -> random.Random:
        """Random numbers for one thing."""
        return random.Random(f"{self.seed}/{'/'.join(map(str, what))}")

    def seconds(self, step: Step, workload: DesiredWorkload, attempt: int) -> float:
        """How long a step takes.

        :param attempt: counts steps of the workload, so that each is drawn anew.
        """
        medians = _MEDIAN.get(step)
        if medians is None:
            return 0.0
        median = medians[workload.kind is Kind.VM]
        dice = self.draw(workload.id, step, attempt)
        return self.pace * dice.lognormvariate(math.log(median), _SPREAD)

    def fetch_seconds(self, host: str, image_id: str) -> float:
        """How long a host takes to fetch an image that it has not."""
        median, spread = _FETCH
        return self.pace * self.draw(host, image_id).lognormvariate(math.log(median), spread)

    def fails(self, step: Step, workload: DesiredWorkload, attempt: int) -> bool:
        """Whether a step fails; what is being removed never does."""
        if self.failing <= 0 or step not in _MEDIAN or step is Step.DESTROY:
            return False
        return self.draw("fails", workload.id, step, attempt).random() < self.failing

    def life(self, workload_id: str, attempt: int) -> float | None:
        """Seconds after a start at which a guest ends by itself; None: it does not."""
        if self.crashes <= 0:
            return None
        return self.draw("life", workload_id, attempt).expovariate(self.crashes / 3600)

    def die(self, host: str, count: int) -> float:
        """From 0 to 1: how soon a host syncs after so many syncs; a fleet never does at once."""
        return self.draw("pause", host, count).random()

    def usage(self, workload: DesiredWorkload, since: datetime, now: datetime) -> Usage:
        """What a guest uses that runs since then: its own level, which sways over minutes."""
        level = 0.05 + 0.4 * (hash_share(workload.id, self.seed) ** 2)
        running = max((now - since).total_seconds(), 0.0)
        sway = 0.5 * math.sin(now.timestamp() / 300 + level * 100)
        resources = workload.spec.resources
        busy = level * resources.vcpus * running
        return Usage(
            at=now,
            cpu_seconds=round(busy, 2),
            memory=int(resources.memory * min(0.95, 0.3 + level + 0.1 * sway)),
            disk=int(GIB * (0.5 + level)),
            disk_read=int(busy * 1e5),
            disk_written=int(busy * 2e5),
            network_received=int(busy * 3e5),
            network_sent=int(busy * 1e5),
            pids=4 + int(level * 50),
        )


def hash_share(text: str, seed: int) -> float:
    """A number from 0 to 1 that belongs to a text: for ids, whose last digits are random."""
    return (int(text.replace("-", "")[-6:], 16) ^ (seed * 0x9E3779)) % 0x1000000 / 0x1000000


def machine_id(number: int) -> str:
    """A simulated machine's id, which no real machine has: it is no hexadecimal number."""
    return f"{_MACHINE[:-8]}{number:08d}"


def fingerprint(
    number: int, name: str, boot: int, driver: DriverFacts, architecture: str = "x86_64"
) -> Fingerprint:
    """What a simulated host says of itself; it says plainly that it is one.

    :param boot: counts its boots.
    """
    vcpus, memory = _SIZES[number % len(_SIZES)]
    return Fingerprint(
        hostname=name,
        machine_id=machine_id(number),
        boot_id=f"simulated-{name}-{boot}",
        architecture=architecture,
        os="simulated by 'virtmgr sim'",
        kernel="none: simulated",
        cpu_model="simulated",
        vcpus=vcpus,
        memory=memory * GIB,
        disk=_POOL,
        cgroup="v2",
        accelerator="none",
        accelerator_reason="this host is simulated",
        drivers=(driver,),
        tunnel=Tunnel(reason="this host is simulated"),
        agent_version=f"{__version__}, simulated",
        self_fencing=True,
    )


def pool(used: int) -> ObservedPool:
    """A simulated host's one pool."""
    return ObservedPool(name="default", path="/simulated", capacity=_POOL, used=min(used, _POOL))


def now() -> datetime:
    """The time of day, as guests have it."""
    return datetime.now(UTC)
