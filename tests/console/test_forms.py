"""What forms of all pages do: show what is wrong, send once, and keep what was typed."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.console.browser import Viewer
from tests.console.conftest import logged_in
from tests.console.doing import fill, sees
from tests.console.installation import PASSWORD, Installation

REFUSED = "Failed to load resource"
IN_VIEW = """element => {
  const { top, bottom } = element.getBoundingClientRect();
  return top > 0 && bottom < innerHeight;
}"""


def end_session(installed: Installation) -> None:
    """Revoke the latest session of the administrator, as its end would."""
    tokens = installed.call("GET", "/tokens?limit=100")["items"]
    sessions = [token for token in tokens if token["name"] == "login"]
    latest = max(sessions, key=lambda token: str(token["created_at"]))
    installed.call("DELETE", f"/tokens/{latest['id']}")


def log_in_again(viewer: Viewer, name: str = "admin") -> None:
    """Where the page has led to the log-in."""
    page = viewer.page
    page.wait_for_url("**/login**")
    page.fill("#field-name", name)
    page.fill("#field-password", PASSWORD)
    page.click("button.btn-primary")
    page.wait_for_selector("#main")


def test_what_is_wrong_in_a_long_form_is_shown(viewer: Viewer) -> None:
    viewer.expected.append(REFUSED)
    page = viewer.page
    viewer.open("/workloads/create?image=busybox")
    page.fill("#field-name", "Wrong_Name")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#field-name")).to_be_focused()
    page.wait_for_function(IN_VIEW, arg=page.locator("#field-name").element_handle())
    assert viewer.barriers() == []
    page.fill("#field-name", "named")  # what is wrong is in what was closed
    page.get_by_text("Limits", exact=True).click()
    page.fill("[name='resources.pids']", "many")
    page.get_by_text("Limits", exact=True).click()
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("[name='resources.pids']")).to_be_focused()


def test_a_refusal_says_what_is_wrong_and_no_commands(viewer: Viewer) -> None:
    viewer.expected.append(REFUSED)
    viewer.open("/networks/create")
    fill(viewer, name="lan", ipv4="10.0.0.0/33")
    viewer.page.get_by_role("button", name="Create network").click()
    expect(viewer.page.locator("#field-ipv4")).to_be_focused()
    alert = viewer.page.get_by_role("alert")
    expect(alert).to_contain_text("10.0.0.0/33")
    expect(alert).not_to_contain_text("virtmgr COMMAND")
    expect(alert).not_to_contain_text("the request is not valid")


def test_pressing_twice_sends_once(viewer: Viewer, installed: Installation) -> None:
    page, sent = viewer.page, []
    page.on("request", lambda request: sent.append(request.method))
    viewer.open("/volumes/create")
    fill(viewer, name="once", size="1GiB", project="lab")
    page.get_by_role("button", name="Create volume").dblclick()
    page.wait_for_url("**/volumes/once")
    assert sent.count("POST") == 1
    installed.call("DELETE", "/projects/lab/volumes/once")


def test_what_was_typed_outlives_the_session(browser: Browser, installed: Installation) -> None:
    with logged_in(browser, installed) as viewer:
        viewer.expected.append(REFUSED)
        page = viewer.page
        viewer.open("/users/create")
        fill(viewer, name="kept", password="a long password of hers")
        end_session(installed)
        page.get_by_role("button", name="Create user").click(no_wait_after=True)
        log_in_again(viewer)
        sees(viewer, "What you had typed is here again", within="#toasts")
        expect(page.locator("#field-name")).to_have_value("kept")
        expect(page.locator("#field-password")).to_have_value("")
        assert "password of hers" not in page.evaluate("JSON.stringify({...sessionStorage})")
        viewer.open("/users/create")
        expect(page.locator("#field-name")).to_have_value("")
        assert viewer.unexpected() == []


def test_the_form_of_workloads_comes_back_with_its_rows(
    browser: Browser, installed: Installation
) -> None:
    with logged_in(browser, installed) as viewer:
        viewer.expected.append(REFUSED)
        page = viewer.page
        viewer.open("/workloads/create")
        page.locator("[name=kind_of][value=vm]").check(force=True)
        expect(page.locator("[name=kind_of]:checked")).to_have_value("vm")
        page.get_by_role("button", name="NIC", exact=True).click()
        expect(page.locator("select[name^=nics]")).to_have_count(2)
        page.fill("#field-name", "kept")
        page.locator("details", has=page.locator("#field-user_data")).locator("summary").click()
        page.fill("#field-user_data", "#cloud-config\npassword: hers")
        end_session(installed)  # the page asks for news by itself, and hears of it
        page.evaluate("document.body.dispatchEvent(new Event('tasks'))")
        page.wait_for_url("**/login*")
        assert "hers" not in page.evaluate("JSON.stringify({...sessionStorage})")
        log_in_again(viewer)
        expect(page.locator("[name=kind_of]:checked")).to_have_value("vm")
        expect(page.locator("select[name^=nics]")).to_have_count(2)
        expect(page.locator("#field-name")).to_have_value("kept")
        expect(page.locator("#field-user_data")).to_have_value("")
        assert viewer.unexpected() == []


def test_a_form_that_the_browser_sends_comes_back_too(
    browser: Browser, installed: Installation
) -> None:
    with logged_in(browser, installed) as viewer:
        viewer.expected.append(REFUSED)
        page = viewer.page
        viewer.open("/hosts/host1/edit")
        fill(viewer, name="renamed")
        end_session(installed)
        page.evaluate("document.querySelector('#main form').requestSubmit()")
        log_in_again(viewer)
        expect(page.locator("#main [name=name]")).to_have_value("renamed")
        assert page.url.endswith("/hosts/host1/edit")
        assert viewer.unexpected() == []


def test_what_one_user_typed_is_not_shown_to_another(
    browser: Browser, installed: Installation
) -> None:
    installed.call("PUT", "/users/maria/password", {"password": PASSWORD})
    with logged_in(browser, installed) as viewer:
        viewer.expected.append(REFUSED)
        page = viewer.page
        viewer.open("/volumes/create")
        fill(viewer, name="secret-plan")
        end_session(installed)
        page.evaluate("document.body.dispatchEvent(new Event('tasks'))")
        log_in_again(viewer, "maria")
        expect(page.locator("#field-name")).to_have_value("")
        assert "secret-plan" not in page.evaluate("JSON.stringify({...sessionStorage})")
