"""The agent's main loop: sync, reconcile, report; for as long as it is asked to."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from virtmgr.agent import pacing
from virtmgr.agent.control_plane import NOT_UNDERSTOOD, ControlPlane
from virtmgr.agent.guard import Guard
from virtmgr.agent.images import ImageKeeper
from virtmgr.agent.outbox import Outbox, Parcel
from virtmgr.agent.pacing import Pace
from virtmgr.agent.reconciler import Reconciler
from virtmgr.agent.usage_recorder import UsageRecorder
from virtmgr.agent.watchdog import boottime
from virtmgr.domain.errors import StorageError, VirtmgrError
from virtmgr.domain.host import Fingerprint
from virtmgr.domain.ids import new_id
from virtmgr.domain.sync import (
    FILE_SYSTEMS,
    USAGE_HISTORY,
    ObservedFileSystem,
    SyncRequest,
    SyncResponse,
)
from virtmgr.domain.sync_order import OVERTAKEN
from virtmgr.domain.usage_history import Measured
from virtmgr.domain.workload import Reason, Usage
from virtmgr.ports.host import HostStorage

_LOOK_AT_HOST = 30.0  # seconds between looks at what the host is and has
_HOUSEKEEPING = 60.0  # seconds between looks at the certificate
_LOOK_AT_IMAGES = 600.0  # seconds between looks for images that may go
_SYNC_SECONDS = 30.0  # that a sync may take
_BETWEEN_POLLS = 1.0  # seconds that a poll waits for a sync
_NEVER = -math.inf  # the monotonic clock may begin at 0 when the machine boots

_log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What the agent is made of; ``virtmgr.bootstrap`` puts it together."""

    connect: Callable[[], ControlPlane]
    reconciler: Reconciler
    storage: HostStorage
    images: ImageKeeper
    outbox: Outbox
    guard: Guard
    fingerprint: Callable[[], Fingerprint]
    renew: Callable[[ControlPlane], bool]
    trusted: Callable[[], tuple[str, ...]] = tuple  # fingerprints of CAs
    trust: Callable[[str], None] = lambda _: None  # these CAs from now on, in PEM
    tell: Callable[[VirtmgrError | None], None] = lambda _: None  # how the last sync went
    host_usage: Callable[[], Usage | None] = lambda: None  # of the host as a whole
    file_systems: Callable[[], tuple[ObservedFileSystem, ...] | None] = lambda: None  # its own


class Agent:
    """Runs in the caller's thread until ``stop`` is called from another one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = threading.Event()
        self._heard = threading.Event()  # the control plane has heard of this process, or it ends
        self._control_plane = parts.connect()
        self._revision = 0
        self._full = True  # the control plane has not heard from this process yet
        self._report_all = True
        self._fingerprint: Fingerprint | None = None  # to be sent
        self._known_fingerprint: Fingerprint | None = None
        self._fault: Reason | None = None  # why the last answer was not understood
        self._run, self._number = new_id(), 0  # of this process, and of its syncs
        self._looked_at_host = _NEVER
        self._usage_sent = _NEVER
        self._asked_in_full = _NEVER
        self._looked_at_certificate = _NEVER
        self._looked_at_images = time.monotonic()
        self._images_said: tuple[str, ...] | None = None  # what the control plane knows of
        self._trusted_said: tuple[str, ...] = ()
        self._recorder = UsageRecorder()
        self._measured = _NEVER
        self._came_round = time.monotonic()  # when the loop that syncs last did
        self._synced, self._die = _NEVER, random.random()  # that says how long it is enough
        self._answered = threading.Event()  # a sync was
        self._pace = Pace()

    def run(self) -> None:
        """Bring up what is desired, first from disk, then from the control plane."""
        self._parts.reconciler.start()
        waker = threading.Thread(target=self._wait_for_wakes, name="wake", daemon=True)
        waker.start()
        failures, due = 0, True
        while not self._stopping.is_set():
            self._came_round = time.monotonic()
            try:
                self._look_at_host()
                if due or self._fingerprint is not None or not self._is_beating():
                    self._sync()
                if time.monotonic() - self._measured >= pacing.INTERVAL:
                    self._measure()  # a minute is whole however seldom it is told
                self._renew_certificate()
                failures = 0
                self._parts.tell(None)
            except VirtmgrError as error:
                _log.warning("sync.failed", error=error.message, hint=error.hint)
                self._parts.tell(error)
                failures += 1
            except Exception:  # noqa: BLE001  the agent's last resort: logged, and tried again
                _log.exception("sync.crashed")
                failures += 1
            if failures:
                longest = self._parts.guard.pause(pacing.BACK_OFF_MOST)
                self._stopping.wait(random.uniform(*pacing.back_off(failures, longest)))
                due = True
                continue
            due = self._wait_for_news()
        self._control_plane.close()  # the waker's last question may hang: nobody waits for it
        self._parts.reconciler.close()
        self._parts.guard.close()

    def stop(self) -> None:
        """Let ``run`` return soon; workloads go on."""
        self._stopping.set()
        self._heard.set()
        self._answered.set()
        self._parts.outbox.poke()

    def _wait_for_news(self) -> bool:
        """Wait, at most until it is time for a look at the host; whether to sync in any case."""
        most = self._parts.guard.pause(min(self._pace.routine, _LOOK_AT_HOST))
        news = self._parts.outbox.wait(most * random.uniform(*pacing.JITTER))
        pause = self._pace.routine * self._pace.share(self._die) + self._pace.grace
        return news or time.monotonic() - self._synced >= pause

    def _is_beating(self) -> bool:
        """Whether polls renew the lease, so that syncs need not."""
        return self._pace.is_beating and not self._parts.guard.is_needed()

    def _is_stuck(self) -> bool:
        """Whether the loop that syncs has not come round for longer than it may take: a host that
        does nothing any more is not to keep its lease."""
        patience = min(self._pace.routine, _LOOK_AT_HOST) + _SYNC_SECONDS
        return time.monotonic() - self._came_round > patience

    def _sync(self) -> None:
        parcel = self._parts.outbox.take(everything=self._report_all)
        images, trusted = self._parts.images.at_hand(), self._parts.trusted()
        self._number += 1
        request = self._request(parcel, images, trusted).numbered(self._run, self._number)
        # A connection that is dead is found out in time for another try.
        patience = self._parts.guard.pause(_SYNC_SECONDS) if request.brief else _SYNC_SECONDS
        sent = boottime()
        try:
            response = self._control_plane.sync(request, timeout=patience)
        except VirtmgrError as error:
            self._parts.outbox.poke()
            if error.code == NOT_UNDERSTOOD:
                self._note_fault(Reason.of(error))
            if error.code == OVERTAKEN:  # by one of a run that was over before it was heard
                self._run, self._report_all = new_id(), True
            raise
        self._parts.outbox.acknowledge(parcel)
        self._recorder.acknowledge(request.usage_history)
        self._images_said, self._trusted_said = images, trusted
        self._full = False
        self._heard.set()
        self._synced, self._die = time.monotonic(), random.random()
        self._answered.set()
        self._fingerprint = None
        self._note_fault(None)
        self._report_all = response.report_all
        if response.report_all:
            self._images_said = None
            self._parts.outbox.poke()
        self._parts.guard.granted(sent, response.lease_seconds)
        try:
            self._take_in(response)
        except StorageError:  # what is not to run here any more was taken in all the same
            self._parts.guard.renewed(sent, response.lease_seconds)
            raise
        self._parts.guard.renewed(sent, response.lease_seconds)
        if response.authorities:
            self._trust(response.authorities)

    def _request(
        self, parcel: Parcel, images: tuple[str, ...], trusted: tuple[str, ...]
    ) -> SyncRequest:
        news = {} if images == self._images_said else {"images": images}
        if trusted != self._trusted_said:
            news["trusted_authorities"] = trusted
        return SyncRequest(
            known_revision=self._revision,
            full=self._full,
            brief=self._pace.is_brief(
                parcel.workloads,
                first=self._full,
                guarded=self._parts.guard.is_needed(),
                since=time.monotonic() - self._asked_in_full,
            ),
            fingerprint=self._fingerprint,
            workloads=parcel.workloads,
            volumes=parcel.volumes,
        ).model_copy(update={**self._slow_news(), **news, **self._arrivals()})

    def _arrivals(self) -> dict[str, object]:
        """Where there are any: not every control plane knows of them."""
        found = self._parts.storage.arrivals()
        return {"arrivals": found} if found else {}

    def _slow_news(self) -> dict[str, object]:
        """Usage and how full disks are: they change all the time, and are not worth a sync."""
        if not self._pace.tells_usage(time.monotonic() - self._usage_sent):
            return {}
        self._usage_sent = time.monotonic()
        usage = self._measure()
        news: dict[str, object] = {"usage": usage, "pools": self._parts.storage.pools()}
        slices = self._recorder.take()
        if slices and USAGE_HISTORY in self._control_plane.accepts:
            news["usage_history"] = slices
        if FILE_SYSTEMS in self._control_plane.accepts:
            news["file_systems"] = self._parts.file_systems()
        return news

    def _measure(self) -> dict[str, Usage]:
        """What workloads use, by id; it is noted for the history."""
        self._measured = time.monotonic()
        usage = self._usage()
        self._recorder.note(Measured(datetime.now(UTC), self._parts.host_usage(), usage))
        return usage

    def _usage(self) -> dict[str, Usage]:
        found: dict[str, Usage] = {}
        for kind, workload_ids in self._parts.reconciler.book.by_kind().items():
            driver = self._parts.reconciler.drivers.get(kind)
            if driver is None:
                continue
            try:
                found.update(driver.stats(workload_ids))
            except VirtmgrError as error:
                _log.warning("usage.failed", driver=driver.name, error=error.message)
        return found

    def _take_in(self, response: SyncResponse) -> None:
        self._parts.reconciler.apply(response.workloads, response.networks, full=response.full)
        self._parts.reconciler.remove_volumes(response.removed_volumes)
        for arrival in response.removed_arrivals:
            self._parts.storage.remove_arrival(arrival)
        self._revision = response.revision
        if response.networks is not None:
            self._asked_in_full = time.monotonic()
        self._tidy_images(response)

    def _tidy_images(self, response: SyncResponse) -> None:
        """After a sync only: until the first one, nobody knows all that is needed."""
        images = self._parts.images
        due = time.monotonic() - self._looked_at_images >= _LOOK_AT_IMAGES
        if due or response.removed_images or response.prune_nonce != images.prune_nonce:
            self._looked_at_images = time.monotonic()
            images.tidy_soon(
                self._parts.reconciler.book.images,
                response.removed_images,
                response.prune_nonce,
                self._parts.outbox.poke,
            )

    def _look_at_host(self) -> None:
        """Drivers come and go: libvirtd may be started after the agent."""
        if self._known_fingerprint and time.monotonic() - self._looked_at_host < _LOOK_AT_HOST:
            return
        self._looked_at_host = time.monotonic()
        found = self._parts.fingerprint()
        if self._fault is not None:  # not every control plane knows of it
            found = found.model_copy(update={"fault": self._fault})
        if found != self._known_fingerprint:
            self._fingerprint = self._known_fingerprint = found

    def _note_fault(self, fault: Reason | None) -> None:
        """Tell with the next sync whether answers are understood: a host whose agent does not know
        what it should run is not to be scheduled on."""
        if fault != self._fault:
            self._fault = fault
            self._looked_at_host = _NEVER
            self._parts.outbox.poke()

    def _renew_certificate(self) -> None:
        if time.monotonic() - self._looked_at_certificate < _HOUSEKEEPING:
            return
        self._looked_at_certificate = time.monotonic()
        if self._parts.renew(self._control_plane):
            self._connect_anew()

    def _trust(self, authorities_pem: str) -> None:
        """Trust other CAs, say so at once, and see whether another one's certificate is needed."""
        self._parts.trust(authorities_pem)
        self._connect_anew()
        self._looked_at_certificate = _NEVER
        self._parts.outbox.poke()

    def _connect_anew(self) -> None:
        old, self._control_plane = self._control_plane, self._parts.connect()
        old.close()

    def _wait_for_wakes(self) -> None:
        self._heard.wait()
        while not self._stopping.is_set():
            try:
                if self._poll():
                    self._parts.outbox.poke()
                    self._await_revision_change()
                elif self._is_due_between_polls():
                    self._let_sync()
            except VirtmgrError:
                self._polled(None)
                self._stopping.wait(random.uniform(0.5, 2.0))  # the sync loop reports it

    def _poll(self) -> bool:
        """Wait to be woken, and renew the lease by it unless syncs have to; whether to sync now."""
        guarded = self._parts.guard.is_needed()
        renewing = self._pace.may_beat(time.monotonic(), guarded=guarded) and not self._is_stuck()
        self._pace = self._pace.polling(renewing=renewing)
        seconds = random.uniform(*pacing.poll_seconds(renewing=renewing))
        answer = self._control_plane.wait_for_wake(self._revision, seconds, renew=renewing)
        if renewing:
            self._polled(answer.pause if answer.renewed else None)
        return answer.wake

    def _polled(self, pause: float | None) -> None:
        """Take in what a poll that was to renew the lease was answered; None: that it did not.
        Then a sync does, now."""
        before, self._pace = self._pace, self._pace.polled(time.monotonic(), pause)
        if self._pace.routine < before.routine:
            self._parts.outbox.poke()

    def _is_due_between_polls(self) -> bool:
        since = time.monotonic() - self._synced
        return self._pace.is_due_between_polls(since, self._pace.share(self._die))

    def _let_sync(self) -> None:
        """Let the loop that syncs use the connection of the poll that has ended. A sync that is not
        answered soon does not keep the next poll, which renews the lease."""
        self._answered.clear()
        self._parts.outbox.poke()
        self._answered.wait(_BETWEEN_POLLS)

    def _await_revision_change(self) -> None:
        """Let the sync that was asked for happen before asking again."""
        before = self._revision
        for _ in range(100):
            if self._revision != before or self._stopping.wait(0.005):
                return
