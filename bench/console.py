"""The server's time for each page of the console, with a full inventory, on this machine.

    python -m bench.console [--workloads 10000] [--hosts 500] [--times 15]

A real web process over TLS on SQLite, asked by one keep-alive connection. Between two answers
something is committed, so that no answer is one of before: it is what a page costs while things
change. "kept" is the same page while nothing does.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fixtures.control_plane import Client, Server, new_control_plane, served
from tests.fixtures.full_inventory import fill

AIM = 50.0  # milliseconds
LARGEST = 100 * 1024  # bytes of HTML
PASSWORD = "correct horse battery staple"
PAGES = (
    "/",
    "/workloads",
    "/workloads?q=workload-99",
    "/workloads?kind=vm&state=failed&sort=-created_at",
    "/projects/project-1/workloads/workload-1",
    "/hosts",
    "/hosts/host-1",
    "/clusters",
    "/images",
    "/volumes",
    "/networks",
    "/projects",
    "/projects/project-1",
    "/users",
    "/operations",
    "/events",
    "/settings",
    "/account",
    "/tasks",
    "/palette?q=workload-1",
    "/workloads/create",
)


class Browser:
    """One connection of somebody who is logged in."""

    def __init__(self, server: Server) -> None:
        endpoint = server.settings.listen
        self._connection = http.client.HTTPSConnection(
            endpoint.host, endpoint.port, context=server.tls(), timeout=120
        )
        self._headers: dict[str, str] = {}
        form = urlencode({"name": "admin", "password": PASSWORD})
        self._connection.request(
            "POST", "/login", form, {"Content-Type": "application/x-www-form-urlencoded"}
        )
        answer = self._connection.getresponse()
        answer.read()
        cookie = re.match(r"[^;]+", answer.headers["Set-Cookie"])
        assert cookie is not None
        self._headers = {"Cookie": cookie[0]}

    def get(self, path: str) -> tuple[float, int, int]:
        """Milliseconds, status and bytes."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        size = len(answer.read())
        return (time.perf_counter() - begun) * 1000, answer.status, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--others", type=int, default=500, help="of each other noun")
    parser.add_argument("--times", type=int, default=15, help="that each page is asked")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="virtmgr-bench-") as directory:
        server = new_control_plane(Path(directory))
        with server.inventory() as uow:
            fill(uow, workloads=arguments.workloads, hosts=arguments.hosts, others=arguments.others)
        with served(server):
            client = Client(server)
            client.call("PUT", "/users/admin/password", {"password": PASSWORD})
            browser = Browser(server)
            slow = sum([_measure(browser, client, path, arguments.times) for path in PAGES])
    print(f"{slow} pages miss the aim of {AIM:.0f} ms, or are larger than {LARGEST:,} bytes")


def _measure(browser: Browser, client: Client, path: str, times: int) -> bool:
    """Print one line; whether the page misses the aim."""
    _, status, size = browser.get(path)
    if status != 200:
        print(f"{path:52} {status}")
        return False
    fresh = []
    for number in range(times):
        client.call("PATCH", "/projects/default", {"description": str(number)})
        fresh.append(browser.get(path)[0])
    kept = [browser.get(path)[0] for _ in range(times)]
    median = statistics.median(fresh)
    misses = median > AIM or size > LARGEST
    print(
        f"{path:52} {median:7.1f} ms   kept {statistics.median(kept):6.1f} ms   {size:8,} bytes"
        f"{'   MISSES' if misses else ''}",
        flush=True,
    )
    return misses


class _Raw(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


if __name__ == "__main__":
    main()
