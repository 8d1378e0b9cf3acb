"""Memory of virtmgr's processes: the proportional set size, in which shared pages count once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_WHO = (
    ("control plane", re.compile(r"virtmgr serve|virtmgr\.bootstrap\.")),
    ("agent", re.compile(r"virtmgr agent")),
    ("monitors", re.compile(r"^/usr/bin/conmon")),
    ("dnsmasq", re.compile(r"dnsmasq")),
)


@dataclass(frozen=True)
class Memory:
    """Megabytes by part of virtmgr."""

    parts: dict[str, float]

    @classmethod
    def now(cls) -> Memory:
        parts = {who: 0.0 for who, _ in _WHO}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                rollup = (directory / "smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for who, pattern in _WHO:
                if pattern.search(command):
                    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
                    parts[who] += int(found[1]) * 1024 / 1e6 if found else 0.0
                    break
        return cls(parts)

    def of(self, who: str) -> float:
        return self.parts[who]

    @property
    def total(self) -> float:
        return sum(self.parts.values())
