"""What people do on any page of the console."""

from __future__ import annotations

from tests.console.browser import Viewer


def press(viewer: Viewer, label: str, *, within: str = "#main", type_name: str = "") -> None:
    """Press a button, and confirm where it asks; what loses data wants a name typed."""
    page = viewer.page
    page.locator(within).get_by_role("button", name=label, exact=True).first.click()
    if page.locator("#confirm[open]").count():
        if type_name:
            assert page.locator("#confirm [data-yes]").is_disabled()
            page.fill("#confirm input", type_name)
        page.click("#confirm [data-yes]")


def fill(viewer: Viewer, within: str = "#main", /, **fields: str) -> None:
    """Fill in fields of the page's form by their names."""
    for name, value in fields.items():
        field = viewer.page.locator(f"{within} [name={name}]:visible").first
        if field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def told(viewer: Viewer, text: str) -> None:
    """Wait until a message in the corner says it, and close that."""
    box = viewer.page.locator(".toast-box", has_text=text).first
    box.wait_for()
    box.locator(".btn-close").click()


def reloads_until_it_sees(viewer: Viewer, path: str, text: str) -> None:
    """Open a page that nothing makes live, again and again until it has the text."""
    for _ in range(60):
        viewer.open(path)
        if viewer.page.locator("#main").get_by_text(text).count():
            return
        viewer.page.wait_for_timeout(1000)
    raise AssertionError(f"{path} does not come to say {text!r}")


def sees(viewer: Viewer, text: str, within: str = "#main") -> None:
    """Wait until the page says it."""
    viewer.page.locator(within).get_by_text(text).first.wait_for()


def is_fine(viewer: Viewer) -> None:
    """Nobody is kept out of the page, and nothing stands out of it."""
    found = viewer.barriers()
    assert not found, found
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert viewer.page.evaluate(wide) <= 0, "the page is wider than the screen"
