"""Never two, under random faults; ``--faults`` says how many, ``--seed`` which."""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest

from tests.lab.fleet import Lab
from tests.multihost.faults import Checker, Faults, broken_chains
from tests.multihost.fleet import Fleet, running_fleet

pytestmark = [
    pytest.mark.host,
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]
_PATIENCE = 400.0  # seconds; a control plane on a busy machine takes a minute to start
# Lengths that no other sleep of this machine has: by them the checker knows whose a process is.
_SLEEPS = {f"app{number}": str(100_000_000 + 10 * os.getpid() + number) for number in range(4)}


def until_all_is_well(fleet: Fleet, checker: Checker) -> None:
    """Until every host is ready, and every workload runs, once."""
    deadline = time.monotonic() + _PATIENCE
    while wrong := what_is_wrong(fleet, checker):
        assert time.monotonic() < deadline, wrong
        time.sleep(0.2)


def what_is_wrong(fleet: Fleet, checker: Checker) -> str:
    hosts, workloads = listed(fleet, "host", "list"), listed(fleet, "list")
    if not hosts or not workloads:
        return "the control plane does not answer"
    rest = [f"{one['name']} is {one['state']}" for one in hosts if one["state"] != "ready"]
    rest += [
        f"{one['name']} is {one['status']} on {one['host']}"
        for one in workloads
        if one["status"]["state"] != "running"
    ]
    rest += [f"{name} runs as {pids}" for name, pids in checker.running().items() if len(pids) != 1]
    return "; ".join(rest)


def listed(fleet: Fleet, *words: str) -> list[Any]:
    """What ``virtmgr WORDS`` lists; nothing while the control plane does not answer."""
    done = fleet.run(*words, "-o", "json", check=False)
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def test_never_two_under_faults(three: Lab, pytestconfig: pytest.Config) -> None:
    count, seed = pytestconfig.getoption("faults"), pytestconfig.getoption("seed")
    print(f"repeat it with --faults {count} --seed {seed}")
    with running_fleet(three) as fleet:
        for host in three.hosts():
            fleet.join(host)
        fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
        for name, seconds in _SLEEPS.items():
            fleet.run("run", "busybox", "--name", name, "--ha", "--restart", "always",
                      "--", "sleep", seconds)  # fmt: skip
        faults = Faults(fleet, three.hosts(), random.Random(seed))
        with Checker(_SLEEPS) as checker:
            for _ in range(count):
                faults.one()
                assert not checker.twice, (checker.twice, faults.done)
                until_all_is_well(fleet, checker)
            fleet.wait_until(
                lambda: all(one["finished_at"] for one in listed(fleet, "failover", "list"))
            )
        assert not checker.twice, (checker.twice, faults.done)
        assert not broken_chains(fleet)
        failovers = len(fleet.json("failover", "list"))
        print(f"{count} faults, {failovers} failovers, {checker.looks} looks at what runs")
