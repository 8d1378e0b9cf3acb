"""The whole product on one machine, against the floor: ``make bench`` (``--full`` for 100 each).

It runs ``scripts/up`` on a throw-away host (``scripts/in-lab``) and asks through REST, as a client
does. Floors and products take turns, so that the machine's noise falls on all alike: compare the
ratios of one run, not milliseconds of two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.floor import BareContainer, BareVm
from bench.memory import Memory
from bench.others import OtherTool, other_tools
from bench.rest import Rest

ROOT = Path(__file__).resolve().parents[1]
_SMALL = {"vcpus": 0.05, "memory": "16MiB"}
_AT_ONCE = 8
_LAUNCHES = 100  # alive at once, so within the capacity of a host


def container(name: str) -> dict[str, object]:
    return {
        "name": name,
        "kind": "container",
        "image": "busybox",
        "command": ["sleep", "100000"],
        "resources": _SMALL,
        "root_disk": {"size": "64MiB"},
        "stop_timeout": 0,
    }


def vm(name: str) -> dict[str, object]:
    return {
        "name": name,
        "kind": "vm",
        "image": "busybox-vm",
        "resources": {"vcpus": 1, "memory": "64MiB"},
        "root_disk": {"size": "16MiB"},
    }


class Table:
    """Rows of figures, as Markdown."""

    def __init__(self) -> None:
        self._floor: dict[str, float] = {}
        print("| what | median | p95 | ratio to the floor |\n|---|---|---|---|", flush=True)

    def times(
        self, what: str, seconds: list[float], *, floor: str | None = None, is_floor: bool = False
    ) -> None:
        """One row; ``floor`` names the row whose median this one's is a multiple of."""
        milliseconds = sorted(1000 * each for each in seconds)
        median = statistics.median(milliseconds)
        p95 = milliseconds[min(len(milliseconds) - 1, int(0.95 * len(milliseconds)))]
        if is_floor and floor is not None:
            self._floor[floor] = median
        ratio = f"{median / self._floor[floor]:.2f}" if floor is not None else ""
        print(f"| {what} | {median:.1f} ms | {p95:.1f} ms | {ratio} |", flush=True)

    def figure(self, what: str, value: str, note: str = "") -> None:
        print(f"| {what} | {value} | | {note} |", flush=True)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def life(rest: Rest, name: str) -> tuple[float, float]:
    """Seconds from POST to running, and of stop and delete."""
    start = timed(lambda: rest.create(container(name)))
    end = timed(lambda: (rest.stop(name), rest.delete(name)))
    return start, end


def containers(table: Table, rest: Rest, count: int, others: list[OtherTool]) -> None:
    """One after the other: the floor, virtmgr, and what else is installed, in turns."""
    life(rest, "warm-up")
    starts: dict[str, list[float]] = {}
    ends: dict[str, list[float]] = {}
    with BareContainer.prepared(rest, container("bare")) as bare:
        runs: dict[str, Callable[[int], tuple[float, float]]] = {
            "floor: crun, veth, bridge": lambda _: (timed(bare.start), timed(bare.end)),
            "virtmgr": lambda number: life(rest, f"one-{number}"),
        }
        for tool in others:
            runs[tool.name] = lambda _, tool=tool: (timed(tool.start), timed(tool.end))  # type: ignore[misc]
        for number in range(count):
            for who, run in runs.items():
                start, end = run(number)
                starts.setdefault(who, []).append(start)
                ends.setdefault(who, []).append(end)
    for what, found in (("container, POST to running", starts), ("stop and delete", ends)):
        for who, seconds in found.items():
            table.times(f"{what}: {who}", seconds, floor=what, is_floor=who.startswith("floor"))


def in_parallel(table: Table, rest: Rest, count: int, others: list[OtherTool]) -> None:
    """Many at a time: launches a second of virtmgr, and of what else is installed."""
    starts_and_ends: dict[str, tuple[Callable[[str], None], Callable[[str], None]]] = {
        "virtmgr": (
            lambda name: rest.thread_local().create(container(name)),
            lambda name: rest.thread_local().delete(name),
        ),
        **{tool.name: (tool.start, tool.end) for tool in others},
    }
    names = [f"many-{number}" for number in range(count)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for who, (start, end) in starts_and_ends.items():
            took = timed(lambda start=start: list(pool.map(start, names)))  # type: ignore[misc]
            list(pool.map(end, names))
            what = f"launches a second, {_AT_ONCE} at a time: {who}"
            table.figure(what, f"{count / took:.1f}")


def vms(table: Table, rest: Rest, count: int) -> None:
    ours, floor = [], []
    rest.create(vm("warm-up"))
    rest.delete("warm-up")
    with BareVm.prepared(rest, vm("bare")) as bare:
        for number in range(count):
            floor.append(timed(bare.start))
            bare.end()
            ours.append(timed(lambda number=number: rest.create(vm(f"vm-{number}"))))  # type: ignore[misc]
            rest.delete(f"vm-{number}")
    what = "VM, POST to QEMU running"
    table.times(f"{what}: floor: virsh define + start", floor, floor=what, is_floor=True)
    table.times(f"{what}: virtmgr", ours, floor=what)


def a_hundred(table: Table, rest: Rest) -> None:
    """What a hundred containers cost to keep, and to list."""
    before = Memory.now()
    names = [f"c-{number}" for number in range(100)]
    seconds = [timed(lambda name=name: rest.create(container(name))) for name in names]  # type: ignore[misc]
    table.times("100 containers in sequence, POST to running", seconds)
    time.sleep(12)  # until every agent has told what they use
    after = Memory.now()
    for who in ("control plane", "agent"):
        table.figure(
            f"memory of the {who}, at 3 and at 103 workloads",
            f"{before.of(who):.0f} MB, {after.of(who):.0f} MB",
            "PSS",
        )
    each = (after.total - before.total) / len(names)
    table.figure("memory for each container beyond its own processes", f"{each:.2f} MB", "PSS")
    for clients in (1, _AT_ONCE):
        table.figure(
            f"lists of 100 workloads a second, {clients} clients",
            f"{lists_a_second(rest, clients):.0f}",
        )
    table.times("list of 100 workloads after a change", lists_after_a_change(rest))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: rest.thread_local().delete(name), names))


def lists_after_a_change(rest: Rest, count: int = 40) -> list[float]:
    """Seconds for each list when the one before it does not hold any more."""
    found = []
    for number in range(count):
        rest.change_something(number)
        found.append(timed(lambda: rest.list(100)))
    return found


def lists_a_second(rest: Rest, clients: int, seconds: float = 5.0) -> float:
    def ask(_: int) -> int:
        mine, done, until = rest.thread_local(), 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            assert len(mine.list(100)) == 100
            done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(ask, range(clients))) / seconds


@contextmanager
def product() -> Iterator[Rest]:
    """virtmgr on this throw-away host."""
    virtmgr = str(ROOT / ".venv/bin/virtmgr")
    cache = {"VIRTMGR_BUILD_CACHE": str(ROOT / ".cache/build"), "VIRTMGR_PROJECT": "default"}
    os.environ.update(cache)
    subprocess.run([str(ROOT / "scripts/up")], check=True, stdout=subprocess.DEVNULL)
    token = subprocess.run(
        [virtmgr, "token", "create", "bench", "--expires", "1d"],
        check=True,
        capture_output=True,
        text=True,
    )
    yield Rest(token.stdout.strip())
    subprocess.run([str(ROOT / "scripts/clean-host")], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="100 rounds instead of 20")
    parser.add_argument("--only", choices=["containers", "parallel", "vms", "hundred"])
    options = parser.parse_args()
    if os.environ.get("VIRTMGR_LAB") != "ready":
        sys.exit("this changes the whole host: run it by 'make bench'")
    count = 100 if options.full else 20
    parts: dict[str, Callable[[Table, Rest], None]] = {
        "containers": lambda table, rest: containers(table, rest, count, others),
        "parallel": lambda table, rest: in_parallel(table, rest, _LAUNCHES, others),
        "vms": lambda table, rest: vms(table, rest, max(5, count // 4)),
        "hundred": a_hundred,
    }
    with other_tools() as others, product() as rest:
        table = Table()
        for name, part in parts.items():
            if options.only in (None, name):
                part(table, rest)
    print(f"\n{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
