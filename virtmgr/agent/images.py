"""The images of one host: fetched when a workload needs them, removed when none does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta

import structlog

from virtmgr.agent.files import KeptImages, StateFiles
from virtmgr.domain.errors import HostError
from virtmgr.domain.image_keeping import KeptImage, is_nearly_full, to_remove
from virtmgr.domain.sync import DesiredImage
from virtmgr.domain.values import format_bytes
from virtmgr.ports.clock import Clock
from virtmgr.ports.driver import LocalImage
from virtmgr.ports.host import BlobSource, HostStorage, Progress

_log = structlog.get_logger()


class ImageKeeper:
    """Safe in threads.

    Never removes what a workload needs: an image is noted here before it is fetched, and while
    images are removed nothing new is noted. So one that is wanted at that moment either stays, or
    is fetched again afterwards.
    """

    def __init__(
        self,
        *,
        storage: HostStorage,
        source: BlobSource,
        files: StateFiles,
        clock: Clock,
        keep_for: timedelta,
    ) -> None:
        self._storage = storage
        self._source = source
        self._files = files
        self._clock = clock
        self._keep_for = keep_for
        self._lock = threading.Lock()
        self._tidying = threading.Lock()
        self._kept = files.load_images()

    @property
    def prune_nonce(self) -> int:
        """The last request to prune that was carried out."""
        return self._kept.prune_nonce

    def at_hand(self) -> tuple[str, ...]:
        """Ids of the images that a workload could start from without fetching anything."""
        with self._lock:
            return tuple(sorted(id for id, image in self._kept.images.items() if image.whole))

    def ensure(self, image: DesiredImage, progress: Progress) -> LocalImage:
        """The image's files, fetched where they are missing.

        :raises HostError: see ``HostStorage.ensure_image``.
        """
        with self._lock:
            self._note(image, whole=False)
        local = self._storage.ensure_image(image.id, image.manifest, self._source, progress)
        with self._lock:
            self._note(image, whole=True)
        return local

    def tidy_soon(
        self,
        needed: Callable[[], Iterable[DesiredImage]],
        unknown: Iterable[str],
        prune_nonce: int,
        changed: Callable[[], None],
    ) -> None:
        """``tidy`` in a thread of its own, as removing may take long; none beside another.

        :param changed: called where something else is at hand afterwards.
        """

        def work() -> None:
            with self._tidying:
                before = self.at_hand()
                self.tidy(needed, unknown, prune_nonce)
                if self.at_hand() != before:
                    changed()

        if not self._tidying.locked():
            threading.Thread(target=work, name="images", daemon=True).start()

    def tidy(
        self,
        needed: Callable[[], Iterable[DesiredImage]],
        unknown: Iterable[str],
        prune_nonce: int,
    ) -> None:
        """Remove the images that are to go, and what is left of earlier ones.

        :param needed: gives what the workloads of this host need.
        :param unknown: ids of those that are not in the inventory any more.
        :param prune_nonce: if it is new, all that are not needed go at once.
        """
        try:
            at_once = prune_nonce != self._kept.prune_nonce or is_nearly_full(self._storage.pools())
            with self._lock:
                freed = self._remove(list(needed()), frozenset(unknown), at_once, prune_nonce)
        except HostError as error:
            _log.error("images.not_removed", error=error.message, hint=error.hint)
            return
        if freed:
            _log.info("images.removed", freed=format_bytes(freed))

    def _remove(
        self, needed: list[DesiredImage], unknown: frozenset[str], at_once: bool, prune_nonce: int
    ) -> int:
        now = self._clock.now()
        images = dict(self._kept.images)
        for image in needed:
            known = images.get(image.id)
            images[image.id] = KeptImage(image.manifest, now, whole=bool(known and known.whole))
        gone = to_remove(
            images,
            needed={image.id for image in needed},
            unknown=unknown,
            now=now,
            keep_for=self._keep_for,
            at_once=at_once,
        )
        kept = {id: image for id, image in images.items() if id not in gone}
        self._keep(replace(self._kept, images=kept))  # first: half an image is not at hand
        freed = self._storage.collect_images([image.manifest for image in kept.values()])
        self._keep(replace(self._kept, prune_nonce=prune_nonce))
        return freed

    def _note(self, image: DesiredImage, *, whole: bool) -> None:
        known = self._kept.images.get(image.id)
        noted = KeptImage(image.manifest, self._clock.now(), whole or bool(known and known.whole))
        if known is not None and known == replace(noted, needed_at=known.needed_at):
            # Worth no write: whoever needs it is asked again before anything is removed.
            self._kept.images[image.id] = noted
        else:
            self._keep(replace(self._kept, images={**self._kept.images, image.id: noted}))

    def _keep(self, kept: KeptImages) -> None:
        if kept != self._kept:
            self._kept = kept
            self._files.save_images(kept)
