"""Workloads in a real browser: the list, what is done with one or many, the form, the editor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.installation import Installation, installation, populate
from tests.scaleout.client import wait_until
from virtmgr.domain.errors import DriverError

pytestmark = pytest.mark.slow

_PATIENCE = 30_000  # milliseconds: a loaded machine is slow, and says nothing about the code
expect.set_options(timeout=_PATIENCE)
TABS = ("devices", "events", "placement", "yaml", "edit", "move", "clone", "publish", "stop")
WEB = "/projects/shop/workloads/web-1"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("workloads")) as found:
        populate(found)
        _until(found, "/workloads", lambda list_: _all_run(list_["items"]))
        yield found


@pytest.fixture
def seen(installed: Installation, browser: Browser) -> Iterator[Viewer]:
    """Somebody who is logged in, and whose browser has nothing to complain about at the end."""
    with logged_in(browser, installed) as found:
        yield found
        assert found.unexpected() == []


def _all_run(items: Any) -> bool:
    return all(one["status"]["state"] == "running" for one in items)


def _until(found: Installation, path: str, good: Callable[[Any], bool]) -> Any:
    wait_until(lambda: good(found.call("GET", path)))
    return found.call("GET", path)


def _state(found: Installation, path: str, state: str) -> None:
    _until(found, path, lambda one: one["status"]["state"] == state)


def _toast(page: Page, text: str) -> None:
    expect(page.locator(".toast-box").filter(has_text=text).first).to_be_visible()


def _confirm(page: Page, name: str | None = None) -> None:
    dialog = page.locator("#confirm")
    if name is not None:
        expect(dialog.locator("[data-yes]")).to_be_disabled()
        dialog.locator("[data-named] input").fill(name)
    dialog.locator("[data-yes]").click()


# ---- the list


def test_list_is_live_and_acts_on_a_row(seen: Viewer) -> None:
    page = seen.page
    seen.open("/workloads?project=lab")
    row = page.locator("#list tr", has_text="ci")
    expect(row.locator(".state")).to_have_text("running")
    page.get_by_label("Stop ci").click()
    _confirm(page)
    _toast(page, "ci is being stopped")
    expect(row.locator(".state")).to_have_text("stopped")
    page.get_by_label("Start ci").click()
    expect(row.locator(".state")).to_have_text("running")
    assert seen.barriers() == []


def test_filters_are_choices_and_labels_are_links(seen: Viewer) -> None:
    page = seen.page
    seen.open("/workloads")
    assert {"host1", "host2", "host3"} <= set(
        page.locator("select[name=host] option").all_inner_texts()
    )
    page.select_option("select[name=kind]", "vm")
    expect(page.locator("#list tbody tr")).to_have_count(2)
    page.goto(seen.url + "/workloads")
    page.locator("a.label", has_text="tier=web").first.click()
    expect(page.locator("#list tbody tr")).to_have_count(4)
    assert "label=tier%3Aweb" in page.url
    page.goto(seen.url + "/workloads?label=tier:web&label=no:thing&kind=container")
    expect(page.locator("#list")).to_contain_text("Nothing matches")
    page.get_by_label("Take off no:thing").click()
    expect(page.locator("#list tbody tr")).to_have_count(4)
    assert "kind=container" in page.url


def test_columns_and_views_are_kept_by_the_browser(seen: Viewer) -> None:
    page = seen.page
    seen.open("/workloads?kind=vm")
    page.locator("summary", has_text="Columns").click()
    page.locator("[data-column-choice='5']").uncheck()
    expect(page.locator("td.c-5").first).to_be_hidden()
    page.keyboard.press("Escape")
    page.locator("summary", has_text="Views").click()
    page.locator("[data-save-view] input").fill('VMs <b>"only"</b>')
    page.locator("[data-save-view] button").click()
    seen.open("/workloads")
    expect(page.locator("td.c-5").first).to_be_hidden()
    page.locator("summary", has_text="Views").click()
    page.locator("[data-views] a", has_text='VMs <b>"only"</b>').click()
    expect(page).to_have_url(re.compile("kind=vm"))
    page.locator("summary", has_text="Views").click()
    page.get_by_label(re.compile("Forget the view")).click()
    expect(page.locator("[data-views] a")).to_have_count(0)


def test_many_selected_each_with_its_outcome(seen: Viewer, installed: Installation) -> None:
    installed.call("PATCH", "/projects/shop/workloads/web-2", {"protected": True})
    page = seen.page
    seen.open("/workloads?q=web-&project=shop")
    page.get_by_label("Select all on this page").check()
    expect(page.locator("[data-selected-count]")).to_have_text("4 selected")
    page.get_by_label("Select web-1").uncheck()
    page.locator("#selection button[value=stop]").click()
    assert seen.barriers() == []
    page.get_by_role("button", name="Stop 3 workloads").click()
    expect(page.locator("#bulk-summary")).to_contain_text("2 stopped, 1 refused.")
    expect(page.locator("[data-outcome=done]")).to_have_count(2)
    refused = page.locator("[data-outcome=refused]")
    expect(refused).to_contain_text("web-2")
    expect(refused).to_contain_text("it is protected")
    for name in ("web-3", "web-4"):
        _state(installed, f"/projects/shop/workloads/{name}", "stopped")
    installed.call("PATCH", "/projects/shop/workloads/web-2", {"protected": False})


def test_what_fails_after_it_was_begun_is_told_in_its_line(
    seen: Viewer, installed: Installation
) -> None:
    installed.call("POST", "/projects/lab/workloads/ci/stop?wait=60", {"force": True})
    for host in installed.hosts:
        error = DriverError("starting it failed: no such program", hint="correct its command")
        host.world.script.fail("start", error, times=1000)
    page = seen.page
    seen.open("/workloads?project=lab&q=ci")
    page.get_by_label("Select ci").check()
    page.locator("#selection button[value=start]").click()
    page.get_by_role("button", name="Start 1 workload").click()
    expect(page.locator("#bulk-summary")).to_contain_text("1 failed.")
    failed = page.locator("[data-outcome=failed]")
    expect(failed).to_contain_text("starting it failed: no such program correct its command")
    assert seen.barriers() == []
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    shown = failed.locator("td.wrap").bounding_box()
    assert shown is not None
    assert shown["x"] >= 0
    assert shown["x"] + shown["width"] <= PHONE["width"], "it is read without scrolling"
    assert shown["width"] > PHONE["width"] / 2
    for host in installed.hosts:
        host.world.script.failures.clear()
    installed.call("POST", "/projects/lab/workloads/ci/start?wait=60")


def test_all_that_match_are_done_step_by_step(seen: Viewer, installed: Installation) -> None:
    body = {
        "name": "batch",
        "kind": "container",
        "init": "app",
        "image": "busybox",
        "resources": {"vcpus": 0.01, "memory": "4MiB"},
        "state": "stopped",
        "nics": [],
    }
    installed.call("POST", "/projects/lab/workloads?count=55", body)
    page = seen.page
    seen.open("/workloads?q=batch-")
    expect(page.locator("#list tbody tr")).to_have_count(50)
    page.get_by_label("Select all on this page").check()
    expect(page.locator("#selection")).to_contain_text("all 55 that match")
    page.locator("#selection [name=all]").check()
    page.locator("#selection button[value=delete]").click()
    page.get_by_role("button", name="Delete 55 workloads").click()
    _confirm(page, "delete 55")
    expect(page.locator("#bulk-summary")).to_contain_text("55 deleted.")
    expect(page.locator("[data-outcome=done]")).to_have_count(55)
    wait_until(lambda: not installed.call("GET", "/workloads?q=batch-")["items"])
    assert installed.call("GET", "/workloads?project=lab")["items"]


# ---- one workload


def test_every_tab_is_open_to_all(seen: Viewer) -> None:
    for tab in ("", *(f"/{name}" for name in TABS)):
        seen.open(WEB + tab)
        expect(seen.page.locator("h1")).to_contain_text("web-1")
        assert seen.barriers() == [], tab


def test_pages_fit_a_phone(installed: Installation, browser: Browser) -> None:
    with logged_in(browser, installed, size=PHONE, theme="dark") as found:
        for path in ("/workloads", "/workloads/create", WEB, f"{WEB}/devices", f"{WEB}/yaml"):
            found.open(path)
            found.page.wait_for_timeout(300)
            width = found.page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"] + 8, path
            assert found.barriers() == [], path
        page = found.page
        found.open("/workloads")
        expect(page.locator("select[name=kind]")).to_be_hidden()
        page.get_by_role("button", name="Filters").click()
        page.locator("select[name=kind]").select_option("vm")
        expect(page).to_have_url(re.compile("kind=vm"))
        expect(page.locator("select[name=kind]")).to_be_visible()
        assert found.unexpected() == []


def test_power(seen: Viewer) -> None:
    page = seen.page
    seen.open(WEB)
    head, state = page.locator("#workload-head"), page.locator("#summary .state").first
    head.locator("summary").click()
    head.get_by_role("button", name="Pause").click()
    expect(state).to_have_text("paused")
    head.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("running")
    head.get_by_role("button", name="Restart").click()
    _confirm(page)
    _toast(page, "web-1 is being restarted")
    expect(page.locator("#summary tr", has_text="restart")).to_contain_text("succeeded")
    seen.open(f"{WEB}/stop")
    page.get_by_text("End it at once").click()
    page.get_by_role("button", name="Stop").click()
    expect(page).to_have_url(re.compile("web-1$"))
    expect(page.locator("#summary .state").first).to_have_text("stopped")
    page.locator("#workload-head").get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#summary .state").first).to_have_text("running")


def test_devices_and_ports(seen: Viewer, installed: Installation) -> None:
    page = seen.page
    seen.open(f"{WEB}/devices")
    page.select_option("#attach-volume", "orders")
    page.fill("#attach-path", "/srv")
    page.locator("form", has=page.locator("#attach-volume")).get_by_role("button").click()
    _toast(page, "orders is being attached")
    volume = page.locator("tr", has=page.get_by_role("link", name="orders"))
    expect(volume).to_contain_text("/srv")
    page.select_option("#attach-network", "default")
    page.fill("#attach-address", "10.83.7.7")
    page.locator("form", has=page.locator("#attach-network")).get_by_role("button").click()
    expect(page.locator("#nic-1")).to_contain_text("10.83.7.7")
    page.fill("#port-host", "18080")
    page.fill("#port-guest", "80")
    page.locator("form", has=page.locator("#port-host")).get_by_role("button").click()
    port = page.locator("tr", has_text="18080")
    expect(port).to_contain_text("127.0.0.1")
    spec = installed.call("GET", WEB)["spec"]
    assert spec["volumes"] == [{"volume": "orders", "path": "/srv", "read_only": False}]
    assert [port["host"] for port in spec["ports"]] == [18080]
    port.get_by_role("button", name="Remove").click()
    _confirm(page)
    expect(port).to_have_count(0)
    page.locator("#nic-1").get_by_role("button").click()
    _confirm(page)
    expect(page.locator("#nic-1")).to_have_count(0)
    volume.get_by_role("button").click()
    _confirm(page)
    expect(volume).to_have_count(0)


def test_a_refused_device_is_told(seen: Viewer) -> None:
    seen.expected.append("422")
    page = seen.page
    seen.open(f"{WEB}/devices")
    page.select_option("#attach-network", "default")
    page.fill("#attach-address", "10.1.2.3")
    page.locator("form", has=page.locator("#attach-network")).get_by_role("button").click()
    expect(page.locator(".toast-danger")).to_contain_text("10.1.2.3")


def test_edit_renames_and_resizes(seen: Viewer, installed: Installation) -> None:
    seen.expected.append("422")
    page = seen.page
    path = "/projects/lab/workloads/build"
    seen.open(f"{path}/edit")
    page.fill("#field-name", "Not a name")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".alert-danger")).to_be_visible()
    expect(page.locator("#field-name")).to_have_value("Not a name")
    page.fill("#field-name", "builder")
    page.fill("[id='field-resources.vcpus']", "0.5")
    page.fill("[id='field-resources.memory']", "256MiB")
    page.fill("[id='field-labels']", "tier=build\nteam=core")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("h1")).to_have_text("builder")
    expect(page).to_have_url(re.compile("/projects/lab/workloads/builder$"))
    spec = installed.call("GET", "/projects/lab/workloads/builder")["spec"]
    assert (spec["resources"]["vcpus"], spec["resources"]["memory"]) == (0.5, 256 * 1024**2)
    assert spec["labels"] == {"tier": "build", "team": "core"}


def test_yaml_is_compared_then_saved_and_a_conflict_is_told(
    seen: Viewer, installed: Installation
) -> None:
    seen.expected.append("422")
    page = seen.page
    seen.open(f"{WEB}/yaml")
    page.get_by_text("Every field there is").click()
    expect(page.locator(".field-list")).to_contain_text("resources.io.read_bytes_per_second")
    text = page.locator("#spec").input_value()
    page.fill("#spec", "name: [")
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".alert-danger")).to_contain_text("no YAML")
    page.fill("#spec", text + "no_such_field: 1\n")
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".alert-danger")).to_be_visible()
    page.fill("#spec", text + "env:\n  GREETING: hello\n")
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".diff .added").first).to_contain_text("env:")
    installed.call("PATCH", WEB, {"labels": {"tier": "web", "by": "other"}})
    page.get_by_role("button", name="Save this").click()
    expect(page.locator(".alert-danger")).to_contain_text("was changed while you edited it")
    expect(page.locator(".diff .removed")).to_contain_text("by: other")
    now = page.locator("#spec").input_value().replace("tier: web", "tier: web\n  by: other")
    page.fill("#spec", now)
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".diff .removed")).to_have_count(0)
    page.get_by_role("button", name="Save this").click()
    expect(page).to_have_url(re.compile("web-1$"))
    spec = installed.call("GET", WEB)["spec"]
    assert spec["env"] == {"GREETING": "hello"}
    assert spec["labels"] == {"tier": "web", "by": "other"}


def test_move_shows_its_plan_first(seen: Viewer, installed: Installation) -> None:
    page = seen.page
    before = installed.call("GET", WEB)["host"]["name"]
    target = next(name for name in ("host1", "host2", "host3") if name != before)
    seen.open(f"{WEB}/move")
    page.select_option("#field-to", target)
    expect(page.locator(".verdict-good")).to_contain_text(f"from {before} to {target}")
    page.get_by_role("button", name="Move").click()
    _toast(page, "web-1 is being moved")
    expect(page).to_have_url(re.compile("web-1$"))
    operations = installed.call("GET", "/operations?verb=move")["items"]
    assert [one["target"]["name"] for one in operations] == ["web-1"]


def test_clone_and_image_of_a_stopped_one(seen: Viewer, installed: Installation) -> None:
    seen.expected += ["409", "422"]
    page = seen.page
    path = "/projects/lab/workloads/ci"
    seen.open(f"{path}/clone")
    expect(page.locator(".alert-info")).to_contain_text("only a stopped workload is cloned")
    page.get_by_role("button", name="Clone").click()
    expect(page.locator(".alert-danger")).to_contain_text("Stop it first")
    installed.call("POST", f"{path}/stop", {})
    _state(installed, path, "stopped")
    page.fill("#field-name", "ci-copy")
    page.get_by_role("button", name="Clone").click()
    _toast(page, "ci is being cloned")
    expect(page.locator("h1")).to_have_text("ci-copy")
    seen.open(f"{path}/publish")
    page.fill("#field-name", "ci:1")
    page.fill("#field-labels", "nonsense")
    page.get_by_role("button", name="Make the image").click()
    expect(page.locator(".alert-danger")).to_contain_text("write KEY=VALUE")
    page.fill("#field-labels", "from=ci")
    page.get_by_role("button", name="Make the image").click()
    expect(page.locator("h1, .alert-danger").first).to_be_visible()


def test_delete_asks_for_the_name_and_protected_is_refused(
    seen: Viewer, installed: Installation
) -> None:
    page = seen.page
    path = "/projects/shop/workloads/web-4"
    installed.call("PATCH", path, {"protected": True})
    seen.open(path)
    page.locator("#workload-head summary").click()
    expect(page.locator("#workload-head")).to_contain_text("it is protected")
    installed.call("PATCH", path, {"protected": False})
    seen.open(path)
    page.locator("#workload-head summary").click()
    page.get_by_role("button", name="Delete…").click()
    _confirm(page, "web-4")
    _toast(page, "web-4 is being deleted")
    expect(page).to_have_url(re.compile("/workloads$"))
    expect(page.locator("#list")).to_be_visible()


# ---- the form


def test_form_changes_with_the_kind_and_keeps_what_was_typed(
    seen: Viewer, installed: Installation
) -> None:
    page = seen.page
    seen.open("/workloads/create")
    page.fill("#field-name", "shop-front")
    page.fill("#field-command", "sleep 1d")
    page.select_option("#field-project", "shop")
    expect(page.locator("#preview")).to_contain_text("Quota of shop")
    page.locator("input[value=vm]").check()
    expect(page.locator("#field-firmware")).to_be_attached()
    expect(page.locator("input[name=command]")).to_have_attribute("type", "hidden")
    assert page.locator("#field-image option").all_inner_texts()[1].startswith("debian")
    page.locator("input[value=app]").check()
    expect(page.locator("#field-command")).to_have_value("sleep 1d")
    expect(page.locator("#field-name")).to_have_value("shop-front")
    page.select_option("#field-image", "busybox")
    page.get_by_role("button", name="Port", exact=True).click()
    page.fill("[name='ports.0.host']", "18081")
    page.fill("[name='ports.0.guest']", "80")
    expect(page.locator("#preview .verdict-good")).to_contain_text("placed on")
    page.locator("[data-say=YAML] summary").click()
    expect(page.locator("[data-say=YAML] pre")).to_contain_text("host: 18081")
    assert seen.barriers() == []
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("h1")).to_have_text("shop-front")
    made = installed.call("GET", "/projects/shop/workloads/shop-front")
    assert made["spec"]["command"] == ["sleep", "1d"]
    assert made["spec"]["ports"][0]["host"] == 18081


def test_form_tells_what_is_wrong_beside_the_field(seen: Viewer) -> None:
    seen.expected.append("422")
    page = seen.page
    seen.open("/workloads/create?image=busybox&name=huge")
    page.fill("[id='field-resources.memory']", "900TiB")
    expect(page.locator("#preview .verdict-bad")).to_contain_text("no host fits")
    page.fill("[id='field-resources.memory']", "lots")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("[id='field-resources.memory']")).to_have_class(re.compile("is-invalid"))
    expect(page.locator("[id='field-resources.memory']")).to_have_value("lots")


def test_form_makes_several_and_a_vm(seen: Viewer, installed: Installation, tmp_path: Path) -> None:
    page = seen.page
    seen.open("/workloads/create?kind_of=vm&project=lab&image=debian&name=node")
    page.fill("#field-count", "2")
    page.locator("summary", has_text="Inside").click()
    page.fill("#field-ssh_keys", "ssh-ed25519 AAAA ada")
    expect(page.locator("#preview .verdict-good")).to_contain_text(" on host")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#list tbody tr")).to_have_count(2)
    for number in (1, 2):
        spec = installed.call("GET", f"/projects/lab/workloads/node-{number}")["spec"]
        assert "ssh-ed25519 AAAA ada" in spec["user_data"]
    seen.picture(tmp_path / "made.png")
