"""Each finding of preflight, from what was seen: pure."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).resolve().parents[2] / "ansible/plugins/module_utils/preflight.py"
_SPEC = importlib.util.spec_from_file_location("virtmgr_preflight", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
preflight = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(preflight)

GIB = 1024**3

WANTED: dict[str, Any] = {
    "server": "https://control:7444",
    "server_name": "control",
    "stream_port": 7446,
    "vms": True,
    "min_cpus": 1,
    "min_memory": 1024,
    "directories": {"/data": 1024},
    "max_clock_skew": 10,
}
GOOD: dict[str, Any] = {
    "uid": 0,
    "machine": "x86_64",
    "distribution": "Debian",
    "distribution_version": "12",
    "cpus": 4,
    "virtualisation": True,
    "kvm": True,
    "memory": 8 * GIB,
    "kernel": [6, 1],
    "features": list(preflight.KERNEL_FEATURES),
    "user_namespaces": 15000,
    "controllers": ["cpu", "memory", "pids"],
    "directories": {"/data": {"free": 100 * GIB, "flags": []}},
    "hostname": "node1",
    "hostname_resolves": True,
    "server_addresses": ["10.0.0.1"],
    "server_error": "",
    "clock_skew": 0.2,
    "time_sync": True,
    "stream_address": "10.0.0.2",
    "stream_error": "",
    "firewalls": [],
    "selinux": False,
}


def _found(**seen: Any) -> list[tuple[str, str]]:
    found = preflight.findings(GOOD | seen, WANTED)
    assert all(each["hint"] and each["message"] for each in found)
    return [(each["severity"], each["what"]) for each in found]


def test_nothing_speaks_against_a_good_machine() -> None:
    assert _found() == []


@pytest.mark.parametrize("name", ["Rocky", "AlmaLinux", "RedHat"])
def test_minor_versions_are_supported(name: str) -> None:
    assert _found(distribution=name, distribution_version="10.1") == []
    assert _found(distribution=name, distribution_version="9.6") == [("error", "libvirt")]


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        ({"uid": 1000}, ("error", "privileges")),
        ({"machine": "aarch64"}, ("error", "cpu")),
        ({"distribution": "Fedora", "distribution_version": "43"}, ("error", "distribution")),
        ({"distribution_version": "11"}, ("error", "distribution")),
        ({"distribution_version": "120"}, ("error", "distribution")),
        ({"cpus": 0}, ("error", "cpu")),
        ({"kvm": False}, ("warning", "kvm")),
        ({"kvm": False, "virtualisation": False}, ("warning", "kvm")),
        ({"memory": GIB // 2}, ("error", "memory")),
        ({"kernel": [5, 3]}, ("error", "kernel")),
        ({"kernel": [5, 10]}, ("warning", "kernel")),
        ({"features": [*preflight.KERNEL_FEATURES][1:]}, ("error", "kernel")),
        ({"user_namespaces": 0}, ("error", "kernel")),
        ({"controllers": ["cpu"]}, ("error", "cgroups")),
        ({"directories": {"/data": {"free": 0, "flags": []}}}, ("error", "disk")),
        ({"directories": {"/data": {"free": GIB, "flags": ["nodev"]}}}, ("error", "disk")),
        ({"hostname": "localhost"}, ("error", "names")),
        ({"hostname_resolves": False}, ("warning", "names")),
        ({"server_addresses": []}, ("error", "names")),
        ({"server_error": "timed out"}, ("error", "control plane")),
        ({"clock_skew": -11.0}, ("error", "clock")),
        ({"time_sync": False}, ("warning", "clock")),
        ({"stream_error": "in use"}, ("error", "ports")),
        ({"firewalls": ["ufw"]}, ("warning", "firewall")),
        ({"selinux": True}, ("warning", "selinux")),
    ],
)
def test_each_finding(seen: dict[str, Any], what: tuple[str, str]) -> None:
    assert _found(**seen) == [what]


def test_errors_come_first_and_all_at_once() -> None:
    found = _found(time_sync=False, uid=1, memory=0, server_error="refused", kernel=[4, 19])
    assert [severity for severity, _ in found] == ["error"] * 4 + ["warning"]
