"""``apply``: what it sends and shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from tests.cli.fake_server import State
from virtmgr.domain.difference import merged, patch_between, patch_for

FILE = """
type: volume
name: data
size: 1GiB
---
name: web1
kind: container
image: nginx
resources: {memory: 1GiB}
volumes: [{volume: data, path: /data}]
nics: [{network: default}]
---
type: network
network_type: bridge
name: lan
bridge: br0
"""


def patches(state: State) -> list[Any]:
    return [body for method, _path, body, _headers in state.requests if method == "PATCH"]


def test_creates_what_others_need_first(virtmgr: Run, state: State) -> None:
    result = virtmgr("apply", "-f", "-", input=FILE)
    assert result.exit_code == 0, result.output
    posts = [body for method, _path, body, _headers in state.requests if method == "POST"]
    assert [body["name"] for body in posts] == ["lan", "data", "web1"]
    assert posts[0] == {"name": "lan", "type": "bridge", "bridge": "br0"}
    assert "workload web1 created" in result.stdout
    assert "+  memory: 1073741824" in result.stdout


def test_the_same_again_changes_nothing(virtmgr: Run, state: State) -> None:
    virtmgr("apply", "-f", "-", input=FILE)
    result = virtmgr("apply", "-f", "-", input=FILE)
    assert result.stdout == (
        "network lan unchanged\nvolume data unchanged\nworkload web1 unchanged\n"
    )
    assert patches(state) == []


def test_updates_only_the_difference(virtmgr: Run, state: State) -> None:
    state.workload("web1", labels={"a": "1", "b": "2"}, restart="always")
    text = "name: web1\nlabels: {a: '1', c: '3'}\nresources: {vcpus: 2}\nrestart: null\n"
    result = virtmgr("apply", "-f", "-", input=text)
    assert result.exit_code == 0, result.output
    assert patches(state) == [
        {"labels": {"b": None, "c": "3"}, "resources": {"vcpus": 2}, "restart": None}
    ]
    assert "-  b: '2'" in result.stdout
    assert "+  c: '3'" in result.stdout


def test_it_says_what_waits_for_a_restart(virtmgr: Run, state: State) -> None:
    state.workload("web1")["status"]["needs_restart"] = ["resources.vcpus"]
    state.workload("same")["status"]["needs_restart"] = ["resources.memory"]
    text = "name: web1\nresources: {vcpus: 2}\n---\nname: same\nresources: {vcpus: 1}\n"
    result = virtmgr("apply", "-f", "-", input=text)
    assert "resources.vcpus: takes effect after 'virtmgr restart web1'" in result.stderr
    assert "memory" not in result.stderr
    assert "takes effect" not in virtmgr("apply", "-f", "-", "--no-wait", input=text).stderr


def test_dry_run_and_json(virtmgr: Run, state: State) -> None:
    result = virtmgr("apply", "-f", "-", "--dry-run", "-o", "json", input="name: w\nimage: x\n")
    (change,) = json.loads(result.stdout)
    assert change["change"] == "created"
    assert change["would"] == {"host": "host1", "name": "w"}
    assert not state.workloads


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("type: planet\nname: x\n", "unknown type 'planet'"),
        ("kind: vm\n", "has no name"),
        ("- a\n", "no mapping"),
        ("a: [", "no YAML"),
    ],
)
def test_bad_documents_are_named(virtmgr: Run, text: str, told: str) -> None:
    result = virtmgr("apply", "-f", "-", input=text)
    assert result.exit_code == 2
    assert told in result.stderr


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
keys = st.sampled_from(["a", "b", "labels", "env"])
documents = st.dictionaries(
    keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3)), max_size=4
)


def without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(each) for key, each in value.items() if each is not None}


@given(documents.map(without_nulls), documents.map(without_nulls))
def test_patch_between_turns_one_into_the_other(before: Any, after: Any) -> None:
    patch = patch_between(before, after)
    assert merged(before, patch) == after
    assert (patch == {}) == (before == after)


@given(documents.map(without_nulls), documents)
def test_patch_for_is_settled_after_once(current: Any, wanted: Any) -> None:
    after = merged(current, patch_for(current, wanted))
    assert patch_for(after, wanted) == {}
    assert {key for key in current if key not in wanted} <= set(after)
