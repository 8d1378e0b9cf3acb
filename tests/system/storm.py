"""A storm: requests and ``kill -9`` at random moments, and what must be true afterwards."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from signal import SIGKILL
from typing import Any

from tests.fixtures.processes import Process, processes

from . import machine
from .conftest import VIRTMGR, Product

AGENT = "bin/virtmgr agent"
SERVE = "bin/virtmgr serve"
LABEL = "storm=yes"
_PATIENCE = 240.0  # seconds to converge in; restarts by policy wait up to minutes
_ANSWER = 120.0  # seconds; processes that end again and again are started again more slowly
_STORY = 50  # kills that a failure tells of
_CONTAINER = ("--memory", "16MiB", "--disk", "64MiB", "--vcpus", "0.1", "--restart", "always")
_MAKE: dict[str, tuple[str, ...]] = {
    "app": ("--image", "busybox", *_CONTAINER),
    "sys": ("--image", "busybox-system", *_CONTAINER),
    "vm": ("--kind", "vm", "--image", "busybox-vm", "--memory", "64MiB", "--disk", "64MiB"),
}
_COMMAND = {"app": ("--", "sleep", "100000")}
_NAMES = ("app-1", "app-2", "app-3", "app-4", "sys-1", "sys-2", "vm-1", "vm-2")
_VERBS = ("start", "stop", "restart", "delete")
_AFTER = {"create": "running", "start": "running", "restart": "running", "stop": "stopped"}


@dataclass
class Storm:
    """Asks for things, kills things, and remembers what was acknowledged."""

    product: Product
    dice: random.Random
    wanted: dict[str, str] = field(default_factory=dict)  # name → power state; others are gone
    ids: set[str] = field(default_factory=set)  # of every workload that was ever seen
    done: list[str] = field(default_factory=list)  # the story so far, for who reads a failure

    def make_and_delete_one(self) -> None:
        """So that what the host keeps for the next of its kind is there before."""
        self.product.run("create", "app-1", *_MAKE["app"], *_COMMAND["app"])
        self.product.run("delete", "app-1", "--yes")

    def round(self) -> None:
        """One request, one kill in its middle; everything is started again at once."""
        name, verb = self._choose()
        request = subprocess.Popen(
            [str(VIRTMGR), *self._arguments(name, verb)],
            env=self.product.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(self.dice.uniform(0.1, 1.0))
        victim, killed = _kill_one(self.dice)
        said = request.communicate(timeout=120)[1]
        acknowledged = request.returncode == 0
        outcome = "acknowledged" if acknowledged else said.strip().replace("\n", " | ")
        self.done.append(f"{verb} {name}: {outcome}; killed {victim}: {killed.command[:70]}")
        self._revive(victim)
        if not acknowledged:
            self._ask_what_became_of(name)
        elif verb == "delete":
            self.wanted.pop(name, None)
        else:
            self.wanted[name] = _AFTER[verb]

    def settle(self) -> None:
        """Wait until everything is as it was asked for, and nothing else is on the host."""
        deadline = time.monotonic() + _PATIENCE
        wrong = self._wrong()
        while wrong:
            assert time.monotonic() < deadline, "\n".join(
                ["not as asked for:", *wrong, *self._story()]
            )
            time.sleep(0.5)
            wrong = self._wrong()

    def end(self) -> None:
        """Delete what is left, and see that no trace stays."""
        for name in list(self.wanted):
            self.product.run("delete", name, "--yes")
            del self.wanted[name]
        self.settle()

    def _story(self) -> list[str]:
        """For who reads a failure."""
        alive = [str(each) for each in processes("virtmgr")]
        return [*self.done[-_STORY:], *alive, machine.logs()]

    # ---- asking

    def _choose(self) -> tuple[str, str]:
        name = self.dice.choice(_NAMES)
        return name, self.dice.choice(_VERBS) if name in self.wanted else "create"

    def _arguments(self, name: str, verb: str) -> list[str]:
        kind = name.partition("-")[0]
        if verb == "create":
            options = [*_MAKE[kind], "--label", LABEL, "--no-wait", *_COMMAND.get(kind, ())]
        elif verb == "delete":
            options = ["--yes", "--no-wait"]
        elif verb == "stop":
            options = ["--grace", str(self.dice.choice((0, 1))), "--no-wait"]
        else:
            options = ["--no-wait"]
        return [verb, name, *options]

    def _ask_what_became_of(self, name: str) -> None:
        """Nobody said whether it was taken: whichever it was is right."""
        found = {item["name"]: item for item in self._list()}.get(name)
        if found is None or found["deleting"]:
            self.wanted.pop(name, None)
        else:
            self.wanted[name] = found["spec"]["state"]

    def _list(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + _ANSWER
        while (asked := self.product.run("list", check=False)).returncode:
            assert time.monotonic() < deadline, "\n".join(
                ["the API does not answer:", asked.stderr, *self._story()]
            )
            time.sleep(0.2)
        found: list[dict[str, Any]] = self.product.json("list", "--label", LABEL)
        self.ids |= {item["id"] for item in found}
        return found

    # ---- looking

    def _wrong(self) -> list[str]:
        found = self._list()
        states = {item["name"]: item["status"]["state"] for item in found}
        if states != self.wanted:
            return [f"{self.wanted} was asked for, {states} was found"]
        runs = {item["id"] for item in found if item["status"]["state"] == "running"}
        here = {item["id"] for item in found}
        return [*self._wrong_processes(runs), *self._left_over(self.ids - here)]

    def _wrong_processes(self, runs: set[str]) -> list[str]:
        """Each one that runs runs once; nothing else does. A container outlives its monitor."""
        guests = processes("/usr/bin/conmon") + processes("guest=virtmgr-")
        commands = [each.command for each in guests]
        counts = {id: sum(id in command for command in commands) for id in self.ids}
        twice = [f"{id} runs {count} times" for id, count in counts.items() if count > 1]
        alive = {id for id in self.ids if counts[id] or machine.is_populated(id)}
        wrong = [f"{id} {'runs' if id in alive else 'does not run'}" for id in alive ^ runs]
        return twice + wrong

    def _left_over(self, gone: set[str]) -> list[str]:
        traces = machine.traces()
        traces["domains"] = machine.domains()
        return [
            f"{id} is gone, and this is left: {kind}: {name}"
            for kind, names in traces.items()
            for name in names
            for id in gone
            if id in name
        ]

    # ---- killing

    def _revive(self, victim: str) -> None:
        if victim == "agent":
            machine.start_agent()
        elif victim == "serve":
            deadline = time.monotonic() + 60
            while left := processes("virtmgr.bootstrap."):
                assert time.monotonic() < deadline, "\n".join([str(left), *self._story()])
                time.sleep(0.1)
            machine.start_serve()
        elif victim == "libvirtd":
            machine.start_libvirt()


def _first(*words: str) -> list[Process]:
    """Processes with these words, without the forks of one another."""
    every = processes(*words)
    pids = {each.pid for each in every}
    return [each for each in every if each.parent not in pids]


def _inits() -> list[Process]:
    conmons = {each.pid for each in processes("/usr/bin/conmon")}
    return [each for each in processes() if each.parent in conmons]


_VICTIMS: dict[str, Callable[[], list[Process]]] = {
    "agent": partial(_first, AGENT),
    "serve": partial(_first, SERVE),
    "web": partial(_first, "virtmgr.bootstrap.web"),
    "hub": partial(_first, "virtmgr.bootstrap.hub"),
    "worker": partial(_first, "virtmgr.bootstrap.worker"),
    "libvirtd": partial(_first, "libvirtd"),
    "conmon": partial(processes, "/usr/bin/conmon"),
    "QEMU": partial(processes, "qemu-system", "guest=virtmgr-"),
    "init": _inits,
}


def _kill_one(dice: random.Random) -> tuple[str, Process]:
    """Kill one process, of a kind that is there; the kind and the process."""
    while True:
        kind = dice.choice(list(_VICTIMS))
        for victim in dice.sample(found := _VICTIMS[kind](), len(found)):
            try:
                victim.signal(SIGKILL)
            except ProcessLookupError:
                continue  # it had just ended
            return kind, victim
