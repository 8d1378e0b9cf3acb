"""Settings in the console."""

from __future__ import annotations

import pytest

from tests.console.browser import Viewer
from tests.console.doing import fill, is_fine, press, told

pytestmark = pytest.mark.slow


def test_settings(viewer: Viewer) -> None:
    viewer.open("/settings")
    is_fine(viewer)
    with viewer.page.expect_download() as loading:
        viewer.page.get_by_role("link", name="Certificate", exact=True).click()
    assert loading.value.suggested_filename == "virtmgr-ca.pem"
    fill(viewer, theme="dark")
    press(viewer, "Keep")
    told(viewer, "Your choice is kept in this browser")
    assert viewer.page.evaluate("document.documentElement.dataset.bsTheme") == "dark"
    is_fine(viewer)
