"""The imaginary host of the fake driver: its guests, and the script of what goes wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, RLock
from typing import Any

from virtmgr.domain.errors import DriverError, VirtmgrError
from virtmgr.ports.driver import Inspection, OnChange, RuntimeState


@dataclass(frozen=True)
class Guest:
    """One imaginary workload."""

    state: RuntimeState = RuntimeState.PREPARED
    workload: dict[str, Any] = field(default_factory=dict)  # as it runs
    pid: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    output: str = ""
    files: dict[str, str] = field(default_factory=dict)
    departed: bool = False  # it went to another host while it ran

    def inspect(self) -> Inspection:
        def moment(text: str | None) -> datetime | None:
            return None if text is None else datetime.fromisoformat(text)

        running = self.state in (RuntimeState.RUNNING, RuntimeState.PAUSED)
        return Inspection(
            self.state,
            exit_code=self.exit_code,
            signal=self.signal,
            oom_killed=self.oom_killed,
            started_at=moment(self.started_at),
            finished_at=moment(self.finished_at),
            pid=self.pid if running else None,
        )


@dataclass
class Script:
    """What happens to calls: by verb, or by verb and workload id (``start:ID``)."""

    delays: dict[str, float] = field(default_factory=dict)
    failures: dict[str, list[VirtmgrError]] = field(default_factory=dict)

    def delay(self, verb: str, seconds: float) -> None:
        """From now on ``verb`` takes ``seconds``."""
        self.delays[verb] = seconds

    def fail(self, verb: str, error: VirtmgrError | None = None, *, times: int = 1) -> None:
        """The next ``times`` calls of ``verb`` fail."""
        error = error or DriverError(f"cannot {verb}: the script says so", code="scripted")
        self.failures.setdefault(verb, []).extend([error] * times)

    def play(self, verb: str, workload_id: str) -> None:
        """Wait and fail as the script says."""
        for key in (f"{verb}:{workload_id}", verb):
            if key in self.delays:
                time.sleep(self.delays[key])
            if self.failures.get(key):
                raise self.failures[key].pop(0)


class FakeWorld:
    """Guests that outlive the driver; with a file, the process too. Safe in threads."""

    def __init__(self, file: Path | None = None, *, keep_calls: bool = True) -> None:
        """Make a world, or take up the one that ``file`` keeps.

        :param keep_calls: whether to note in ``calls`` what the driver was asked; a world that
            lives for days would note ever more.
        """
        self.script = Script()
        self.calls: list[tuple[str, str]] = []
        self._keep_calls = keep_calls
        self._file = file
        self._lock = RLock()
        self._condition = Condition(self._lock)
        self._listeners: list[OnChange] = []
        self._pids = 1000
        self._guests: dict[str, Guest] = {}
        if file is not None and file.exists():
            kept = json.loads(file.read_text())
            self._pids = kept["pids"]
            self._guests = {
                key: Guest(**{**guest, "state": RuntimeState(guest["state"])})
                for key, guest in kept["guests"].items()
            }

    def _save(self) -> None:
        if self._file is None:
            return
        guests = {key: asdict(guest) for key, guest in self._guests.items()}
        half = self._file.with_suffix(".new")
        half.write_text(json.dumps({"pids": self._pids, "guests": guests}))
        half.rename(self._file)

    @contextmanager
    def verb(self, name: str, workload_id: str) -> Iterator[None]:
        """One call of the driver: noted, delayed, and failed as scripted."""
        if self._keep_calls:
            with self._lock:
                self.calls.append((name, workload_id))
        self.script.play(name, workload_id)
        with self._lock:
            yield
            self._save()
            self._condition.notify_all()

    def guest(self, workload_id: str) -> Guest | None:
        with self._lock:
            return self._guests.get(workload_id)

    def guests(self) -> dict[str, Guest]:
        with self._lock:
            return dict(self._guests)

    def put(self, workload_id: str, guest: Guest) -> None:
        with self._lock:
            self._guests[workload_id] = guest

    def remove(self, workload_id: str) -> None:
        with self._lock:
            self._guests.pop(workload_id, None)

    def next_pid(self) -> int:
        with self._lock:
            self._pids += 1
            return self._pids

    def listen(self, listener: OnChange) -> Callable[[], None]:
        """Call ``listener`` on every change that is not the driver's own; call back to end that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def end(
        self, workload_id: str, *, exit_code: int = 1, signal: int | None = None, oom: bool = False
    ) -> None:
        """A guest ends by itself: a crash on demand."""
        with self._lock:
            guest = self._guests[workload_id]
            ended = replace(
                guest,
                state=RuntimeState.EXITED,
                exit_code=exit_code if signal is None else 128 + signal,
                signal=signal,
                oom_killed=oom,
                finished_at=datetime.now(UTC).isoformat(),
            )
            self._guests[workload_id] = ended
            self._save()
            self._condition.notify_all()
        for listener in tuple(self._listeners):
            listener(workload_id)

    def say(self, workload_id: str, text: str) -> None:
        """A guest writes to its log."""
        with self._lock:
            guest = self._guests[workload_id]
            self._guests[workload_id] = replace(guest, output=guest.output + text)
            self._save()
            self._condition.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until something changes, at most ``seconds``."""
        with self._lock:
            self._condition.wait(seconds)

    def reboot(self) -> None:
        """The host restarts: guests are gone, what was prepared stays."""
        with self._lock:
            for key, guest in self._guests.items():
                self._guests[key] = Guest(workload=guest.workload, files=guest.files)
            self._save()
