"""Images made from stopped workloads, and what starts from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from signal import SIGKILL

import pytest

from tests.fixtures.processes import process

from . import machine
from .conftest import Product
from .test_containers import SMALL
from .test_vms import BUSYBOX, console, until_logged


@pytest.fixture
def names(product: Product) -> Iterator[list[str]]:
    """Of workloads and images, the last made to go first."""
    made: list[str] = []
    yield made
    for name in reversed(made):
        kind = ("image", "delete") if name.startswith("golden") else ("delete",)
        product.run(*kind, name, "--yes", check=False)


def test_a_container_with_a_changed_and_a_deleted_file(product: Product, names: list[str]) -> None:
    names += ["of-golden", "golden", "from-golden"]
    product.run("run", "busybox", "--name", "of-golden", *SMALL, "--", "sleep", "1000")
    change = "echo changed >/etc/passwd && rm /etc/group && rm -r /www && mkdir /www"
    product.run("exec", "of-golden", "--", "sh", "-c", change)
    running = product.run("image", "publish", "of-golden", "golden", check=False)
    assert (running.returncode, "stop it first" in running.stderr) == (4, True)
    product.run("stop", "of-golden", "--force")
    product.run("image", "publish", "of-golden", "golden", "--alias", "golden-too")
    product.run("run", "golden-too", "--name", "from-golden", *SMALL, "--", "sleep", "1000")
    look = "cat /etc/passwd; [ -e /etc/group ] || echo none; ls /www"
    seen = product.run("exec", "from-golden", "--", "sh", "-c", look)
    assert seen.stdout == "changed\nnone\n"
    product.run("start", "of-golden")
    layers = product.json("image", "inspect", "golden")["layers"]
    assert len(layers) == len(product.json("image", "inspect", "busybox")["layers"]) + 1


def test_a_vm_with_what_it_wrote_to_its_disk(product: Product, names: list[str]) -> None:
    names += ["of-golden-vm", "golden-vm", "from-golden-vm", "golden-second", "last"]
    product.run("create", "of-golden-vm", *BUSYBOX)
    until_logged(product, "of-golden-vm", "has address")
    with console(product, "of-golden-vm") as guest:
        guest.run("echo first | dd of=/dev/vda && sync")
    product.run("stop", "of-golden-vm", "--force")
    product.run("image", "publish", "of-golden-vm", "golden-vm")
    image = product.json("image", "inspect", "golden-vm")
    assert (image["type"], image["disk"]["format"]) == ("disk", "qcow2")
    on_golden = ("--kind", "vm", "--memory", "128MiB", "--disk", "64MiB", "--image")
    product.run("create", "from-golden-vm", *on_golden, "golden-vm")
    until_logged(product, "from-golden-vm", "has address")
    with console(product, "from-golden-vm") as guest:
        assert guest.run("head -n 1 /dev/vda") == "first\r\n"
        guest.run("echo second | dd of=/dev/vda && sync")
    product.run("stop", "from-golden-vm", "--force")
    product.run("image", "publish", "from-golden-vm", "golden-second")
    product.run("create", "last", *on_golden, "golden-second")
    until_logged(product, "last", "has address")
    with console(product, "last") as guest:
        assert guest.run("head -n 1 /dev/vda") == "second\r\n"
    assert not [file for file in machine.files() if file.endswith(".partial")]


def test_the_agent_and_the_worker_die_meanwhile(product: Product, names: list[str]) -> None:
    names += ["of-golden-large", "golden-large", "from-golden-large"]
    large = ("--memory", "64MiB", "--disk", "1GiB", "--vcpus", "0.5")
    product.run("run", "busybox", "--name", "of-golden-large", *large, "--", "sleep", "1000")
    fill = "dd if=/dev/urandom of=/large bs=1M count=150 && sha256sum /large"
    told = product.run("exec", "of-golden-large", "--", "sh", "-c", fill).stdout
    product.run("stop", "of-golden-large", "--force")
    begun = product.json("image", "publish", "of-golden-large", "golden-large", "--no-wait")
    operation = begun["id"]

    product.wait_until(lambda: _received() != set())
    before = _received()
    process("virtmgr agent").signal(SIGKILL)
    machine.start_agent()
    product.wait_until(lambda: _received() - before != set())  # it has begun anew
    process("virtmgr.bootstrap.worker").signal(SIGKILL)
    product.wait_until(lambda: _operation(product, operation)["state"] == "succeeded", 180)
    product.run("run", "golden-large", "--name", "from-golden-large", *large, "--", "sleep", "99")
    seen = product.run("exec", "from-golden-large", "--", "sha256sum", "/large").stdout
    assert seen == told
    left = [file for file in machine.files() if "/images/uploads/" in file]
    assert left == []


def _received() -> set[int]:
    """The files that hold something of what a host sends, by inode. A look at the operation would
    come too late on a fast machine."""
    found = set()
    with os.scandir("/var/lib/virtmgr/images/uploads") as files:
        for file in files:
            with suppress(FileNotFoundError):
                status = file.stat()
                if status.st_size:
                    found.add(status.st_ino)
    return found


def _operation(product: Product, operation: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(
        product.run("operations", "show", operation, "-o", "json").stdout
    )
    return found
