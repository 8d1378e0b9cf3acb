"""Modules and inventory plugin against a live control plane, on hosts that Ansible has enrolled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.conftest import Played, Site

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]

_WANTED: list[dict[str, Any]] = [
    {"project": {"name": "blue", "description": "Blue", "quota": {"vcpus": 8, "memory": "16GiB"}}},
    {"network": {"name": "back", "project": "blue", "type": "nat", "ipv4": "10.20.0.0/24"}},
    {"volume": {"name": "data", "project": "blue", "size": "64MiB", "labels": {"for": "web"}}},
    {
        "image": {
            "name": "busybox",
            "build": {"distribution": "busybox", "kind": "container"},
            "labels": {"os": "busybox"},
        }
    },
    {
        "workload": {
            "name": "web1",
            "project": "blue",
            "spec": {
                "kind": "container",
                "image": "busybox",
                "command": ["sleep", "100000"],
                "resources": {"memory": "64MiB"},
                "root_disk": {"size": "256MiB"},
                "nics": [{"network": "back"}],
                "volumes": [{"volume": "data", "path": "/data"}],
                "labels": {"tier": "web"},
            },
        }
    },
    {"host": {"name": "h1", "labels": {"zone": "a"}}},
]


def _play(site: Site, tasks: list[dict[str, Any]], *arguments: str) -> Played:
    playbook = site.directory / "resources.yml"
    environment = {
        "VIRTMGR_SERVER": site.variables["virtmgr_api"],
        "VIRTMGR_CA_FILE": site.variables["virtmgr_ca_file"],
        "VIRTMGR_TOKEN_FILE": str(site.token_file),
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "environment": environment,
        "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        "tasks": [
            {f"virtmgr.core.{name}": options} for task in tasks for name, options in task.items()
        ],
    }
    playbook.write_text(yaml.safe_dump([play]))
    return site.play(str(playbook), *arguments)


def _workload(site: Site) -> Any:
    return json.loads(site.virtmgr("show", "web1", "--project", "blue", "-o", "json"))


def test_things_are_made_once(enrolled: Site) -> None:
    played = _play(enrolled, _WANTED, "--check")
    assert played.changed["localhost"] == len(_WANTED)
    assert "blue" not in enrolled.virtmgr("project", "list")
    assert _play(enrolled, _WANTED).changed["localhost"] == len(_WANTED)
    assert _workload(enrolled)["status"]["state"] == "running"
    assert _play(enrolled, _WANTED).changed["localhost"] == 0


def test_a_change_is_shown_and_made(enrolled: Site) -> None:
    tasks = [
        {"volume": {"name": "data", "project": "blue", "labels": {"for": "db"}}},
        {"workload": {"name": "web1", "project": "blue", "spec": {"state": "paused"}}},
        {"host": {"name": "h1", "cordoned": True}},
    ]
    asked = _play(enrolled, tasks, "--check", "--diff")
    assert asked.changed["localhost"] == 3
    assert '+    "for": "db"' in asked.text
    assert _workload(enrolled)["status"]["state"] == "running"
    assert _play(enrolled, tasks).changed["localhost"] == 3
    assert _workload(enrolled)["status"]["state"] == "paused"
    assert enrolled.host("h1")["cordoned"]
    back = [
        {"workload": {"name": "web1", "project": "blue", "spec": {"state": "running"}}},
        {"host": {"name": "h1", "cordoned": False}},
    ]
    assert _play(enrolled, back).changed["localhost"] == 2


def _inventory(site: Site, **options: Any) -> Any:
    file = site.directory / "site.virtmgr.yml"
    configuration = {
        "plugin": "virtmgr.core.virtmgr",
        "server": site.variables["virtmgr_api"],
        "ca_file": site.variables["virtmgr_ca_file"],
        "token_file": str(site.token_file),
    }
    file.write_text(yaml.safe_dump(configuration | options))
    done = site.ansible("ansible-inventory", "-i", str(file), "--list")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _text(value: Any) -> str:
    """Text that Ansible does not trust, and so never takes for a template, is listed as that."""
    return str(value["__ansible_unsafe"] if isinstance(value, dict) else value)


def test_the_inventory_sorts_what_there_is(enrolled: Site, tmp_path: Path) -> None:
    cache = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(tmp_path),
        "keyed_groups": [{"key": "virtmgr.image.name | default('none')", "prefix": "image"}],
    }
    found = _inventory(enrolled, **cache)
    assert sorted(found["virtmgr_hosts"]["hosts"]) == ["h1", "h2"]
    assert found["virtmgr_workloads"]["hosts"] == ["web1.blue"]
    groups = ("kind_container", "init_app", "project_blue", "label_tier_web", "image_busybox")
    for group in groups:
        assert found[group]["hosts"] == ["web1.blue"], group
    assert found["label_zone_a"]["hosts"] == ["h1"]
    variables = found["_meta"]["hostvars"]
    assert _text(variables["web1.blue"]["ansible_host"]).startswith("10.20.0.")
    assert _text(variables["h2"]["ansible_host"]) == enrolled.lab.host("h2").address
    assert list(tmp_path.iterdir())
    cached = _inventory(enrolled, **cache, server="https://127.0.0.1:1")
    assert cached["virtmgr_workloads"]["hosts"] == ["web1.blue"]


def test_a_host_with_workloads_is_not_removed(enrolled: Site) -> None:
    name = _workload(enrolled)["host"]["name"]
    refused = enrolled.play("virtmgr.core.remove", f"--limit={name}", ok=False)
    assert "web1" in refused.text
    assert enrolled.host(name)["state"] == "ready"


def test_things_are_taken_away_once(enrolled: Site) -> None:
    gone = [
        {name: {"name": options["name"], "state": "absent"} | _place(options)}
        for task in reversed(_WANTED[:-1])
        for name, options in task.items()
    ]
    assert _play(enrolled, gone).changed["localhost"] == len(gone)
    assert _play(enrolled, gone).changed["localhost"] == 0


def _place(options: dict[str, Any]) -> dict[str, Any]:
    return {"project": options["project"]} if "project" in options else {}
