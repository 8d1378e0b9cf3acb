"""What goes wrong on a host is said clearly, loses nothing, and is made up for afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .conftest import Product
from .machine import AGENT_DATA
from .test_containers import SMALL, Run, run
from .test_vms import BUSYBOX, vm

__all__ = ["run"]


@contextmanager
def full_disk() -> Iterator[None]:
    """The host's pool, which is a tmpfs in the lab, has hardly anything left."""
    statistics = os.statvfs(AGENT_DATA)
    size = statistics.f_blocks * statistics.f_frsize
    used = size - statistics.f_bfree * statistics.f_frsize
    _resize(used + 64 * 1024)
    try:
        yield
    finally:
        _resize(size)


def _resize(size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(AGENT_DATA)], check=True)


def test_a_full_disk(product: Product) -> None:
    product.run("exec", "app1", "--", "sh", "-c", "echo kept > /root/kept")
    capacity = product.json("host", "show", "local")["capacity"]
    with full_disk():
        options = ("--disk", "200MiB", "--timeout", "60")
        failed = product.run(
            *("create", "big", "--image", "busybox", *SMALL[:2], *options, "--", "sleep", "1000"),
            check=False,
        )
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr or "disk is not full" in failed.stderr
        assert product.workload("app1")["status"]["state"] == "running"
    try:
        product.wait_until(lambda: product.workload("big")["status"]["state"] == "running", 90)
        assert product.run("exec", "app1", "--", "cat", "/root/kept").stdout == "kept\n"
    finally:
        product.run("delete", "big", "--yes")
        # Its agent may have looked at the disk just while it was small, and looks again in time.
        product.wait_until(
            lambda: product.json("host", "show", "local")["capacity"] == capacity, 90
        )


def test_a_registry_that_does_not_answer(product: Product) -> None:
    failed = product.run(
        *("image", "import", "docker://127.0.0.1:1/demo:v1", "--name", "demo"), check=False
    )
    try:
        assert failed.returncode == 1
        assert "127.0.0.1:1" in failed.stderr
        assert "refused" in failed.stderr
        assert "hint:" in failed.stderr
    finally:
        product.run("image", "delete", "demo", "--yes", check=False)


def test_a_damaged_image_on_the_host_is_fetched_again(product: Product) -> None:
    blobs = [path for path in (AGENT_DATA / "pool/blobs").iterdir() if _is_initrd(path)]
    assert blobs, list((AGENT_DATA / "pool").iterdir())
    whole = {path: path.read_bytes() for path in blobs}
    for path in blobs:
        path.write_bytes(whole[path][:-100])
    with vm(product, "vm7", *BUSYBOX):
        assert {path: path.read_bytes() for path in blobs} == whole


def _is_initrd(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b" or file.read(4)[:4] == b"0707"


def test_a_port_that_a_program_of_the_host_has(product: Product) -> None:
    with socket.socket() as program:
        program.bind(("127.0.0.1", 8078))
        program.listen()
        options = (*SMALL, "--port", "8078:80", "--timeout", "60")
        failed = product.run("run", "busybox", "--name", "late", *options, check=False)
        assert failed.returncode == 1
        assert "8078" in failed.stderr
        assert "hint:" in failed.stderr
    try:
        product.wait_until(lambda: product.workload("late")["status"]["state"] == "running", 90)
    finally:
        product.run("delete", "late", "--yes")


def test_a_network_without_a_free_address(product: Product, run: Run) -> None:
    product.run("network", "create", "tiny", "--ipv4", "10.97.0.0/29")
    names = [f"tiny{number}" for number in range(6)]
    try:
        for name in names[:5]:
            run(name, options=("--network", "tiny", "--stopped"))
        full = product.run(
            "run", "busybox", "--name", names[5], *SMALL, "--network", "tiny", check=False
        )
        assert full.returncode == 4
        assert "network 'tiny' has no free address left in 10.97.0.0/29" in full.stderr
        product.run("delete", names[0], "--yes")
        run(names[5], options=("--network", "tiny", "--stopped"))
    finally:
        product.run("delete", *names, "--yes", check=False)
        product.run("network", "delete", "tiny", "--yes")
