"""What 'host add' takes of an inventory of Ansible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from virtmgr.cli.inventories import Machine, machine_at, machines_in
from virtmgr.domain.errors import InvalidRequest

_HERE = Path("/somewhere")


def _machines(text: str) -> dict[str, Machine]:
    return {each.name: each for each in machines_in(yaml.safe_load(text), _HERE)}


def test_the_group_is_taken_with_variables_of_every_level() -> None:
    found = _machines("""
        all:
          vars: {ansible_user: root, virtmgr_cluster: east}
          children:
            others: {hosts: {db1: }}
            virtmgr_hosts:
              vars: {ansible_ssh_private_key_file: keys/id}
              hosts:
                node1: {ansible_host: 10.0.0.11, ansible_port: 2222, virtmgr_labels: {zone: a}}
              children:
                more:
                  vars: {ansible_user: admin}
                  hosts:
                    node2.example.org: {ansible_become_password: x, virtmgr_vms: false}
    """)
    assert found == {
        "node1": Machine(
            name="node1",
            address="10.0.0.11",
            port=2222,
            user="root",
            key_file=_HERE / "keys/id",
            cluster="east",
            labels={"zone": "a"},
        ),
        "node2": Machine(
            name="node2",
            address="node2.example.org",
            user="admin",
            key_file=_HERE / "keys/id",
            become_password="x",
            cluster="east",
            vms=False,
        ),
    }


def test_without_the_group_all_are_taken() -> None:
    found = _machines("""
        rack1: {hosts: {node1: }}
        rack2: {hosts: {node2: {virtmgr_host: n2, virtmgr_host_key: "SHA256:x"}}}
    """)
    assert set(found) == {"node1", "n2"}
    assert found["n2"].host_key == "SHA256:x"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "node1",
        {"all": {"hosts": ["node1"]}},
        {"all": {"hosts": {"node1": "x"}}},
        {"all": {"hosts": {}}},
        {"all": {"hosts": {"node1": {"ansible_password": "{{ vault }}"}}}},
        {"all": {"hosts": {"node1": {"ansible_user": ["root"]}}}},
    ],
)
def test_what_is_not_understood_is_refused(document: Any) -> None:
    with pytest.raises(InvalidRequest):
        machines_in(document, _HERE)


def test_an_address_has_the_hosts_name_in_it_unless_it_is_a_number() -> None:
    assert machine_at("Node1.example.org").name == "node1"
    assert machine_at("10.0.0.11", "node1").name == "node1"
    with pytest.raises(InvalidRequest):
        machine_at("10.0.0.11")


def test_options_fill_what_is_missing() -> None:
    machine = Machine(name="n", address="n", user="root").or_else(user="joe", port=2222)
    assert (machine.user, machine.port) == ("root", 2222)
