"""``make down``, ``make up`` and ``make clean-host``: everything stops, comes back, is gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixtures.processes import processes

from . import machine
from .conftest import ROOT, Product

NAMES = {"app1", "sys1", "vm1"}
RUNNING = ("processes", "mounts", "links", "nft tables", "network namespaces", "loop devices")


def states(product: Product) -> dict[str, str]:
    return {item["name"]: item["status"]["state"] for item in product.json("list")}


def script(product: Product, name: str) -> None:
    done = product.script(name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_down_leaves_nothing_running_and_an_agent_alone_brings_all_back(
    product: Product, bare_host: dict[str, set[str]]
) -> None:
    ids = {item["name"]: item["id"] for item in product.json("list")}
    product.run("exec", "app1", "--", "sh", "-c", "echo kept > /kept")
    script(product, "down")
    found = machine.traces()
    assert {kind: found[kind] - bare_host[kind] for kind in RUNNING} == {
        kind: set() for kind in RUNNING
    }
    assert not [path for path in found["cgroups"] if any(id in path for id in ids.values())]

    machine.start_agent()  # and no control plane: the host was rebooted while that is away
    product.wait_until(lambda: len(processes("/usr/bin/conmon")) == 2)
    assert not processes("qemu-system", "guest=virtmgr-")  # libvirtd is not there yet
    script(product, "up")
    assert {name: states(product)[name] for name in NAMES} == dict.fromkeys(NAMES, "running")
    assert {item["name"]: item["id"] for item in product.json("list")} == ids
    assert product.run("exec", "app1", "--", "cat", "/kept").stdout == "kept\n"

    product.run("stop", "sys1")  # and it is up again, whoever stopped it
    script(product, "up")
    assert states(product)["sys1"] == "running"


def test_clean_host_leaves_no_trace_and_may_be_repeated(
    product: Product, bare_host: dict[str, set[str]]
) -> None:
    for _ in range(2):
        script(product, "clean-host")
        found = machine.traces()
        # libvirt keeps an empty parent group of its own once it has run a guest
        found["cgroups"] = {path for path in found["cgroups"] if not path.endswith("/machine")}
        assert {kind: names - bare_host[kind] for kind, names in found.items()} == {
            kind: set() for kind in found
        }
    script(product, "up")
    assert states(product) == dict.fromkeys(NAMES, "running")


def refusal(name: str, *prefix: str) -> str:
    """What a script says where it cannot run."""
    done = subprocess.run(
        [*prefix, str(ROOT / "scripts" / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["setup", "up", "down", "clean-host"])
def test_not_being_root_is_said(name: str) -> None:
    said = refusal(name, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert "must run as root" in said
    assert "sudo make" in said


@pytest.mark.parametrize("name", ["setup", "up", "down", "clean-host"])
def test_another_distribution_is_named(name: str, tmp_path: Path) -> None:
    other = tmp_path / "os-release"
    other.write_text("ID=fedora\nVERSION_ID=41\n")
    bind = 'mount --bind "$0" "$(readlink -f /etc/os-release)" && exec "$@"'
    said = refusal(name, "unshare", "--mount", "bash", "-c", bind, str(other))
    assert "fedora 41" in said
    assert "Debian 12" in said
