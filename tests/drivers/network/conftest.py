"""A network namespace that stands for the host, the adapter in it, and guests."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.network.world import TABLE, Guest, run
from virtmgr.drivers.network.adapter import LinuxNetwork

_CLONE_NEWNET = 0x40000000


@pytest.fixture
def host() -> Iterator[None]:
    """The test itself runs in a fresh network namespace, so the machine is never touched."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        assert run("ip", "link", "set", "lo", "up").returncode == 0
        yield
    finally:
        assert libc.setns(home, _CLONE_NEWNET) == 0
        os.close(home)


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    return tmp_path / "network"


@pytest.fixture
def adapter(
    host: None,  # noqa: ARG001  set up first
    run_directory: Path,
    tmp_path: Path,
) -> Iterator[LinuxNetwork]:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("")
    made = LinuxNetwork(run_directory=run_directory, table=TABLE, resolv_file=resolv)
    made.recover()
    yield made
    made.remove_all()
    assert {name for _, name in socket.if_nameindex() if name.startswith("vm")} == set()
    assert run("nft", "list", "tables").stdout == ""
    assert not run_directory.exists()


@pytest.fixture
def guest(
    host: None,  # noqa: ARG001  set up first
) -> Iterator[Callable[[], Guest]]:
    made: list[Guest] = []

    def make() -> Guest:
        made.append(Guest())
        return made[-1]

    yield make
    for each in made:
        each.close()
