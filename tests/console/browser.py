"""A real Chromium that does not overlook anything: errors, violations of the policy, access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium"
DESKTOP: Final = {"width": 1440, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
_AXE: Final = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
_GRAVE: Final = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Viewer:
    """Somebody in front of a page. ``complaints`` is what the browser found wrong."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # parts of complaints that belong to a test

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        where = str(message.location.get("url", ""))
        if "404" in message.text and where == self.page.url:
            return  # a page re-reads itself; what it is about may have been deleted just now
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({where})")

    def log_in(self, name: str, password: str) -> None:
        self.open("/login")
        self.page.fill("#field-name", name)
        self.page.fill("#field-password", password)
        self.page.click("button.btn-primary")
        self.page.wait_for_selector("#main")

    def open(self, path: str) -> None:
        self.page.goto(self.url + path, wait_until="load")

    def log_in_by_token(self, token: str) -> None:
        """Fill in the form of who comes with a token."""
        self.open("/login")
        self.page.click("summary")
        self.page.fill("#field-token", token)
        self.page.click("button.btn-primary")
        self.page.wait_for_selector("#main")

    def unexpected(self) -> list[str]:
        """Complaints that no test expects."""
        return [text for text in self.complaints if not any(part in text for part in self.expected)]

    def barriers(self) -> list[str]:
        """What axe-core finds that keeps people out, gravely."""
        # Playwright evaluates it by the debugger, which the page's own policy does not bind.
        self.page.evaluate(_AXE.read_text())
        found: dict[str, Any] = self.page.evaluate("axe.run()")
        return [
            f"{item['id']} ({item['impact']}): {node['html'][:200]} {node['failureSummary'][:200]}"
            for item in found["violations"]
            if item["impact"] in _GRAVE
            for node in item["nodes"]
        ]

    def picture(self, path: Path) -> None:
        """A screenshot of all of the page."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True)


@contextmanager
def viewer(
    browser: Browser, url: str, size: dict[str, int] = DESKTOP, theme: str = "light"
) -> Iterator[Viewer]:
    """A fresh profile."""
    context = browser.new_context(
        ignore_https_errors=True,
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if theme == "dark" else "light",
        locale="en-GB",
        timezone_id="Europe/Berlin",
    )
    try:
        yield Viewer(context.new_page(), url)
    finally:
        context.close()
