"""Networks as containers on them see them."""

from __future__ import annotations

import pytest

from .conftest import Product
from .test_containers import Run, run

__all__ = ["run"]


def addresses(product: Product, name: str) -> list[str]:
    found: list[str] = product.workload(name)["nics"][0]["addresses"]
    return found


def answers(product: Product, source: str, target: str, *options: str) -> bool:
    ping = ("exec", source, "--", "ping", "-c", "1", "-W", "1", *options, target)
    return product.run(*ping, check=False).returncode == 0


def looks_up(product: Product, kind: str, name: str) -> str:
    return product.run("exec", "app1", "--", "nslookup", f"-type={kind}", name, check=False).stdout


def test_names_live_as_long_as_their_workloads(product: Product, run: Run) -> None:
    run("named")
    ipv4, ipv6 = addresses(product, "named")
    product.wait_until(lambda: ipv4 in looks_up(product, "a", "named.default.virt"))
    assert ipv6 in looks_up(product, "aaaa", "named.default.virt")
    assert "named.default.virt" in product.run("exec", "app1", "--", "nslookup", ipv4).stdout
    product.run("delete", "named", "--yes")
    product.wait_until(lambda: ipv4 not in looks_up(product, "a", "named.default.virt"))


def test_a_renamed_workload_is_found_by_its_new_name(product: Product, run: Run) -> None:
    run("before", options=("--restart", "never"))
    ipv4 = addresses(product, "before")[0]
    product.wait_until(lambda: ipv4 in looks_up(product, "a", "before.default.virt"))
    said = product.run("rename", "before", "after")
    try:
        assert "name: takes effect after 'virtmgr restart after'" in said.stderr
        product.wait_until(lambda: ipv4 in looks_up(product, "a", "after.default.virt"))
        assert ipv4 not in looks_up(product, "a", "before.default.virt")
        assert product.run("exec", "after", "--", "hostname").stdout == "before\n"
        product.run("restart", "after", "--force")
        assert product.run("exec", "after", "--", "hostname").stdout == "after\n"
        assert product.workload("after")["status"]["needs_restart"] == []
    finally:
        product.run("rename", "after", "before", check=False)


def test_networks_are_isolated(product: Product, run: Run) -> None:
    product.run("network", "create", "apart", "--ipv4", "10.99.0.0/24", "--ipv6", "fd99::/64")
    try:
        run("apart1", options=("--network", "apart"))
        run("apart2", options=("--network", "apart"))
        assert answers(product, "apart1", "apart2.apart.virt")
        for address in addresses(product, "app1"):
            assert not answers(product, "apart1", address)
        for address in addresses(product, "apart1"):
            assert not answers(product, "app1", address)
        used = product.run("network", "delete", "apart", "--yes", check=False)
        assert (used.returncode, "apart1" in used.stderr) == (4, True)
    finally:
        product.run("delete", "apart1", "apart2", "--yes", check=False)
        product.run("network", "delete", "apart", "--yes")


def test_a_nic_comes_and_goes_live(product: Product, run: Run) -> None:
    product.run("network", "create", "second", "--ipv4", "10.98.0.0/24")
    try:
        run("mobile")
        product.run("attach-nic", "mobile", "second", "--address", "10.98.0.9")
        assert "10.98.0.9" in product.run("exec", "mobile", "--", "ip", "address").stdout
        assert answers(product, "mobile", "10.98.0.1")
        product.run("detach-nic", "mobile", "1")
        assert "eth1" not in product.run("exec", "mobile", "--", "ip", "address").stdout
    finally:
        product.run("delete", "mobile", "--yes", check=False)
        product.run("network", "delete", "second", "--yes")


@pytest.mark.parametrize(
    ("spoil", "repair"),
    [
        ("ip address add 10.83.99.99/16 dev eth0", "ip address del 10.83.99.99/16 dev eth0"),
        (
            "cat /sys/class/net/eth0/address > /tmp/mac;ip link set eth0 address 52:00:00:00:00:99",
            "ip link set eth0 address $(cat /tmp/mac)",
        ),
    ],
    ids=["address", "mac"],
)
def test_nobody_speaks_for_another(product: Product, spoil: str, repair: str) -> None:
    def shell(script: str) -> None:
        product.run("exec", "sys1", "--", "sh", "-c", script)

    target = addresses(product, "app1")[0]
    assert answers(product, "sys1", target)
    options = ("-I", "10.83.99.99") if "10.83.99.99" in spoil else ()
    shell(spoil)
    try:
        assert not answers(product, "sys1", target, *options)
    finally:
        shell(repair)
    product.wait_until(lambda: answers(product, "sys1", target))
