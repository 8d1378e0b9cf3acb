"""What this host knows of each of its workloads: in memory, and on disk for when it restarts."""

from __future__ import annotations

import threading
from dataclasses import replace

import structlog

from virtmgr.agent.files import Entry, StateFiles
from virtmgr.domain.errors import StorageError
from virtmgr.domain.id_ranges import free_range
from virtmgr.domain.plan import Memory
from virtmgr.domain.sync import DesiredImage, DesiredWorkload
from virtmgr.domain.workload import Kind

_FILES_AT_ONCE = 16  # that are written

_log = structlog.get_logger()


class Book:
    """An entry for each workload. Thread-safe; it calls nobody while it holds its lock."""

    def __init__(self, files: StateFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._saving = tuple(threading.Lock() for _ in range(_FILES_AT_ONCE))

    def load(self) -> None:
        """Take up what was kept on disk."""
        self._entries = self._files.load()

    # ---- what it has

    def entry(self, workload_id: str) -> Entry | None:
        """The entry of a workload."""
        with self._lock:
            return self._entries.get(workload_id)

    def entries(self) -> list[Entry]:
        """All of them, as they are now."""
        with self._lock:
            return list(self._entries.values())

    def ids(self) -> set[str]:
        """Of all workloads."""
        with self._lock:
            return set(self._entries)

    def desired(self, workload_id: str) -> DesiredWorkload | None:
        """What is desired of a workload; None: it is not of this host."""
        entry = self.entry(workload_id)
        return entry.desired if entry is not None else None

    def by_kind(self) -> dict[Kind, list[str]]:
        """Ids by kind, to ask their drivers for usage."""
        found: dict[Kind, list[str]] = {}
        for entry in self.entries():
            found.setdefault(entry.desired.kind, []).append(entry.desired.id)
        return found

    def images(self) -> list[DesiredImage]:
        """What the workloads need, running or not; some more than once."""
        workloads = [entry.desired for entry in self.entries()]
        return [image for w in workloads for image in (w.image, w.cdrom) if image is not None]

    def highly_available(self) -> frozenset[str]:
        """Ids of the workloads that end with the host's lease."""
        return frozenset(e.desired.id for e in self.entries() if e.desired.spec.ha.enabled)

    def needs_volume(self, volume_id: str) -> bool:
        """Whether a workload has the volume."""
        return any(
            volume.id == volume_id for entry in self.entries() for volume in entry.desired.volumes
        )

    # ---- what is desired

    def want(self, workload: DesiredWorkload) -> Entry | None:
        """Note what is desired of a workload, in memory only; what was known of it before."""
        with self._lock:
            known = self._entries.get(workload.id)
            if known is not None:
                self._entries[workload.id] = replace(known, desired=workload)
            else:
                self._entries[workload.id] = self._new_entry(workload)
            return known

    def want_again(self, workload_id: str, known: Entry | None) -> None:
        """Undo ``want``: what could not be kept on disk is not acted on."""
        with self._lock:
            if known is None:
                self._entries.pop(workload_id, None)
            else:
                current = self._entries.get(workload_id, known)
                self._entries[workload_id] = replace(current, desired=known.desired)

    def _new_entry(self, workload: DesiredWorkload) -> Entry:
        base = 0
        if workload.kind is Kind.CONTAINER:
            base = free_range({entry.id_base for entry in self._entries.values()})
        return Entry(desired=workload, id_base=base)

    # ---- what is remembered

    def remember(
        self, entry: Entry, memory: Memory, *, needed: bool = False, durable: bool = False
    ) -> Entry:
        """Keep ``memory``; what is desired may have changed meanwhile and stays as it is.

        :param needed: what comes next must not happen unless it is on disk. Without it a crash
            may let the last step be done again, which is no harm.
        :raises StorageError: it is needed, and cannot be written.
        """
        with self._lock:
            current = self._entries.get(entry.desired.id, entry)
            self._entries[entry.desired.id] = replace(current, memory=memory)
        if memory != entry.memory:
            try:
                self.save(entry.desired.id, durable=durable)
            except StorageError as error:
                if needed:
                    raise
                _log.warning("workload.not_kept", workload=entry.desired.id, error=error.message)
        return replace(entry, memory=memory)

    def forget(self, workload_id: str) -> None:
        """Nothing is left of a workload."""
        with self._lock:
            self._entries.pop(workload_id, None)
        self.save(workload_id, durable=True)

    def save(self, workload_id: str, *, durable: bool) -> None:
        """Write a workload as it is now; two threads never write one workload's file at once.

        :raises StorageError: it cannot be written.
        """
        with self._saving[hash(workload_id) % len(self._saving)]:
            entry = self.entry(workload_id)
            if entry is not None:
                self._files.save(entry, durable=durable)
            else:
                self._files.remove(workload_id)
