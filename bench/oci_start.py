"""How long a container takes to be made, started, stopped and destroyed, and where it goes.

``python bench/oci_start.py [COUNT] [--at-once N]``; needs root. Compare the ratios of one run with
``floor``: the bare runtime starting the same bundle (``crun run``), on the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.drivers.oci import kit as kits
from virtmgr.drivers.oci import conmon, lifecycle, rootfs, runtime

PARTS: dict[str, list[float]] = defaultdict(list)
_STEPS: tuple[tuple[type, str], ...] = (
    (rootfs.RootFilesystems, "make"),
    (rootfs.RootFilesystems, "mount"),
    (lifecycle.Lifecycle, "_set_up_root"),
    (conmon.Conmon, "create"),
    (runtime.Runtime, "start"),
    (runtime.Runtime, "delete"),
)


@contextmanager
def measured(name: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        PARTS[name].append((time.perf_counter() - begin) * 1000)


def instrument(owner: type, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with measured(f"  {owner.__name__}.{name.lstrip('_')}"):
            return original(*arguments, **options)

    setattr(owner, name, wrapped)


def one(kit: kits.OciKit, *, nic: bool) -> None:
    """The whole life of one container."""
    desired = kits.workload("/bin/sleep", "1000", nics=(kits.nic(),) if nic else ())
    with measured("prepare + start"):
        kit.driver.prepare(desired, kit.provision())
        kit.driver.start(desired, kit.provision())
    with measured("inspect"):
        kit.driver.inspect(desired.id)
    with measured("stats"):
        kit.driver.stats([desired.id])
    with measured("exec true"):
        kit.run(desired.id, "true")
    with measured("stop + destroy"):
        kit.driver.stop(desired.id, timeout=0, force=True)
        kit.driver.destroy(desired.id)


def floor(kit: kits.OciKit) -> None:
    """The bare runtime on a bundle of ours: create, start, delete, nothing else."""
    desired = kits.workload("/bin/true")
    kit.driver.prepare(desired, kit.provision())
    kit.driver.start(desired, kit.provision())
    place = kit.driver.places.of(desired.id)
    kit.driver.stop(desired.id, timeout=0, force=True)
    bare = kit.driver._runtime
    with measured("floor: runtime run"):
        bare.run("run", "--bundle", str(place.run), "floor")
    kit.driver.destroy(desired.id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=20)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--nic", action="store_true", help="with a veth made by ip(8), slowly")
    options = parser.parse_args()
    for owner, name in _STEPS:
        instrument(owner, name)
    with kits.oci_kit() as kit:
        one(kit, nic=False)  # makes the template of its disk
        PARTS.clear()
        for _ in range(options.count):
            one(kit, nic=options.nic)
            floor(kit)
        for name, values in PARTS.items():
            low, middle = min(values), statistics.median(values)
            print(f"{name:36} {middle:8.2f} ms median {low:8.2f} best")
        begin = time.perf_counter()
        with ThreadPoolExecutor(options.at_once) as pool:
            list(pool.map(lambda _: one(kit, nic=options.nic), range(options.count)))
        took = time.perf_counter() - begin
        print(f"{options.count / took:.1f} whole lives a second, {options.at_once} at a time")


if __name__ == "__main__":
    main()
