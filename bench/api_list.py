"""How many lists of 100 workloads a second the REST API answers, against a bare gunicorn floor.

    python bench/api_list.py [--seconds 5] [--clients 4]

The floor is a gunicorn gevent worker with the same TLS that answers the same bytes and does nothing
else. Both are asked by keep-alive connections from another process on this machine. SQLite.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fixtures.control_plane import (
    Client,
    Server,
    add_hosts,
    add_images,
    new_control_plane,
    served,
)

WORKLOADS = 100
PATH = f"/projects/default/workloads?limit={WORKLOADS}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seconds", type=float, default=5.0, help="to spend on each figure")
    parser.add_argument("--clients", type=int, default=4, help="connections at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = new_control_plane(Path(directory))
        with server.inventory() as uow:
            add_hosts(uow, 4)
            add_images(uow)
        with served(server):
            answer = fill(server)
            product = measure(server, arguments.clients, arguments.seconds)
        server.log.with_suffix(".answer").write_bytes(answer)
        with served(server, module="bench.api_floor"):
            floor = measure(server, arguments.clients, arguments.seconds)
    print(f"bytes      {len(answer):,}")
    print(f"floor/s    {floor:,.0f}")
    print(f"virtmgr/s  {product:,.0f}   {floor / product:.1f} x floor")


def fill(server: Server) -> bytes:
    """Create the workloads; the list of them."""
    client = Client(server)
    spec = {
        "name": "web",
        "kind": "container",
        "image": "busybox",
        "resources": {"vcpus": 0.1, "memory": "16MiB"},
        "labels": {"tier": "front"},
        "nics": [{}],
    }
    made = client.call("POST", f"/projects/default/workloads?count={WORKLOADS}", spec)
    assert made.status == 202, made.body
    return client.raw(PATH)


def measure(server: Server, clients: int, seconds: float) -> float:
    """Answers a second that ``clients`` connections get together."""
    with multiprocessing.get_context("fork").Pool(clients) as pool:
        counts = pool.starmap(_ask, [(server, seconds)] * clients)
    return sum(counts) / seconds


def _ask(server: Server, seconds: float) -> int:
    client = Client(server)
    client.raw(PATH)
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        client.raw(PATH)
        count += 1
    return count


class _Raw(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    main()
