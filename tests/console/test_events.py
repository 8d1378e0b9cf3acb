"""The event log in the console: followed, searched, exported."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.console.browser import Viewer
from tests.console.doing import is_fine, sees
from tests.console.installation import Installation
from virtmgr.console.pages.events import as_csv, as_json, details, sentence, times


@pytest.mark.slow
def test_the_log_is_followed_until_told_otherwise(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/events")
    is_fine(viewer)
    viewer.page.wait_for_selector("#live[data-state=live]")
    installed.call("POST", "/projects", {"name": "heard"})
    try:
        sees(viewer, "project heard was created", "#list")
        viewer.page.click("text=Stop following")
        viewer.page.wait_for_url("**live=off*")
        assert viewer.page.locator("#list").get_attribute("hx-trigger") == "never"
    finally:
        installed.call("DELETE", "/projects/heard")
    viewer.page.click("#main >> text=Follow")
    sees(viewer, "project heard was deleted", "#list")


@pytest.mark.slow
def test_events_are_searched_and_exported(viewer: Viewer, tmp_path: Path) -> None:
    viewer.open("/events")
    viewer.page.fill("[name=q]", "orders")
    viewer.page.keyboard.press("Enter")
    viewer.page.wait_for_url("**q=orders*")
    sees(viewer, "volume orders was created", "#list")
    assert viewer.page.locator("#list tbody tr", has_text="network backend").count() == 0
    viewer.page.select_option("[name=span]", "24h")
    viewer.page.wait_for_url("**span=24h*")
    assert "q=orders" in viewer.page.url
    for name in ("CSV", "JSON"):
        with viewer.page.expect_download() as loading:
            viewer.page.click(f"#main >> text={name}")
        loading.value.save_as(tmp_path / name)
    assert "volume orders was created" in (tmp_path / "CSV").read_text()
    assert all(
        "orders" in event["message"] for event in json.loads((tmp_path / "JSON").read_text())
    )
    viewer.page.locator("#list").get_by_role("link", name="volume.created").first.click()
    viewer.page.wait_for_url("**type=volume.created*")
    viewer.page.locator("#list").get_by_role("link", name="orders").first.click()
    viewer.page.wait_for_url("**/volumes/*")
    sees(viewer, "20 GiB")


def _event(**fields: Any) -> dict[str, Any]:
    return {
        "sequence": 1,
        "at": "2026-01-01T00:00:00Z",
        "type": "workload.running",
        "target": {"type": "workload", "id": "1", "name": "web"},
        "project": None,
        "user": None,
        "host": None,
        "operation_id": None,
        "message": "",
        "data": {},
        **fields,
    }


def test_events_in_words() -> None:
    assert sentence(_event()) == "web is running"
    assert sentence(_event(message="web was moved")) == "web was moved"
    assert sentence(_event(message="move was requested")) == "web: move was requested"
    enrolled = _event(type="host.enrolled", message="it was enrolling")
    assert sentence(enrolled) == "web is enrolled: it was enrolling"
    nameless = {"type": "role_binding", "id": "7", "name": "7"}
    told = _event(type="role_binding.created", target=nameless, message="maria is a member")
    assert sentence(told) == "maria is a member"
    assert sentence(_event(type="operation.failed", message="start")) == "web: start failed"
    shown = details(_event(data={"from": "a", "limit_memory": 2**30, "x": [1], "y": True, "n": 2}))
    assert shown == ["from: a", "limit memory: 1 GiB", "n: 2"]


def test_times_are_utc_and_spans_end_now() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert times({"span": "24h"}, now) == {"since": "2026-01-01T00:00:00+00:00", "until": None}
    typed = {"since": "2026-01-01T10:00", "until": "2026-01-01T10:00+02:00"}
    assert times(typed, now) == {
        "since": "2026-01-01T10:00:00+00:00",
        "until": "2026-01-01T10:00:00+02:00",
    }
    assert times({"since": "soon"}, now)["since"] == "soon", "the API says what is wrong with it"


def test_no_spreadsheet_takes_a_name_for_a_formula() -> None:
    (_, row) = "".join(as_csv([_event(message="=cmd()", data={"a": 1})])).split("\r\n")[:2]
    assert ",'=cmd()," in row
    assert '"{""a"": 1}"' in row


def test_json_is_one_array() -> None:
    assert json.loads("".join(as_json([]))) == []
    assert json.loads("".join(as_json([_event(), _event(sequence=2)])))[1]["sequence"] == 2
