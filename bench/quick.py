"""What ``make bench-quick`` measures: parts that take less than three minutes together.

It prints figures and asserts no seconds: machines differ. A part that cannot be run is a failure.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Callable

from bench import fleet, placement, placement_quality

PARTS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("the control plane with a small simulated fleet", fleet.quick),
    ("placing: decisions, and commits on PostgreSQL", placement.quick),
    ("placing: how few hosts hold a load", placement_quality.quick),
)
"""What is measured, in order: a title, and what prints its figures."""


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # all that was started ends too
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load average {load:.1f} before")
    for title, part in PARTS:
        began = time.monotonic()
        print(f"\n== {title}", flush=True)
        part()
        print(f"   took {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
