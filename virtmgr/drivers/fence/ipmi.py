"""IPMI 2.0 over LAN (RMCP+), by pyghmi, in a process of its own for each question.

pyghmi keeps its sessions and sockets in the process for good: a second session with one BMC fails,
and a BMC that is silent holds up the others. A process has a deadline, and takes all of it along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from virtmgr.domain.errors import Unavailable
from virtmgr.domain.fencing import FenceDevice
from virtmgr.drivers.fence import through
from virtmgr.ports.power import Way

_SECONDS = 30


def is_on(device: FenceDevice, password: str, way: Way | None) -> bool:
    """Chassis power state (IPMI 2.0, 28.2 Get Chassis Status)."""
    state = _ask(device, password, "state", way).get("powerstate")
    if state not in ("on", "off"):
        raise Unavailable(
            f"fence device {device.name!r} at {device.address} says that the power is {state!r}",
            code="fence_unclear",
            hint="look at the device itself",
        )
    return bool(state == "on")


def turn_off(device: FenceDevice, password: str, way: Way | None) -> None:
    """Chassis control: power down (IPMI 2.0, 28.3), without a shutdown."""
    _ask(device, password, "off", way)


def _ask(device: FenceDevice, password: str, what: str, way: Way | None) -> dict[str, Any]:
    if way is None:
        return _ask_at((device.address, device.port), device, password, what)
    with through.datagrams(way) as address:
        return _ask_at(address, device, password, what)


def _ask_at(
    address: tuple[str, int], device: FenceDevice, password: str, what: str
) -> dict[str, Any]:
    question = {
        "bmc": address[0],
        "port": address[1],
        "userid": device.user,
        "password": password,
        "what": what,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "virtmgr.drivers.fence.ipmi_session"],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(device, f"no answer in {_SECONDS} s") from error
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        said = done.stderr.strip().splitlines()
        raise _failed(device, said[-1] if said else f"it ended with {done.returncode}") from error
    if "missing" in answer:
        raise ImportError(answer["missing"])
    if "error" in answer:
        raise _failed(device, answer["error"])
    return answer


def _failed(device: FenceDevice, why: str) -> Unavailable:
    return Unavailable(
        f"fence device {device.name!r} at {device.address}, port {device.port} (IPMI) failed: "
        f"{why}",
        code="fence_failed",
        hint="are address, user and password right, and is IPMI over LAN switched on",
    )
