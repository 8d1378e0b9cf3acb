"""One simulated host: when it syncs, what it says, and what it makes of the answer.

It behaves as ``agent/agent.py`` does, and decides by the same ``agent/pacing.py``. It does no input
and output: ``fleet.py`` sends what ``request`` gives and tells it the answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from virtmgr.agent import pacing
from virtmgr.agent.control_plane import Wake
from virtmgr.agent.outbox import Outbox, Parcel
from virtmgr.agent.pacing import Pace
from virtmgr.domain.host import Fingerprint
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import SyncRequest, SyncResponse
from virtmgr.domain.workload import Usage
from virtmgr.sim.behaviour import Behaviour, fingerprint, pool
from virtmgr.sim.guests import Guests
from virtmgr.sim.identities import SimulatedIdentity


@dataclass(frozen=True)
class Sent:
    """A request, and what it told, which is acknowledged by its answer."""

    request: SyncRequest
    parcel: Parcel
    images: tuple[str, ...]


@dataclass
class _Said:
    """What the control plane has heard of this agent since it was started."""

    full: bool = False
    fingerprint: Fingerprint | None = None
    images: tuple[str, ...] | None = None
    trusted: tuple[str, ...] = ()
    usage_at: float = -math.inf
    in_full_at: float = -math.inf
    everything: bool = True  # is to be reported


@dataclass
class _Lease:
    seconds: float = 30.0
    ends: float = math.inf


class SimulatedHost:
    """Times are of the monotonic clock, but for ``now``, which is the time of day."""

    def __init__(
        self, identity: SimulatedIdentity, behaviour: Behaviour, trusted: tuple[str, ...]
    ) -> None:
        self.identity = identity
        self.outbox = Outbox()
        self.guests = Guests(identity.name, behaviour, self.outbox)
        self.revision = 0
        self._behaviour = behaviour
        self._trusted = trusted
        self._boots = 0
        self._known: Fingerprint | None = None
        self._syncs = 0
        self._failures = 0
        self._said = _Said()
        self._lease = _Lease()
        self._pace = Pace()
        self._run, self._number = "", 0  # of its agent's process, and of its syncs
        self._synced_at = -math.inf

    def boot(self, now: datetime) -> None:
        """It comes up, for the first time or after its power was gone."""
        self._boots += 1
        driver, who = self.guests.driver.facts(), self.identity
        self._known = fingerprint(who.number, who.name, self._boots, driver)
        self.guests.boot(self._known.boot_id, now)
        self.restart()

    def restart(self) -> None:
        """Its agent is started again: it says everything anew."""
        self._said = _Said()
        self._run, self._number = new_id(), 0
        self._failures = 0
        self.revision = 0
        self.outbox.poke()

    def request(self, now: datetime, clock: float) -> Sent:
        """What to send."""
        said = self._said
        parcel = self.outbox.take(everything=said.everything)
        images = tuple(sorted(self.guests.images))
        found = self._known
        slow: dict[str, object] = {}
        if self._pace.tells_usage(clock - said.usage_at):
            said.usage_at = clock
            usage = self.guests.usage(now)
            slow = {"usage": usage, "pools": (pool(_disk(usage)),)}
        if images != said.images:
            slow["images"] = images
        if self._trusted != said.trusted:
            slow["trusted_authorities"] = self._trusted
        request = SyncRequest(
            known_revision=self.revision,
            full=not said.full,
            brief=self._pace.is_brief(
                parcel.workloads,
                first=not said.full,
                guarded=self.guests.highly_available,
                since=clock - said.in_full_at,
            ),
            fingerprint=found if found != said.fingerprint else None,
            workloads=parcel.workloads,
            volumes=parcel.volumes,
        ).model_copy(update=slow)
        self._number += 1
        return Sent(request.numbered(self._run, self._number), parcel, images)

    def answered(self, sent: Sent, response: SyncResponse, now: datetime, clock: float) -> None:
        """Take the answer in.

        :param clock: when the request was sent: the lease counts from there.
        """
        said = self._said
        self.outbox.acknowledge(sent.parcel)
        said.images, said.trusted, said.full = sent.images, self._trusted, True
        said.fingerprint = sent.request.fingerprint or said.fingerprint
        said.everything = response.report_all
        if response.report_all:
            said.images = None
            self.outbox.poke()
        self.guests.take_in(response, now)
        self.revision = response.revision
        if response.networks is not None:
            said.in_full_at = clock
        self._lease = _Lease(response.lease_seconds, clock + response.lease_seconds)
        self._failures = 0
        self._syncs += 1
        self._synced_at = clock

    def failed(self, *, overtaken: bool = False) -> None:
        """There was no answer, or it was refused: what was told is told again.

        :param overtaken: it was refused as one that came late (``domain.sync_order``).
        """
        if overtaken:
            self._run, self._said.everything = new_id(), True
        self._failures += 1
        self.outbox.poke()

    def pause(self) -> float:
        """Seconds until the next sync, unless there is news before (``outbox.due``)."""
        if self._failures:
            longest = self._within_lease(pacing.BACK_OFF_MOST)
            dice = self._behaviour.draw("back off", self.identity.name, self._syncs, self._failures)
            return dice.uniform(*pacing.back_off(self._failures, longest))
        return self._within_lease(self._pace.routine) * self._share() + self._pace.grace

    def is_due_between_polls(self, clock: float) -> bool:
        """Whether a sync is to be sent now that a poll has ended."""
        return self._pace.is_due_between_polls(clock - self._synced_at, self._share())

    @property
    def syncs(self) -> int:
        """How many were answered."""
        return self._syncs

    @property
    def is_failing(self) -> bool:
        """Whether the last sync was not answered: then news waits as well."""
        return self._failures > 0

    def poll(self, clock: float) -> tuple[float, bool]:
        """How long the next long poll lasts, and whether it renews the lease."""
        renewing = self._pace.may_beat(clock, guarded=self.guests.highly_available)
        self._pace = self._pace.polling(renewing=renewing)
        dice = self._behaviour.draw("poll", self.identity.name, int(clock))
        return dice.uniform(*pacing.poll_seconds(renewing=renewing)), renewing

    def polled(self, answer: Wake | None, clock: float, *, renewing: bool) -> None:
        """Take in a long poll's answer; None: there was none."""
        if answer is not None and not renewing:
            return
        pause = answer.pause if answer is not None and answer.renewed else None
        before, self._pace = self._pace, self._pace.polled(clock, pause)
        if self._pace.routine < before.routine:
            self.outbox.poke()

    def watch_lease(self, now: datetime, clock: float) -> None:
        """End what is highly available once the lease has run out."""
        if clock >= self._lease.ends and self.guests.highly_available:
            self.guests.lease_lost(now)

    def _share(self) -> float:
        return self._pace.share(self._behaviour.die(self.identity.name, self._syncs))

    def _within_lease(self, seconds: float) -> float:
        guarded = self.guests.highly_available
        return pacing.within_lease(seconds, self._lease.seconds, guarded=guarded)


def _disk(usage: dict[str, Usage]) -> int:
    return sum(each.disk for each in usage.values())
