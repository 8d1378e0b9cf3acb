"""Containers from the command line, as their users meet them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import VIRTMGR, Product

SMALL = ("--memory", "16MiB", "--disk", "64MiB", "--vcpus", "0.1")
Run = Callable[..., None]


@pytest.fixture
def run(product: Product) -> Iterator[Run]:
    """Makes small containers that are gone after the test."""
    names: list[str] = []

    def make(name: str, *command: str, options: tuple[str, ...] = ()) -> None:
        names.append(name)
        command = command or ("sleep", "1000")
        product.run("run", "busybox", "--name", name, *SMALL, *options, "--", *command)

    yield make
    for name in names:
        product.run("delete", name, "--yes", check=False)


@contextmanager
def typing_at(product: Product, *arguments: str) -> Iterator[Callable[[bytes, bytes], bytes]]:
    """``virtmgr ARGUMENTS`` on a terminal: send keys, and read until an answer is there."""
    master, slave = pty.openpty()
    with ExitStack() as stack:
        stack.callback(os.close, master)
        process = subprocess.Popen(
            [str(VIRTMGR), *arguments],
            env=product.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        os.close(slave)

        def dialogue(keys: bytes, answer: bytes) -> bytes:
            os.write(master, keys)
            seen = b""
            deadline = time.monotonic() + 20
            while answer not in seen:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([master], [], [], left)[0]:
                    pytest.fail(f"no {answer!r} in {seen!r}")
                try:
                    seen += os.read(master, 4096)
                except OSError:
                    pytest.fail(f"ended without {answer!r}: {seen!r}")
            return seen

        yield dialogue


def status(product: Product, name: str) -> Any:
    return product.workload(name)["status"]


@pytest.mark.parametrize("code", [0, 7])
def test_exec_passes_the_exit_code_on(product: Product, code: int) -> None:
    done = product.run("exec", "app1", "--", "sh", "-c", f"exit {code}", check=False)
    assert done.returncode == code


@pytest.mark.parametrize("terminal", [(), ("-t",)], ids=["pipes", "terminal"])
def test_exec_of_what_cannot_be_executed(product: Product, terminal: tuple[str, ...]) -> None:
    for program, code in (("/no/such", 127), ("nosuch", 127), ("/etc/passwd", 126)):
        done = product.run("exec", *terminal, "app1", "--", program, check=False)
        assert (program, done.returncode) == (program, code)


def test_exec_passes_standard_input_and_keeps_errors_apart(product: Product) -> None:
    done = product.run("exec", "-i", "app1", "--", "sh", "-c", "cat; echo no >&2", input="hello")
    assert (done.stdout, done.stderr) == ("hello", "no\n")


def test_exec_on_a_terminal(product: Product) -> None:
    with typing_at(product, "exec", "-it", "app1", "--", "sh") as dialogue:
        dialogue(b"tty\n", b"/dev/pts/")
        dialogue(b"sh -c 'echo $((40+2)); exec sleep 1000'\n", b"42\r\n")
        dialogue(b"\x03", b"# ")
        dialogue(b"echo $((6*7))\n", b"42")


def test_exec_needs_it_running(product: Product, run: Run) -> None:
    run("frozen")
    product.run("pause", "frozen")
    done = product.run("exec", "frozen", "--", "true", check=False)
    assert (done.returncode, "it is paused" in done.stderr) == (4, True)
    product.run("resume", "frozen")
    product.run("exec", "frozen", "--", "true")


def test_the_console_of_a_system_container_has_job_control(product: Product) -> None:
    with typing_at(product, "console", "sys1") as dialogue:
        dialogue(b"", b"Connected")
        dialogue(b"\n", b"login: ")
        dialogue(b"root\n", b"# ")
        dialogue(b"sh -c 'echo $((40+2)); exec sleep 1000'\n", b"42\r\n")
        dialogue(b"\x03", b"# ")
        dialogue(b"echo $((6*7))\n", b"42")
        dialogue(b"exit\n", b"exit")
        dialogue(b"\x1d", b"Disconnected")


def test_clone(product: Product, run: Run) -> None:
    product.run("volume", "create", "origin-data", "--size", "32MiB")
    names = ("copy", "copy2", "other")
    try:
        run("origin", options=("--port", "8077:80", "--volume", "origin-data:/data"))
        product.run("exec", "origin", "--", "sh", "-c", "echo root > /root/a; echo data > /data/a")
        refused = product.run("clone", "origin", "copy", check=False)
        assert (refused.returncode, "stop it first" in refused.stderr) == (4, True)
        product.run("stop", "origin", "--force")
        refused = product.run("clone", "origin", "copy", check=False)
        assert (refused.returncode, "--with-volumes" in refused.stderr) == (4, True)
        said = product.run("clone", "origin", "copy", "--start", "--with-volumes")
        assert said.stdout == "workload copy cloned from origin\n"
        assert "published ports stay with origin (8077:80)" in said.stderr
        for name in ("copy", "origin"):
            product.run("start", name)
            seen = product.run("exec", name, "--", "sh", "-c", "cat /root/a /data/a; hostname")
            assert seen.stdout == f"root\ndata\n{name}\n"
        product.run("exec", "copy", "--", "sh", "-c", "echo other > /root/a; echo other > /data/a")
        seen = product.run("exec", "origin", "--", "cat", "/root/a", "/data/a")
        assert seen.stdout == "root\ndata\n"
        product.run("stop", "copy", "--force")
        product.run("detach-volume", "copy", "origin-data-copy")
        product.run("clone", "copy", "copy2", "--start")
        assert product.run("exec", "copy2", "--", "cat", "/root/a").stdout == "other\n"
    finally:
        product.run("delete", "--yes", "origin", *names, check=False)
        product.run("volume", "delete", "--yes", "origin-data", "origin-data-copy", check=False)


def test_logs_follow_until_the_end(product: Product, run: Run) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    run("talker", "sh", "-c", script, options=("--restart", "never"))
    assert product.run("logs", "-f", "talker").stdout == "line 1\nline 2\nline 3\n"
    assert product.run("logs", "--tail", "1", "talker").stdout == "line 3\n"


def test_copies_go_both_ways(product: Product, run: Run, tmp_path: Path) -> None:
    run("files")
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_bytes(bytes(range(256)) * 4096)
    (tree / "link").symlink_to("inner/file")
    product.run("cp", str(tree), "files:/tmp/")
    product.run("cp", "files:/tmp/tree", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "inner/file").read_bytes() == (tree / "inner/file").read_bytes()
    assert (back / "link").readlink() == Path("inner/file")


def test_force_cuts_a_graceful_stop_short(product: Product, run: Run) -> None:
    run("stubborn", options=("--stop-timeout", "600"))  # a first process without a handler
    product.run("stop", "stubborn", "--no-wait")
    product.wait_until(lambda: status(product, "stubborn")["state"] == "stopping")
    product.run("stop", "stubborn", "--force", timeout=60)
    assert status(product, "stubborn")["state"] == "stopped"
    product.run("start", "stubborn")
    product.run("restart", "stubborn", "--force")
    assert status(product, "stubborn")["state"] == "running"


def test_what_fails_is_restarted_with_back_off(product: Product, run: Run) -> None:
    run("crasher", "sh", "-c", "sleep 1; exit 3", options=("--restart", "on-failure"))
    product.wait_until(lambda: status(product, "crasher")["restarts"] >= 2)

    def waits() -> bool:
        reason = status(product, "crasher")["reason"]
        return reason is not None and reason["code"] == "restarting"

    product.wait_until(waits)
    assert status(product, "crasher")["exit_code"] == 3


def test_what_is_not_to_be_restarted_stays_ended(product: Product, run: Run) -> None:
    run("done", "sleep", "1", options=("--restart", "on-failure"))
    run("failing", "sh", "-c", "sleep 1; exit 4", options=("--restart", "never"))
    product.wait_until(lambda: status(product, "done")["state"] == "stopped")
    product.wait_until(lambda: status(product, "failing")["state"] == "failed")
    assert status(product, "failing")["exit_code"] == 4


@pytest.mark.parametrize("how", [("--grace", "1"), ("--force",)], ids=["after grace", "at once"])
def test_a_stop_by_force_is_reported_as_one(
    product: Product, run: Run, how: tuple[str, ...]
) -> None:
    run("deaf", "sh", "-c", "trap '' TERM; while true; do sleep 1; done")
    product.run("stop", "deaf", *how)
    found = status(product, "deaf")
    assert (found["state"], found["exit_code"], found["signal"]) == ("stopped", 137, 9)


def test_running_out_of_memory_is_said(product: Product, run: Run) -> None:
    run("greedy", "sh", "-c", "sleep 1; tail /dev/zero", options=("--restart", "never"))
    product.wait_until(lambda: status(product, "greedy")["state"] == "failed")
    found = status(product, "greedy")
    assert (found["oom_killed"], found["signal"], found["exit_code"]) == (True, 9, 137)
    assert found["reason"]["code"] == "oom_killed"


def test_resize_takes_effect_at_once(product: Product, run: Run) -> None:
    run("growing")
    pid = product.run("exec", "growing", "--", "sh", "-c", "echo $PPID").stdout
    product.run("resize", "growing", "--memory", "48MiB", "--vcpus", "0.25")
    found = product.workload("growing")
    assert found["status"]["needs_restart"] == []
    assert found["spec"]["resources"]["memory"] == 48 * 1024**2
    # With the old limit this would be killed: 30 MiB in a tmpfs counts as the container's memory.
    fill = "dd if=/dev/zero of=/dev/shm/fill bs=1M count=30 2>/dev/null && echo fits"
    assert product.run("exec", "growing", "--", "sh", "-c", fill).stdout == "fits\n"
    assert product.run("exec", "growing", "--", "sh", "-c", "echo $PPID").stdout == pid


def test_a_volume_moves_with_its_data(product: Product, run: Run) -> None:
    run("first")
    run("second")
    product.run("volume", "create", "moving", "--size", "32MiB")
    try:
        bare = product.run("attach-volume", "first", "moving", check=False)
        assert (bare.returncode, "path" in bare.stderr) == (2, True)
        product.run("attach-volume", "first", "moving:/data")
        product.run("exec", "first", "--", "sh", "-c", "echo kept > /data/file")
        taken = product.run("attach-volume", "second", "moving:/srv", check=False)
        used = product.run("volume", "delete", "moving", "--yes", check=False)
        assert (taken.returncode, used.returncode) == (4, 4)
        product.run("detach-volume", "first", "moving")
        product.run("attach-volume", "second", "moving:/srv/data:ro")
        assert product.run("exec", "second", "--", "cat", "/srv/data/file").stdout == "kept\n"
        write = product.run("exec", "second", "--", "touch", "/srv/data/x", check=False)
        assert write.returncode != 0
        product.run("detach-volume", "second", "moving")
    finally:
        product.run("delete", "first", "second", "--yes", check=False)
        product.run("volume", "delete", "moving", "--yes")


def test_top_shows_usage(product: Product) -> None:
    def seen() -> bool:
        usage = status(product, "app1")["usage"]
        return usage is not None and usage["cpus"] is not None and usage["network_received"] > 0

    product.wait_until(seen)
    assert status(product, "app1")["usage"]["memory"] > 0
    assert "/64MiB" in product.run("top", "app1").stdout


def test_protected_refuses_stop_and_delete(product: Product, run: Run) -> None:
    run("dear", options=("--protected",))
    for verb in (("stop", "dear"), ("delete", "dear", "--yes")):
        refused = product.run(*verb, check=False)
        assert (refused.returncode, "protected" in refused.stderr) == (4, True)
    product.run("apply", "--yes", "-f", "-", input="{name: dear, protected: false}")


def test_apply_changes_only_what_differs(product: Product, run: Run) -> None:
    spec = "{name: applied, image: busybox, resources: {vcpus: 0.1, memory: 16MiB}, %s}"
    run("applied")
    product.run("apply", "--yes", "-f", "-", input=spec % "description: first")
    again = product.run("apply", "--yes", "-f", "-", input=spec % "description: first")
    assert again.stdout == "workload applied unchanged\n"
    planned = product.run("apply", "--dry-run", "-f", "-", input=spec % "description: second")
    assert "-description: first\n+description: second\n" in planned.stdout
    assert product.workload("applied")["spec"]["description"] == "first"


def test_several_are_made_at_once(product: Product) -> None:
    names = ["many-1", "many-2", "many-3"]
    try:
        product.run("run", "busybox", "--name", "many", "--count", "3", *SMALL, "--", "sleep", "99")
        assert {status(product, name)["state"] for name in names} == {"running"}
    finally:
        product.run("delete", *names, "--yes", check=False)


def test_what_fits_nowhere_is_refused_with_the_reason(product: Product) -> None:
    refused = product.run("run", "busybox", "--name", "huge", "--memory", "900GiB", check=False)
    assert refused.returncode == 4
    assert "local: " in refused.stderr
    assert "900GiB asked" in refused.stderr
    assert product.run("show", "huge", check=False).returncode == 3


def test_delete_leaves_nothing_on_the_host(product: Product, run: Run) -> None:
    def traces() -> set[str]:
        mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
        found = mounts | {f"link {link.name}" for link in Path("/sys/class/net").iterdir()}
        found |= {f"loop {loop}" for loop in Path("/sys/block").glob("loop*/loop/backing_file")}
        for top in ("/sys/fs/cgroup", "/run/virtmgr-agent/containers"):
            found |= {str(path) for path in Path(top).rglob("*") if path.is_dir()}
        found |= {str(path) for path in Path("/var/lib/virtmgr-agent/containers").iterdir()}
        return found

    run("kept")  # so that what all containers share is there
    identity = product.workload("kept")["id"]
    before = {trace for trace in traces() if identity not in trace}
    run("short-lived")
    gone = product.workload("short-lived")["id"]
    assert any(gone in trace for trace in traces())
    product.run("delete", "short-lived", "--yes")
    assert not [trace for trace in traces() if gone in trace]
    assert {t for t in traces() - before if t.startswith(("link", "loop"))} == set()
