"""Random faults of hosts, agents, watchdogs, networks, disks and the control plane, and a checker.

The checker looks at what really runs: every workload is a ``sleep`` of its own length, and all
hosts of the lab are processes of this machine. And it reads the event log: each failover begins
where the one before it ended.
"""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.host import LabHost
from tests.multihost.fleet import Fleet

_LOOK = 0.05  # seconds between looks at what runs


class Checker:
    """Whether a workload was ever seen to run twice; looks all the time."""

    def __init__(self, seconds_of: Mapping[str, str]) -> None:
        """:param seconds_of: by workload, for how long it sleeps, by which it is known."""
        self._names = {seconds: name for name, seconds in seconds_of.items()}
        self.twice: list[str] = []
        self.looks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Checker:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def running(self) -> dict[str, list[int]]:
        """The processes of each workload that run now."""
        found: dict[str, list[int]] = {name: [] for name in self._names.values()}
        for entry in os.listdir("/proc"):  # noqa: PTH208  often
            if entry.isdigit():
                with suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
                    if words[:1] == ["sleep"] and words[1] in self._names:
                        found[self._names[words[1]]].append(int(entry))
        return found

    def _run(self) -> None:
        while not self._ended.wait(_LOOK):
            self.looks += 1
            for name, pids in self.running().items():
                if len(pids) > 1:
                    self.twice.append(f"{time.time():.2f}: {name} runs as {pids}")


def broken_chains(fleet: Fleet) -> list[str]:
    """Failovers in the event log that do not begin where the workload was."""
    found: list[str] = []
    at: dict[str, str] = {}
    events = [
        event
        for kind in ("workload.failed_over", "workload.moved")
        for event in fleet.json("events", "--type", kind, "--limit", "500")
    ]
    for event in sorted(events, key=lambda one: int(one["sequence"])):
        name, data = event["target"]["name"], event["data"]
        if event["type"] == "workload.moved":
            at.pop(name, None)  # it is elsewhere
            continue
        if at.setdefault(name, data["from"]) != data["from"]:
            found.append(f"{name} went from {data['from']}, and was on {at[name]}")
        at[name] = data["to"]
    return found


def signal_in(host: LabHost, which: str, number: str) -> None:
    """Signal the host's own agent or watchdog."""
    pattern = {"agent": "[v]irtmgr agent", "watchdog": "[v]irtmgr.agent.watchdog"}[which]
    host.run("sh", "-c", f"kill -{number} $(pgrep -f '{pattern}')", check=False)


def kill_control_plane(fleet: Fleet, *parts: str) -> None:
    """Kill some of this fleet's own processes; they are started again."""
    data = f"VIRTMGR_DATA_DIRECTORY={fleet.environment['VIRTMGR_DATA_DIRECTORY']}\0"
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            environment = (path / "environ").read_bytes().decode(errors="replace")
            is_part = any(re.search(rf"virtmgr\.bootstrap\.{part}\b", command) for part in parts)
            if is_part and data in environment:
                os.kill(int(path.name), signal.SIGKILL)


@dataclass
class Faults:
    """Makes one fault at a time, and ends it after a while."""

    fleet: Fleet
    hosts: list[LabHost]
    chance: random.Random
    done: list[str] = field(default_factory=list)

    def one(self) -> None:
        """A random fault of a random host, of random length; maybe the control plane is hit too."""
        host = self.chance.choice(self.hosts)
        kinds: dict[str, Callable[[LabHost, float], None]] = {
            "power": self._power,
            "partition": self._partition,
            "agent stopped": self._agent_stopped,
            "agent killed": self._agent_killed,
            "watchdog killed": self._watchdog_killed,
            "watchdog stopped": self._watchdog_stopped,
            "slow network": self._slow,
            "full disk": self._full,
        }
        kind = self.chance.choice(sorted(kinds))
        seconds = self.chance.uniform(0.5, 18)
        parts = self.chance.choice([(), (), ("worker",), ("web",), ("web", "hub", "worker")])
        self.done.append(f"{kind} of {host.name} for {seconds:.1f} s, killed: {' '.join(parts)}")
        print(f"{time.time():.1f} fault {len(self.done)}: {self.done[-1]}", flush=True)
        timer = threading.Timer(
            self.chance.uniform(0, seconds), kill_control_plane, (self.fleet, *parts)
        )
        timer.start()
        kinds[kind](host, seconds)
        timer.join()

    def _power(self, host: LabHost, seconds: float) -> None:
        host.power_off()
        time.sleep(seconds)
        host.power_on()

    def _partition(self, host: LabHost, seconds: float) -> None:
        host.partition("control")
        time.sleep(seconds)
        host.heal()

    def _agent_stopped(self, host: LabHost, seconds: float) -> None:
        signal_in(host, "agent", "STOP")
        time.sleep(seconds)
        signal_in(host, "agent", "CONT")

    def _agent_killed(self, host: LabHost, _seconds: float) -> None:
        signal_in(host, "agent", "KILL")

    def _watchdog_killed(self, host: LabHost, _seconds: float) -> None:
        signal_in(host, "watchdog", "KILL")

    def _watchdog_stopped(self, host: LabHost, seconds: float) -> None:
        signal_in(host, "watchdog", "STOP")
        time.sleep(seconds)

    def _slow(self, host: LabHost, seconds: float) -> None:
        host.degrade(delay=self.chance.uniform(0.1, 2), loss=self.chance.uniform(0, 0.3))
        time.sleep(seconds)
        host.heal()

    def _full(self, host: LabHost, seconds: float) -> None:
        host.fill_disk(leave=4096)
        time.sleep(seconds)
        host.free_disk()
