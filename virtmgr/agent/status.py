"""How this host gets on with its control plane, for whoever is on the host: a small file.

RUN/status.json   {"state": "synced" | "failed", "since": TIME, "error": …, "hint": …}
"""

from __future__ import annotations

import json
from pathlib import Path

from virtmgr.domain.errors import VirtmgrError
from virtmgr.ports.clock import Clock


class StatusFile:
    """Written when the state changes, whole; one of an earlier agent is removed at first."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._told: tuple[str, str, str] | None = None
        path.unlink(missing_ok=True)

    def tell(self, error: VirtmgrError | None) -> None:
        """The last sync failed with ``error``, or (None) it went well."""
        state = "synced" if error is None else "failed"
        message, hint = (error.message, error.hint or "") if error is not None else ("", "")
        if (state, message, hint) == self._told:
            return
        self._told = (state, message, hint)
        since = self._clock.now().isoformat()
        document = {"state": state, "since": since, "error": message, "hint": hint}
        partial = self._path.with_suffix(".new")
        partial.write_text(json.dumps(document) + "\n")
        partial.replace(self._path)
