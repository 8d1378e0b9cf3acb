"""The form of a new workload says what was typed, and nothing else."""

from __future__ import annotations

import pytest
import yaml

from virtmgr.console import workload_form as form
from virtmgr.domain.workload import WorkloadSpec


def test_a_blank_form_asks_for_the_defaults() -> None:
    wanted = form.read({**form.blank({}), "name": "web", "image": "nginx"})
    assert not wanted.wrong
    assert (wanted.project, wanted.count) == ("default", 1)
    assert wanted.spec == {
        "name": "web",
        "kind": "container",
        "init": "app",
        "image": "nginx",
        "resources": {"vcpus": 1, "memory": "512MiB"},
    }


def test_everything_is_read() -> None:
    fields = {
        **form.blank({"kind_of": "app", "project": "shop"}),
        "name": "web",
        "image": "nginx",
        "count": "3",
        "resources.vcpus": "0.5",
        "resources.io.read_bytes_per_second": "1MiB",
        "root_disk.size": "1GiB",
        "nics.0.network": "backend",
        "nics.0.address": "10.90.0.9",
        "volumes.0.volume": "orders",
        "volumes.0.path": "/srv",
        "volumes.0.read_only": "true",
        "ports.0.host": "8080",
        "ports.0.guest": "80",
        "ports.0.protocol": "tcp",
        "ports.0.address": "0.0.0.0",
        "labels": "tier=web\n\nteam=a b",
        "env": "URL=http://x/?a=b",
        "command": "sh -c 'sleep 1d'",
        "restart": "always",
        "ha.enabled": "true",
        "ha.priority": "7",
        "placement.host": "h1",
        "placement.require": "arch=x86_64",
        "affinity.0.mode": "apart",
        "affinity.0.labels": "tier=web",
        "affinity.0.scope": "rack",
        "protected": "true",
    }
    del fields["started"]
    wanted = form.read(fields)
    assert not wanted.wrong
    assert (wanted.project, wanted.count) == ("shop", 3)
    spec = WorkloadSpec.model_validate(wanted.spec)
    assert spec.resources.vcpus == 0.5
    assert spec.env == {"URL": "http://x/?a=b"}
    assert spec.command == ("sh", "-c", "sleep 1d")
    assert spec.labels == {"tier": "web", "team": "a b"}
    assert spec.ports[0].address == "0.0.0.0"
    assert spec.volumes[0].read_only
    assert spec.placement.affinity[0].required is False
    assert (spec.ha.enabled, spec.ha.priority) == (True, 7)
    assert (spec.state, spec.protected) == ("stopped", True)


def test_what_does_not_fit_the_kind_stays_and_is_not_read() -> None:
    fields = {**form.blank({"kind_of": "vm"}), "command": "nginx", "env": "A=1", "name": "db"}
    assert not {"command", "env", "init"} & form.read(fields).spec.keys()
    assert form.unseen(fields, "vm") == {"command": "nginx", "env": "A=1"}


def test_rows_come_and_go() -> None:
    fields = form.with_row(form.blank({}), "nics")
    fields["nics.1.network"] = "backend"
    assert [name for name, _ in form.rows(fields, "nics")] == ["nics.0", "nics.1"]
    fields = form.without_row(fields, "nics.0")
    assert form.rows(fields, "nics") == [("nics.0", {"network": "backend", "address": ""})]
    fields = form.without_row(fields, "nics.0")
    assert form.read({**fields, "name": "x"}).spec["nics"] == []


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("count", "many", "count"),
        ("resources.vcpus", "two", "resources.vcpus"),
        ("env", "no equals sign", "env"),
        ("command", "it's", "command"),
        ("ports.0.host", "http", "ports.0.host"),
        ("volumes.0.volume", "", "volumes.0.volume"),
        ("affinity.0.labels", "", "affinity.0.labels"),
    ],
)
def test_what_cannot_be_read_is_told_at_its_field(name: str, text: str, place: str) -> None:
    assert place in form.read({**form.blank({}), name: text}).wrong


def test_keys_join_the_user_data() -> None:
    assert form.with_keys(None, []) is None
    made = form.with_keys(None, ["ssh-ed25519 A"])
    assert made == "#cloud-config\nssh_authorized_keys:\n- ssh-ed25519 A\n"
    joined = form.with_keys("#cloud-config\nssh_authorized_keys: [a]\nhostname: x\n", ["b"])
    assert joined is not None
    assert yaml.safe_load(joined) == {"ssh_authorized_keys": ["a", "b"], "hostname": "x"}
    with pytest.raises(ValueError, match="brings its own keys"):
        form.with_keys("#!/bin/sh\n", ["b"])


def test_errors_of_the_api_find_their_fields() -> None:
    fields = form.blank({})
    found = dict(
        form.form_errors(
            {"labels.a b": "bad key", "nics.0.network": "no such", "init": "unknown"}, fields
        )
    )
    assert found == {
        "labels": "labels.a b: bad key",
        "nics.0.network": "no such",
        "init": "unknown",
    }
