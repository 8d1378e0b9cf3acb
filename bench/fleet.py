"""The control plane with a simulated fleet: what hosts, lists, creates and events cost, and how it
grows.

    python -m bench.fleet [--hosts 500] [--workloads 5000] [--sqlite] [--only PART …] [--growth]

PostgreSQL with a cluster of its own on a Unix socket, the real ``virtmgr serve`` with its three
processes, and ``virtmgr sim``, all on the CPUs of this machine. With ``--growth`` each part is run
at a tenth, a third and all of the size, and the exponent of its growth is shown: 0 is constant, 1
is linear. Hosts and guests are simulated; the control plane, the protocol and TLS are real.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.fleet_fill import fill
from bench.fleet_site import Site, site
from tests.fixtures.control_plane import PREFIX, Client
from virtmgr.sim.figures import percentile
from virtmgr.store.repositories.hosts import SqlHosts
from virtmgr.store.repositories.workloads import SqlWorkloads

Figures = dict[str, float]
"""What a part measured, by name with its unit in brackets."""

_RATE = 30.0  # requests a second of mixed load
_MIXED_LISTS = (
    "/workloads?limit=50&sort=-created_at",
    "/hosts?limit=50",
    "/workloads?limit=50&state=failed",
    "/operations?limit=50",
)
_QUIET = 40.0  # syncs a second of a whole fleet of which nothing is news, at most
_OUR_PARTS = ("web", "worker", "hub", "supervisor")


@dataclass(frozen=True)
class Size:
    hosts: int
    workloads: int


def _of_ours(by_part: Mapping[str, float]) -> float:
    """What all processes of the control plane have of it."""
    return sum(by_part[part] for part in _OUR_PARTS)


def heartbeats(found: Site, size: Size, seconds: float) -> Figures:
    """What it costs that hosts are there: CPU of each process while nothing is asked."""
    del size
    cores = found.cores(seconds)
    return {
        "control plane, hosts idle [cores]": _of_ours(cores),
        "PostgreSQL, hosts idle [cores]": cores["PostgreSQL"],
        "simulated fleet [cores]": cores["simulated fleet"],
    }


def memory(found: Site, size: Size, seconds: float) -> Figures:
    """PSS of each process of the control plane."""
    del size, seconds
    used = found.memory()
    ours = {f"memory of {part} [MB]": used[part] for part in _OUR_PARTS}
    return {**ours, "memory of the control plane [MB]": _of_ours(used)}


def memory_after(found: Site, size: Size, seconds: float) -> Figures:
    """The same once all the rest was asked of it: what bursts leave is not given back."""
    del size, seconds
    return {"memory of the control plane after all of it [MB]": _of_ours(found.memory())}


def lists(found: Site, size: Size, seconds: float) -> Figures:
    """Pages of 50: sorted by each column that is offered, and filtered; each asked anew after a
    change, so that no answer is kept from before."""
    del seconds
    client = found.client()
    project = client.call("GET", "/workloads?limit=1").body["items"][0]["project"]["name"]
    workloads = [f"/workloads?sort={sign}{name}" for name in SqlWorkloads.listing.orders
                 for sign in ("", "-")]  # fmt: skip
    hosts = [f"/hosts?sort={name}" for name in SqlHosts.listing.orders]
    filtered = (
        "/workloads?state=running&sort=-created_at",
        "/workloads?state=failed",
        "/workloads?kind=container&sort=name",
        "/workloads?label=team:t7",
        "/workloads?host=sim00002",
        f"/workloads?q=workload-{size.workloads - 7}",
        "/workloads?q=77",
        f"/projects/{project}/workloads?sort=name",
        "/hosts?label=rack:rack-1",
        "/hosts?state=ready&q=sim0000",
        "/events",
        "/operations",
    )
    times: dict[str, list[float]] = {}
    for path in (*workloads, *hosts, *filtered):
        separator = "&" if "?" in path else "?"
        for number in range(6):
            client.call("PATCH", "/projects/default", {"description": str(number)})
            began = time.perf_counter()
            answer = client.call("GET", f"{path}{separator}limit=50")
            took = 1000 * (time.perf_counter() - began)
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {answer.body}")
            if number:
                times.setdefault(path, []).append(took)
    for path, some in sorted(times.items(), key=lambda each: -statistics.median(each[1]))[:8]:
        print(f"    {statistics.median(some):7.1f} ms  {path}", flush=True)
    every = [one for some in times.values() for one in some]
    return {
        "list of 50, all sorts and filters, p50 [ms]": percentile(every, 0.5),
        "list of 50, all sorts and filters, p95 [ms]": percentile(every, 0.95),
        "list of 50, the slowest, median [ms]": max(map(statistics.median, times.values())),
    }


def mixed(found: Site, size: Size, seconds: float) -> Figures:
    """Creates, changes, deletes and lists at 30 requests a second in all, and a watcher."""
    del size
    watcher = _Watcher(found)
    watcher.start()
    load = _Load(found, seconds)
    before, began = found.cpu(), time.monotonic()
    load.run()
    time.sleep(2)
    after, passed = found.cpu(), time.monotonic() - began
    watcher.stop()
    used = {part: after[part] - before[part] for part in after}
    taken = load.times
    many = sum(map(len, taken.values()))
    return {
        "CPU of web for each request and its syncs [ms]": 1000 * used["web"] / many,
        "control plane meanwhile [cores]": _of_ours(used) / passed,
        "PostgreSQL meanwhile [cores]": used["PostgreSQL"] / passed,
        "simulated fleet meanwhile [cores]": used["simulated fleet"] / passed,
        "create, p50 [ms]": percentile(taken["create"], 0.5),
        "create, p95 [ms]": percentile(taken["create"], 0.95),
        "list meanwhile, p95 [ms]": percentile(taken["list"], 0.95),
        "event to a watcher, p95 [ms]": percentile(watcher.delays, 0.95),
        "requests that failed": float(load.failed),
    }


def reconnect(found: Site, size: Size, seconds: float) -> Figures:
    """A thousand agents (or all) start again at once."""
    del seconds
    many = min(1000, size.hosts)
    before = [one for one in found.reports() if "settled_seconds" in one]
    reports = len(found.reports())
    began = found.cpu()["web"]
    found.tell_fleet(f"restart {many}")
    took = found.wait_settled(len(before) + 1, patience=300)
    worked = found.cpu()["web"] - began
    time.sleep(3)
    errors: Counter[str] = Counter()
    for one in found.reports()[reports:]:
        errors.update(one.get("errors", {}))
    for what, times in errors.most_common(3):
        print(f"    {times} times {what}", flush=True)
    return {
        f"{many} hosts reconnect at once, settled after [s]": took,
        "CPU of web meanwhile, for each of them [ms]": 1000 * worked / many,
        "errors of it": float(errors.total()),
    }


PARTS: Mapping[str, Callable[[Site, Size, float], Figures]] = {
    "heartbeats": heartbeats,
    "memory": memory,
    "lists": lists,
    "mixed": mixed,
    "reconnect": reconnect,
    "memory_after": memory_after,
}


class _Load:
    """Requests at a fixed rate, whether earlier ones are answered or not."""

    def __init__(self, found: Site, seconds: float) -> None:
        self.times: dict[str, list[float]] = {"create": [], "list": [], "change": [], "delete": []}
        self.failed = 0
        self._found = found
        self._count = int(_RATE * seconds)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._made: list[str] = []

    def run(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(12) as pool:
            for number in range(self._count):
                time.sleep(max(0.0, began + number / _RATE - time.monotonic()))
                pool.submit(self._one, number, time.perf_counter())

    def _one(self, number: int, due: float) -> None:
        kind = ("create", "list", "list", "change", "list", "list")[number % 6]
        if number % 12 == 9 and len(self._made) > 20:
            kind = "delete"
        try:
            status = self._ask(kind, number)
        except OSError:
            status = 599
        with self._lock:
            self.times[kind].append(1000 * (time.perf_counter() - due))
            self.failed += status >= 400

    def _ask(self, kind: str, number: int) -> int:
        client: Client = getattr(self._local, "client", None) or self._found.client()
        self._local.client = client
        base = "/projects/default/workloads"
        if kind == "create":
            name = f"mixed-{os.getpid()}-{number}-{int(time.time())}"
            spec = {"name": name, "kind": "container", "image": "busybox",
                    "resources": {"vcpus": 0.1, "memory": "64MiB"},
                    "nics": [{"network": "default"}]}  # fmt: skip
            status = client.call("POST", base, spec).status
            if status < 400:
                self._made.append(name)
            return status
        if kind == "list":
            path = _MIXED_LISTS[number % len(_MIXED_LISTS)]
            return client.call("GET", path).status
        if not self._made:
            return 0
        if kind == "delete":
            return client.call("DELETE", f"{base}/{self._made.pop(0)}").status
        body = {"labels": {"n": str(number)}}
        return client.call("PATCH", f"{base}/{self._made[number % len(self._made)]}", body).status


class _Watcher(threading.Thread):
    """Follows the log; how long after its time of day each event is here."""

    def __init__(self, found: Site) -> None:
        super().__init__(daemon=True)
        self.delays: list[float] = []
        self._ended = False
        client = found.client()
        self._connection = client._connection
        headers = {"Authorization": f"Bearer {found.server.token}", "Accept": "text/event-stream"}
        self._connection.request("GET", f"{PREFIX}/events", headers=headers)
        self._answer = self._connection.getresponse()

    def run(self) -> None:
        for data in self._lines():
            at = datetime.fromisoformat(json.loads(data)["at"]).timestamp()
            self.delays.append(1000 * (time.time() - at))

    def stop(self) -> None:
        self._ended = True

    def _lines(self) -> Iterator[bytes]:
        while not self._ended:
            line = self._answer.readline()
            if not line:
                return
            if line.startswith(b"data: "):
                yield line[6:]


def measure(
    size: Size,
    *,
    postgresql: bool,
    only: list[str],
    seconds: float,
    failing: float = 0.0,
    web_processes: int = 1,
) -> Figures:
    """All parts at one size."""
    figures: Figures = {}
    with site(postgresql=postgresql, hosts=size.hosts, web_processes=web_processes) as found:
        if size.workloads:
            began = time.monotonic()
            fill(found.server, size.workloads)
            print(f"  {size.workloads} workloads filled in, {time.monotonic() - began:.0f} s")
        ramp = max(2.0, size.hosts / 50)
        found.start_fleet(size.hosts, "--pace", "0.1", "--failing", str(failing), ramp=ramp)
        found.wait_settled(patience=ramp + 600)
        print(f"  {size.hosts} simulated hosts have come up", flush=True)
        _wait_quiet(found, size)
        for name, part in PARTS.items():
            if name in only:
                some = part(found, size, seconds)
                figures |= some
                for what, value in some.items():
                    print(f"  {what:58} {value:10.2f}", flush=True)
    return figures


def _wait_quiet(found: Site, size: Size) -> None:
    """Until hosts have reported all workloads, and renew their leases by heartbeats."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        time.sleep(4)
        last = [one for one in found.reports() if "beats" in one][-3:]
        busy = sum(one["syncs"] for one in last) / max(1e-9, sum(one["seconds"] for one in last))
        running = last[-1]["running"] if last else 0
        if running >= size.workloads and busy <= _QUIET:
            return
    print(f"  it has not become quiet: {last[-1:]}", flush=True)


def growth(sizes: list[Size], figures: list[Figures]) -> None:
    """The exponents of growth, by least squares over all sizes."""
    print("\n| figure | " + " | ".join(f"{s.hosts} hosts, {s.workloads} workloads" for s in sizes)
          + " | exponent |\n|---|" + "---|" * (len(sizes) + 1))  # fmt: skip
    for what in figures[-1]:
        values = [one.get(what) for one in figures]
        if any(value is None for value in values):
            continue
        points = [(math.log(size.hosts), math.log(max(value or 0.0, 1e-6)))
                  for size, value in zip(sizes, values, strict=True)]  # fmt: skip
        slope = statistics.linear_regression(*zip(*points, strict=True)).slope
        shown = " | ".join(f"{value:.2f}" for value in values if value is not None)
        print(f"| {what} | {shown} | {slope:.2f} |")


def quick() -> None:
    """A small fleet, in less than two minutes: for ``bench/quick.py``."""
    for postgresql in (True,):
        measure(
            Size(60, 600), postgresql=postgresql, only=["heartbeats", "memory", "lists", "mixed"],
            seconds=10,
        )  # fmt: skip


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # all that was started ends too
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--workloads", type=int, default=5000)
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL")
    parser.add_argument("--web-processes", type=int, default=1, help="that share the work")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--growth", action="store_true", help="at 1/10, 1/3 and all of the size")
    options = parser.parse_args()
    shares = (10, 3, 1) if options.growth else (1,)
    sizes = [Size(options.hosts // part, options.workloads // part) for part in shares]
    figures = []
    for size in sizes:
        print(f"\nSIMULATED: {size.hosts} hosts, {size.workloads} workloads, "
              f"{'SQLite' if options.sqlite else 'PostgreSQL'}", flush=True)  # fmt: skip
        figures.append(
            measure(
                size,
                postgresql=not options.sqlite,
                only=options.only,
                seconds=options.seconds,
                web_processes=options.web_processes,
            )
        )
    if options.growth:
        growth(sizes, figures)
    print(f"\n{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
