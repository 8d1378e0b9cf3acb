"""A crash is a non-event: of the agent, the control plane, libvirtd, or what runs a workload."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from typing import Any

import pytest

from tests.fixtures.processes import Process, process, processes

from . import machine
from .conftest import ROOT, VIRTMGR, Product

NAMES = ("app1", "sys1", "vm1")
AGENT = ("bin/virtmgr agent",)
SERVE = ("bin/virtmgr serve",)
SMALL = ("--memory", "16MiB", "--disk", "64MiB", "--vcpus", "0.1")
SMALL_VM = ("--memory", "64MiB", "--disk", "64MiB")


def running(product: Product, name: str) -> bool:
    return bool(product.workload(name)["status"]["state"] == "running")


def check_control(product: Product) -> None:
    """All three do as they are told, and are told about."""
    product.wait_until(lambda: all(running(product, name) for name in NAMES))
    for name in ("app1", "sys1"):
        exec = ("exec", name, "--", "true")
        product.wait_until(lambda exec=exec: product.run(*exec, check=False).returncode == 0)  # type: ignore[misc]
    for name in NAMES:
        product.run("pause", name)
        assert product.workload(name)["status"]["state"] == "paused"
        product.run("resume", name)
        assert running(product, name)


def kill(process: Process, number: Signals = SIGKILL) -> None:
    process.signal(number)
    deadline = time.monotonic() + 20
    while process.is_there():
        assert time.monotonic() < deadline, f"{process} does not end"
        time.sleep(0.02)


def restart_agent(number: Signals = SIGKILL) -> None:
    kill(process(*AGENT), number)
    machine.start_agent()


@contextmanager
def nothing_stops() -> Iterator[None]:
    """What is done inside touches no guest: the same processes run before and after."""
    before = machine.guests()
    assert len(before) == 5  # two conmons, their two containers, one QEMU
    yield
    assert machine.guests() == before


@pytest.fixture
def make(product: Product) -> Iterator[Callable[..., Any]]:
    """Makes small containers and answers them; they are gone after the test."""
    made: list[str] = []

    def create(name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> Any:
        made.append(name)
        product.run("create", name, "--image", "busybox", *SMALL, *options, "--", *command)
        return product.workload(name)

    yield create
    for name in made:
        product.run("delete", name, "--yes")


def test_a_silent_host_is_unreachable_and_recovers(product: Product) -> None:
    agent = process(*AGENT)
    with nothing_stops():
        agent.signal(SIGSTOP)
        try:
            product.wait_until(
                lambda: bool(product.json("host", "show", "local")["state"] == "unreachable"), 90
            )
            states = {name: product.workload(name)["status"]["state"] for name in NAMES}
            assert states == dict.fromkeys(NAMES, "unknown")
        finally:
            agent.signal(SIGCONT)
        product.wait_until(lambda: bool(product.json("host", "show", "local")["state"] == "ready"))
        check_control(product)


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL])
def test_the_agent_restarts(product: Product, number: Signals) -> None:
    with nothing_stops():
        restart_agent(number)
        check_control(product)


@pytest.mark.parametrize("module", ["web", "hub", "worker"])
def test_a_process_of_the_control_plane_is_killed(product: Product, module: str) -> None:
    name = f"virtmgr.bootstrap.{module}"
    with nothing_stops():
        killed = processes(name)
        assert killed
        for each in killed:
            each.signal(SIGKILL)
        product.wait_until(lambda: len(processes(name)) == len(killed))
        product.wait_until(lambda: product.run("list", check=False).returncode == 0)
        check_control(product)


@pytest.mark.parametrize("number", [SIGTERM, SIGKILL])
def test_the_control_plane_ends_whole_and_comes_back(product: Product, number: Signals) -> None:
    with nothing_stops():
        kill(process(*SERVE), number)
        product.wait_until(lambda: not processes("virtmgr.bootstrap."), 20)
        assert process(*AGENT)
        machine.start_serve()
        product.wait_until(lambda: product.run("list", check=False).returncode == 0)
        check_control(product)


def test_libvirtd_is_killed_and_its_guests_are_taken_up_again(product: Product) -> None:
    with nothing_stops():
        kill(process("libvirtd"))
        product.script("up")
        check_control(product)


@pytest.fixture
def forgotten(product: Product) -> Iterator[list[str]]:
    """Names of workloads that are gone after the test, whatever it did."""
    names: list[str] = []
    yield names
    for name in names:
        product.run("delete", name, "--yes", check=False)


@pytest.mark.parametrize("after", [0.0, 0.15, 0.5])
def test_the_agent_is_killed_in_a_create_and_in_a_delete(
    product: Product, forgotten: list[str], after: float
) -> None:
    before, loops = machine.guests(), machine.loop_devices()
    name, vm = f"crash{int(after * 100)}", f"crash{int(after * 100)}-vm"
    forgotten += [name, vm]
    product.run("create", name, "-i", "busybox", "--no-wait", *SMALL, "--", "sleep", "1000")
    product.run("create", vm, "--kind", "vm", "-i", "busybox-vm", "--no-wait", *SMALL_VM)
    time.sleep(after)
    restart_agent()
    product.wait_until(lambda: running(product, name) and running(product, vm))
    ids = [product.workload(each)["id"] for each in (name, vm)]
    assert len(processes("/usr/bin/conmon", ids[0])) == 1
    assert len(processes("qemu-system", ids[1])) == 1
    assert len(machine.guests() - before) == 3

    product.run("delete", name, vm, "--yes", "--no-wait")
    time.sleep(after / 4)
    restart_agent()
    product.wait_until(lambda: not {name, vm} & {each["name"] for each in product.json("list")})
    for id in ids:
        assert machine.mentions(id) == set()
    assert machine.guests() == before
    assert machine.loop_devices() == loops


def test_a_killed_container_is_reported_and_restarted_as_its_policy_says(
    product: Product, make: Callable[..., Any]
) -> None:
    for policy in ("never", "on-failure"):
        made = make(f"killed-{policy}", "--restart", policy)
        conmon = process("/usr/bin/conmon", made["id"])
        init = next(each for each in processes("sleep") if each.parent == conmon.pid)
        kill(init)
    product.wait_until(lambda: not running(product, "killed-never"))
    status = product.workload("killed-never")["status"]
    assert (status["state"], status["exit_code"], status["signal"]) == ("failed", 137, 9)
    product.wait_until(lambda: product.workload("killed-on-failure")["status"]["restarts"] == 1)
    product.wait_until(lambda: running(product, "killed-on-failure"))


def test_a_container_outlives_its_conmon(product: Product, make: Callable[..., Any]) -> None:
    made = make("lonely", "--restart", "always")
    kill(process("/usr/bin/conmon", made["id"]))
    assert running(product, "lonely")
    product.run("exec", "lonely", "--", "true")
    product.run("stop", "lonely", "--force")
    assert product.workload("lonely")["status"]["state"] == "stopped"
    product.run("start", "lonely")
    assert len(processes("/usr/bin/conmon", made["id"])) == 1


def test_a_killed_qemu_is_reported_and_restarted(product: Product) -> None:
    before = product.workload("vm1")["status"]["restarts"]
    kill(process("qemu-system", "guest=virtmgr-vm1"))
    product.wait_until(lambda: product.workload("vm1")["status"]["restarts"] == before + 1)
    product.wait_until(lambda: running(product, "vm1"))
    types = {event["type"] for event in product.json("events")}
    assert "workload.failed" in types


def test_a_second_serve_says_that_the_port_is_in_use(product: Product) -> None:
    done = product.run("serve", check=False)
    assert done.returncode != 0
    assert "cannot listen on 127.0.0.1:7443: Address already in use" in done.stderr
    assert "ss -ltnp" in done.stderr


@pytest.mark.usefixtures("product")
def test_serve_without_a_database_says_what_to_do(tmp_path: Any) -> None:
    done = subprocess.run(
        [str(VIRTMGR), "serve", "--data-directory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "virtmgr init" in done.stderr
    assert "Traceback" not in done.stderr
