"""Coverage-guided fuzzing: ``python -m tests.fuzz TARGET SECONDS`` (``scripts/fuzz``).

Inputs that crash are written to ``tests/fuzz/found/TARGET/``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["virtmgr"]):
    from tests.fuzz.targets import FOUND, TARGETS, run


def main(name: str, seconds: str) -> None:
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="virtmgr-fuzz-") as corpus:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        options = ["-max_len=65536", "-rss_limit_mb=3000", "-timeout=30", "-print_final_stats=1"]
        arguments = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", corpus]
        atheris.Setup([name, *options, *arguments], lambda data: run(name, data))
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: scripts/fuzz TARGET SECONDS; targets are {', '.join(TARGETS)}")
    main(*sys.argv[1:])
