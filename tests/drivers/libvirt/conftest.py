from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.drivers.libvirt.kit import Libvirtd, VmKit, libvirtd, vm_kit


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd() as running:
        yield running


@pytest.fixture
def kit(daemon: Libvirtd) -> Iterator[VmKit]:
    daemon.start()
    with vm_kit() as made:
        yield made


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"vmt{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
