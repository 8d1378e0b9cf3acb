"""What pages of workloads are made of: verdicts, verbs, specs as text, and changes by a form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from flask import Flask, g, render_template_string

from virtmgr.console.app import create_console
from virtmgr.console.formatting import exact_size
from virtmgr.console.pages.usage import first_period
from virtmgr.console.pages.workload_bulk import filters_of
from virtmgr.console.pages.workload_create import quota_lines
from virtmgr.console.placements import placed
from virtmgr.console.schema_fields import fields_of
from virtmgr.console.verbs import refusals
from virtmgr.console.workload_spec import (
    as_text,
    edit_fields,
    edit_patch,
    from_text,
    readable,
)
from virtmgr.domain.image import ImageType
from virtmgr.domain.workload import GIB, MIB, WorkloadSpec


def spec(**fields: Any) -> dict[str, Any]:
    """As the API shows it."""
    given = {"name": "web", "kind": "container", "init": "app", "image": "nginx", **fields}
    return WorkloadSpec.model_validate(given).model_dump(mode="json")


def workload(seen: str = "running", **fields: Any) -> dict[str, Any]:
    asked = spec(**fields)
    status = {"state": seen}
    return {
        "name": "web",
        "kind": asked["kind"],
        "spec": asked,
        "status": status,
        "deleting": False,
    }


def test_buttons_are_those_that_would_be_allowed() -> None:
    running = refusals(workload())
    assert not {"stop", "restart", "pause", "delete", "update", "console"} & running.keys()
    assert {"start", "resume", "clone", "publish"} <= running.keys()
    stopped = refusals(workload("stopped", state="stopped"))
    assert not {"start", "clone", "publish", "delete"} & stopped.keys()
    assert {"stop", "restart", "pause", "exec"} <= stopped.keys()


def test_what_is_protected_says_so() -> None:
    assert "protected" in refusals(workload(protected=True))["delete"]
    assert "delete" in refusals({**workload(), "deleting": True})


EXPLANATION: dict[str, Any] = {
    "summary": "placed on h1: the only host that fits",
    "hosts": 2,
    "fitting": 1,
    "rejected": {"memory": 1},
    "complete": True,
    "verdicts": [
        {"host": {"id": "1", "name": "h1"}, "fits": True, "score": 1.5, "scores": {"policy": 1}},
        {
            "host": {"id": "2", "name": "h2"},
            "fits": False,
            "reasons": [{"code": "memory", "message": "only 1 GiB of memory is free"}],
        },
    ],
}


def test_verdicts_say_why() -> None:
    found = placed(EXPLANATION, ["h1"])
    assert found is not None
    assert [(one.host, one.chosen, list(one.why)) for one in found.verdicts] == [
        ("h1", True, []),
        ("h2", False, ["only 1 GiB of memory is free"]),
    ]
    assert found.spread == ()
    several = placed(EXPLANATION, ["h1", "h3", "h1"])
    assert several is not None
    assert several.spread == [("h1", 2), ("h3", 1)]


def test_other_facts_are_no_placement() -> None:
    assert placed(None, []) is None
    assert placed({"states": ["stopped"]}, []) is None


def test_charts_of_what_is_young_begin_with_little() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert first_period("2026-01-01T11:50:00Z", now) == "quarter"
    assert first_period("2026-01-01T11:40:00Z", now) == "hour"


def test_quota_says_what_is_left() -> None:
    quota: dict[str, Any] = {
        f"{part}_{name}": None
        for part in ("limit", "used")
        for name in ("workloads", "vcpus", "memory", "disk", "addresses")
    }
    quota |= {"limit_vcpus": 4, "used_vcpus": 3, "limit_memory": 8 * GIB, "used_memory": GIB}
    quota |= {"limit_disk": 8 * GIB, "used_disk": GIB}
    wanted = {"init": "app", "resources": {"vcpus": 1, "memory": "1GiB"}}
    lines = {line.title: line for line in quota_lines(quota, wanted, 2)}
    assert lines.keys() == {"vCPUs", "Memory", "Disk"}
    assert (lines["vCPUs"].text, lines["vCPUs"].exceeded) == ("2 asked, 1 left", True)
    assert lines["Disk"].text == "4 GiB asked, 7 GiB left"
    assert (lines["Memory"].text, lines["Memory"].exceeded) == ("2 GiB asked, 7 GiB left", False)


def test_quota_counts_no_root_disk_for_a_kernel() -> None:
    quota: dict[str, Any] = {
        f"{part}_{name}": None
        for part in ("limit", "used")
        for name in ("workloads", "vcpus", "memory", "disk", "addresses")
    }
    quota |= {"limit_disk": 20 * GIB, "used_disk": 15 * GIB}
    for image_type, text in ((ImageType.KERNEL, "0 B"), (ImageType.DISK, "10 GiB")):
        [line] = quota_lines(quota, {"kind": "vm"}, 1, image_type)
        assert line.text == f"{text} asked, 5 GiB left"
        assert line.exceeded == (image_type is ImageType.DISK)


@pytest.mark.parametrize(
    ("count", "text"),
    [(512 * MIB, "512MiB"), (1536 * MIB, "1536MiB"), (2 * GIB, "2GiB"), (1000, 1000), (0, 0)],
)
def test_sizes_are_said_exactly(count: int, text: str | int) -> None:
    assert exact_size(count) == text


def test_text_says_the_same_spec() -> None:
    whole = spec(volumes=[{"volume": "v", "path": "/v"}], nics=[], env={"A": "1"})
    text = as_text(whole)
    assert WorkloadSpec.model_validate(from_text(text)) == WorkloadSpec.model_validate(whole)
    assert "memory: 512MiB" in text
    assert "description" not in text
    assert yaml.safe_load(text)["nics"] == []


@pytest.mark.parametrize("text", ["a: [", "- just\n- a list\n", "word", ""])
def test_what_is_no_spec_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"no YAML|no spec"):
        from_text(text)


def test_an_untouched_form_changes_nothing() -> None:
    whole = spec(
        labels={"a": "1"},
        resources={"vcpus": 0.5, "pids": 9, "io": {"read_bytes_per_second": "1MiB"}},
        protected=True,
        ha={"enabled": True, "priority": 3},
    )
    assert edit_patch(whole, edit_fields(whole)) == ({}, {})


def test_a_form_changes_what_differs_and_takes_away_what_was_cleared() -> None:
    whole = spec(labels={"a": "1", "b": "2"}, resources={"pids": 9, "memory": "1GiB"})
    fields = edit_fields(whole) | {
        "labels": "b=3",
        "resources.pids": "",
        "resources.memory": "2GiB",
        "protected": "true",
    }
    patch, wrong = edit_patch(whole, fields)
    assert not wrong
    assert patch == {
        "labels": {"a": None, "b": "3"},
        "resources": {"memory": 2 * GIB, "pids": None},
        "protected": True,
    }


def test_what_cannot_be_read_is_told_and_sizes_are_left_to_the_api() -> None:
    whole = spec()
    fields = edit_fields(whole) | {"stop_timeout": "soon", "resources.memory": "lots"}
    patch, wrong = edit_patch(whole, fields)
    assert wrong.keys() == {"stop_timeout"}
    assert patch["resources"] == {"memory": "lots"}


def test_readable_keeps_what_says_something() -> None:
    found = readable({"a": None, "b": {}, "c": [], "nics": [], "d": 1.0, "e": False, "f": 0.5})
    assert found == {"nics": [], "d": 1, "e": False, "f": 0.5}


def test_fields_of_the_schema_are_told_with_what_is_in_them() -> None:
    found = {field.name: field for field in fields_of(WorkloadSpec.model_json_schema())}
    assert found["name"].required
    assert found["kind"].kind == "vm | container"
    assert found["nics"].kind == "list of object"
    assert "next free" in found["nics[].address"].about
    assert found["resources.io.read_bytes_per_second"].about.startswith("Read in a second")
    assert found["labels"].kind == "map"


@pytest.mark.parametrize(("project", "wanted"), [(None, None), ("lab", "lab"), ("", None)])
def test_many_are_those_of_the_list(project: str | None, wanted: str | None) -> None:
    with Flask(__name__).app_context():
        g.project = project
        found = filters_of("?q=a&cdrom=tools&label=a:b&label=c:d&sort=-name&cursor=x")
    of_project = {} if wanted is None else {"project": wanted}
    assert found == {"q": "a", "cdrom": "tools", "label": ["a:b", "c:d"], **of_project}


def rendered(template: str, **content: Any) -> str:
    """A piece of a page, as the console renders it for somebody."""
    app = create_console(lambda _environ, _start: [])
    with app.test_request_context("/workloads"):
        return render_template_string(
            '{% import "workloads/parts.html" as parts with context %}' + template, **content
        )


def test_a_state_is_told_with_its_age_where_the_host_is_silent() -> None:
    seen = {
        **workload("unknown"),
        "host": {"id": "1", "name": "h1"},
        "status": {
            "state": "unknown",
            "reason": {"message": "<script>alert(1)</script>"},
            "needs_restart": ["env"],
            "progress": None,
        },
    }
    shown = rendered("{{ parts.state(w, {'1': '2026-01-01T00:00:00+00:00'}) }}", w=seen)
    assert "as of <time" in shown
    assert "needs restart" in shown
    assert "<script>" not in shown
    assert "as of" not in rendered("{{ parts.state(w, {}) }}", w=seen)
