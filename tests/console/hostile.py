"""Things whose texts try to become markup, scripts or templates where they are shown."""

from __future__ import annotations

from typing import Final

from tests.console.installation import Installation
from tests.scaleout.client import wait_until
from virtmgr.domain.errors import DriverError

NASTY: Final = (
    "\"'><b data-pwned=1></b></textarea></title></script><script>window.pwned=1;alert(1)</script>"
    '<img src=x onerror="window.pwned=1"> {{7*7}} ${7*7} javascript:alert(1) \u202e\u2028'
)

_OFTEN: Final = 1000  # more tries than anybody has the patience for


def add_hostile(found: Installation) -> None:
    """A project, a user, a cluster, an image and workloads called ``hostile``."""
    found.call("POST", "/projects", {"name": "hostile", "description": NASTY})
    found.call("POST", "/users", {"name": "hostile", "display_name": NASTY[:256]})
    found.call("POST", "/clusters", {"name": "hostile", "description": NASTY})
    workload = {
        "name": "hostile",
        "kind": "container",
        "image": "busybox",
        "description": NASTY,
        "env": {"NASTY": NASTY},
        "command": ["echo", NASTY],
    }
    found.call("POST", "/projects/hostile/workloads?wait=60", workload)
    _fail_to_start(found, {**workload, "name": "hostile-failed"})
    source = "http://127.0.0.1:1/<script>alert(1)</script>"
    found.call("POST", "/images/import?wait=60", {"name": "hostile", "source": source})


def _fail_to_start(found: Installation, workload: dict[str, object]) -> None:
    for host in found.hosts:
        error = DriverError(f"starting it failed: {NASTY}")
        host.world.script.fail("start", error, times=_OFTEN)
    operation = found.call("POST", "/projects/hostile/workloads", workload)
    path = f"/operations/{operation['id']}"
    wait_until(lambda: found.call("GET", path)["finished_at"] is not None)
    for host in found.hosts:
        host.world.script.failures.clear()
    assert NASTY in found.call("GET", path)["error"]["detail"]
