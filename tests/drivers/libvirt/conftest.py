from __future__ import annotations

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
