"""Users, and one's own account, in the console."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, expect

from tests.console.browser import Viewer
from tests.console.browser import viewer as a_viewer
from tests.console.doing import fill, is_fine, press, sees, told
from tests.console.installation import Installation
from virtmgr.console.pages.users import expiry, roles_by_user, state

pytestmark = pytest.mark.slow

_PASSWORD = "twelve monkeys at least"
_OTHER = "another twelve monkeys"


def test_a_user_is_made_given_roles_and_tokens_and_deleted(
    viewer: Viewer, installed: Installation
) -> None:
    viewer.open("/users")
    is_fine(viewer)
    viewer.page.click("text=Create user")
    fill(viewer, name="ivan", display_name="Ivan", password="short")
    viewer.expected.append("422")
    press(viewer, "Create user")
    viewer.page.wait_for_selector("#field-password.is-invalid")
    is_fine(viewer)
    fill(viewer, password=_PASSWORD, role="member", project="lab")
    press(viewer, "Create user")
    told(viewer, "User ivan is there")
    sees(viewer, "member", "#roles")
    is_fine(viewer)

    viewer.page.select_option("#new-role", "viewer")
    press(viewer, "Give role")
    told(viewer, "ivan is viewer now")
    sees(viewer, "everywhere", "#roles")
    press(viewer, "Remove", within="#roles")
    told(viewer, "The role of ivan is taken away")

    form = "form[action$=tokens]"
    fill(viewer, form, name="robot", days="7", role="viewer", project="lab")
    press(viewer, "Make token")
    secret = viewer.page.inner_text("#secret")
    assert secret.startswith("vmt_")
    is_fine(viewer)
    viewer.open("/users/ivan")
    assert secret not in viewer.page.content()
    (token,) = installed.call("GET", "/tokens?user=ivan")["items"]
    assert (token["name"], token["role"], token["project"]["name"]) == ("robot", "viewer", "lab")
    press(viewer, "Revoke")
    told(viewer, "The token of ivan is revoked")
    sees(viewer, "None. A token is what scripts log in with.")

    fill(viewer, display_name="Ivan the Terrible")
    press(viewer, "Save")
    told(viewer, "User ivan is changed")
    sees(viewer, "Ivan the Terrible", "#summary")
    press(viewer, "Disable")
    sees(viewer, "disabled", "#summary")
    viewer.open("/users/ivan")
    press(viewer, "Enable")
    sees(viewer, "active", "#summary")
    fill(viewer, password="short")
    press(viewer, "Set password")
    viewer.page.wait_for_selector("#field-password.is-invalid")
    fill(viewer, password=_OTHER)
    press(viewer, "Set password")
    told(viewer, "ivan has a new password")
    press(viewer, "Delete", type_name="ivan")
    told(viewer, "User ivan is deleted")


def test_ones_own_password_sessions_and_tokens(browser: Browser, installed: Installation) -> None:
    installed.call("POST", "/users", {"name": "olga", "password": _PASSWORD})
    binding = {"user": "olga", "role": "viewer", "project": "shop"}
    installed.call("POST", "/role-bindings", binding)
    try:
        with (
            a_viewer(browser, installed.url) as viewer,
            a_viewer(browser, installed.url) as elsewhere,
        ):
            viewer.log_in("olga", _PASSWORD)
            elsewhere.log_in("olga", _PASSWORD)
            _account(viewer)
            elsewhere.expected.append("401")
            elsewhere.open("/account")
            assert "/login" in elsewhere.page.url, "its session is ended"
            expect(viewer.page.locator("#sessions tbody tr")).to_have_count(1)
            press(viewer, "Revoke", within="#sessions")
            viewer.page.wait_for_url(re.compile("/login"))
            assert viewer.unexpected() == []
    finally:
        installed.call("DELETE", "/users/olga")


def _account(viewer: Viewer) -> None:
    viewer.open("/account")
    sees(viewer, "this session")
    is_fine(viewer)
    viewer.expected += ["422", "401"]
    fill(viewer, present=_PASSWORD, password=_OTHER, again="different")
    press(viewer, "Change password")
    sees(viewer, "The two new passwords differ.")
    fill(viewer, present="wrong", password=_OTHER, again=_OTHER)
    press(viewer, "Change password")
    viewer.page.locator(".alert-danger", has_text="wrong").wait_for()
    is_fine(viewer)
    fill(viewer, present=_PASSWORD, password=_OTHER, again=_OTHER)
    press(viewer, "Change password")
    told(viewer, "Your password is changed")
    fill(viewer, name="laptop", days="1")
    press(viewer, "Make token")
    assert viewer.page.inner_text("#secret").startswith("vmt_")
    press(viewer, "Revoke", within="#tokens")
    told(viewer, "It is revoked")
    press(viewer, "End all others")
    told(viewer, "All other sessions are ended")


def test_who_may_not_see_users_sees_no_members(browser: Browser, installed: Installation) -> None:
    """Pages that ask for what one's role does not show are shown without it."""
    installed.call("POST", "/users", {"name": "nina", "password": _PASSWORD})
    binding = {"user": "nina", "role": "viewer", "project": "shop"}
    installed.call("POST", "/role-bindings", binding)
    try:
        with a_viewer(browser, installed.url) as viewer:
            viewer.log_in("nina", _PASSWORD)
            viewer.open("/projects/shop")
            sees(viewer, "Only administrators see who has which role.")
            for path in (
                "/account",
                "/images",
                "/images/busybox",
                "/networks",
                "/networks/topology",
                "/networks/default",
                "/projects/shop/networks/backend",
                "/projects/shop/volumes/orders",
                "/operations",
                "/events",
                "/settings",
            ):
                viewer.open(path)
                assert viewer.page.locator("#main h1").count() == 1, path
            assert viewer.unexpected() == []
    finally:
        installed.call("DELETE", "/users/nina")


def test_states_and_ends() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    user = {"disabled": False, "locked_until": None}
    assert state(user, now) == "active"
    assert state(user | {"locked_until": (now + timedelta(1)).isoformat()}, now) == "locked"
    assert state(user | {"locked_until": (now - timedelta(1)).isoformat()}, now) == "active"
    assert state(user | {"disabled": True}, now) == "disabled"
    assert expiry("7", now) == "2026-01-08T00:00:00+00:00"
    assert expiry("", now) is None


def test_roles_by_user() -> None:
    maria = {"id": "1", "name": "maria"}
    bindings = [
        {"user": maria, "role": "viewer", "project": None},
        {"user": maria, "role": "member", "project": {"id": "p", "name": "shop"}},
    ]
    assert roles_by_user(bindings) == {"1": ["viewer", "member in shop"]}
