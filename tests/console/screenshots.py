"""Make the pictures of the web console that README.md and docs/console.md show.

    make screenshots        (or python -m tests.console.screenshots [--directory docs/images])

Where Pillow is installed (pip install pillow) they are made a third as large.

They are of a real control plane with three hosts, whose workloads are imaginary. A page that is not
there is left out, and told.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.console.browser import DESKTOP, PHONE, Viewer, chromium, viewer
from tests.console.busy import BusyDriver
from tests.console.installation import PASSWORD, Installation, installation
from tests.scaleout.client import wait_until
from virtmgr.domain.errors import DriverError

ROOT: Final = Path(__file__).parents[2]
LARGEST: Final = 150 * 1024  # bytes of a picture
_SETTLED: Final = "() => !document.querySelector('.htmx-request')"

PROJECTS: Final = {
    "shop": "The web shop and what it needs",
    "analytics": "Reports, and the warehouse behind them",
    "platform": "What all teams use: builds, registry, monitoring",
}
CONTAINERS: Final = {
    ("shop", "app"): ("frontend-1", "frontend-2", "frontend-3", "checkout-1", "checkout-2"),
    ("shop", "system"): ("mail",),
    ("analytics", "app"): ("ingest-1", "ingest-2", "reports"),
    ("analytics", "system"): ("notebooks",),
    ("platform", "app"): ("registry", "metrics", "logs"),
    ("platform", "system"): ("ci-runner-1", "ci-runner-2"),
}
MACHINES: Final = {
    "shop": ("orders-db", "search"),
    "analytics": ("warehouse",),
    "platform": ("ldap", "windows-build"),
}


@dataclass(frozen=True)
class Shot:
    """One picture of a page."""

    name: str
    path: str
    size: dict[str, int] | None = None  # None: a desktop's
    theme: str = "light"


SHOTS: Final = (
    Shot("overview", "/"),
    Shot("workloads", "/workloads"),
    Shot("workload", "/projects/shop/workloads/frontend-1"),
    Shot("create", "/workloads/create"),
    Shot("hosts", "/hosts", theme="dark"),
    Shot("topology", "/networks/topology"),
    Shot("phone", "/", size=PHONE),
)


def furnish(found: Installation) -> None:
    """What a small company might run; one of it does not start."""
    for project, description in PROJECTS.items():
        found.call("POST", "/projects", {"name": project, "description": description})
        limits = {"limit_vcpus": 24, "limit_memory": "48GiB", "limit_workloads": 40}
        found.call("PATCH", f"/projects/{project}/quota", limits)
    for name, shown in {"maria": "Maria Lopez", "jan": "Jan Novak"}.items():
        found.call("POST", "/users", {"name": name, "display_name": shown})
    found.call("POST", "/role-bindings", {"user": "maria", "role": "member", "project": "shop"})
    found.call("POST", "/role-bindings", {"user": "jan", "role": "operator"})
    backend = {"name": "backend", "type": "overlay", "ipv4": "10.90.0.0/24"}
    found.call("POST", "/projects/shop/networks", backend)
    for project, name, size in (("shop", "orders", "40GiB"), ("analytics", "lake", "400GiB")):
        found.call("POST", f"/projects/{project}/volumes", {"name": name, "size": size})
    for (project, init), names in CONTAINERS.items():
        for name in names:
            spec = {"kind": "container", "init": init, "image": "busybox"}
            _create(found, project, name, spec)
    for project, names in MACHINES.items():
        for name in names:
            resources = {"vcpus": 2, "memory": "4GiB"}
            _create(found, project, name, {"kind": "vm", "image": "debian", "resources": resources})
    _create(found, "shop", "payments", {"kind": "container", "image": "busybox"}, fails=True)
    found.call("POST", "/projects/platform/workloads/windows-build/stop", {"force": True})
    wait_until(lambda: _running(found) == [])


def _create(
    found: Installation, project: str, name: str, spec: dict[str, object], *, fails: bool = False
) -> None:
    tier = name.split("-")[0]
    body = {"name": name, "labels": {"tier": tier}, **spec}
    if fails:
        wait_until(lambda: _running(found) == [])
    for host in found.hosts if fails else ():
        error = DriverError("the container's program 'payd' is not in its image")
        host.world.script.fail("start", error, times=1000)
    found.call("POST", f"/projects/{project}/workloads", body)
    if fails:
        wait_until(lambda: _running(found) == [])
        for host in found.hosts:
            host.world.script.failures.clear()


def _running(found: Installation) -> list[object]:
    operations = found.call("GET", "/operations?limit=100")["items"]
    return [each for each in operations if each["finished_at"] is None]


def take(seen: Viewer, shot: Shot, target: Path) -> bool:
    """Make one picture; whether its page is there."""
    answer = seen.page.goto(seen.url + shot.path, wait_until="load")
    if answer is None or answer.status != 200:
        return False
    seen.page.wait_for_function(_SETTLED)
    seen.page.wait_for_timeout(800)
    seen.page.screenshot(path=target)
    return True


def shrink(picture: Path) -> None:
    """To 256 colours, which are enough for a page, where Pillow is installed."""
    if importlib.util.find_spec("PIL") is None:
        return
    pillow = importlib.import_module("PIL.Image")
    with pillow.open(picture) as whole:
        small = whole.convert("RGB").quantize(256, dither=pillow.Dither.NONE)
    small.save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=ROOT / "docs/images")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="virtmgr-pictures-") as directory,
        installation(Path(directory), driver=BusyDriver) as found,
        chromium() as browser,
    ):
        furnish(found)
        for shot in SHOTS:
            target = options.directory / f"console-{shot.name}.png"
            with viewer(browser, found.url, shot.size or DESKTOP, shot.theme) as seen:
                seen.page.set_default_timeout(60_000)
                seen.log_in("admin", PASSWORD)
                if not take(seen, shot, target):
                    print(f"{shot.path} is not there: no {target.name}")
                    continue
            shrink(target)
            size = target.stat().st_size
            print(f"{target.name}  {size:,} bytes{'  LARGE' if size > LARGEST else ''}")


if __name__ == "__main__":
    main()
