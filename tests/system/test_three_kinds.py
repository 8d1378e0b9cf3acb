"""The promise of ``make up``: one VM and two containers on one network, reachable by name."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import Product

NAMES = ("app1", "sys1", "vm1")


def test_all_three_run(product: Product) -> None:
    states = {item["name"]: item["status"]["state"] for item in product.json("list")}
    assert {name: states[name] for name in NAMES} == dict.fromkeys(NAMES, "running")


@pytest.mark.parametrize("source", ["app1", "sys1"])
@pytest.mark.parametrize("target", NAMES)
def test_containers_reach_everything_by_name(product: Product, source: str, target: str) -> None:
    command = ("exec", source, "--", "ping", "-4", "-c", "1", "-W", "2", f"{target}.default.virt")
    product.wait_until(lambda: product.run(*command, check=False).returncode == 0)


@pytest.mark.usefixtures("product")
def test_the_published_port_leads_to_the_container() -> None:
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "5", "http://127.0.0.1:8080/hostname"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "app1\n"


def test_up_is_safe_to_repeat(product: Product) -> None:
    before = {item["name"]: item["generation"] for item in product.json("list")}
    done = product.script("up")
    assert done.returncode == 0, done.stderr
    assert {item["name"]: item["generation"] for item in product.json("list")} == before
