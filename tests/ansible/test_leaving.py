"""Hosts become machines again; after every other test of the collection."""

from __future__ import annotations

import os

import pytest

from tests.ansible.conftest import Site
from tests.ansible.traces import traces

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
]


def test_nothing_is_destroyed_unasked(enrolled: Site) -> None:
    played = enrolled.play("virtmgr.core.remove", "--limit=h1", ok=False, virtmgr_api="")
    assert "virtmgr_destroy_workloads" in played.text
    assert enrolled.host("h1")["state"] == "ready"


def test_removing_leaves_nothing(enrolled: Site) -> None:
    enrolled.play("virtmgr.core.remove")
    assert enrolled.virtmgr("host", "list", "-o", "name").split() == []
    for host in enrolled.lab.hosts():
        left = {kind: found for kind, found in traces(host).items() if found}
        assert left == {}, host.name
    played = enrolled.play("virtmgr.core.remove")
    assert played.changes == []
