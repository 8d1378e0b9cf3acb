"""A machine becomes a host by the browser, over real ssh; and its agent may stop answering."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import expect, sync_playwright

from tests.console.browser import CHROMIUM, Viewer
from tests.console.browser import viewer as new_viewer
from tests.console.doing import reloads_until_it_sees
from tests.lab.fleet import Lab
from tests.lab.plan import ADMINISTRATOR
from tests.multihost.faults import signal_in
from tests.multihost.fleet import Fleet, running_fleet
from virtmgr.domain.ssh import fingerprint_of
from virtmgr.enrollment.wheelhouse import make_wheelhouse

pytestmark = [
    pytest.mark.host,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces and mounts"),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed"),
]

_PATIENCE = 60_000  # milliseconds
_INSTALLATION = 900_000


@pytest.fixture(scope="module")
def fleet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A control plane without hosts; the machine that became one is as new afterwards."""
    wheelhouse = tmp_path_factory.mktemp("wheelhouse")
    make_wheelhouse(wheelhouse, ("3.11", "3.13"))
    with running_fleet(lab, VIRTMGR_WHEELHOUSE=str(wheelhouse)) as fleet:
        fleet.joined.append(lab.hosts()[0].name)
        yield fleet


@pytest.fixture
def person(fleet: Fleet, tmp_path: Path) -> Iterator[Viewer]:
    """The first administrator, at a browser that is where the control plane is."""
    inside = tmp_path / "chromium"
    inside.write_text(f'#!/bin/sh\nexec {shlex.join(fleet.lab.attached(CHROMIUM))} "$@"\n')
    inside.chmod(0o755)
    path = Path(fleet.environment["XDG_CONFIG_HOME"]) / "virtmgr/config.yaml"
    context: dict[str, Any] = yaml.safe_load(path.read_text())["contexts"]["default"]
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=str(inside), args=options)
        with new_viewer(browser, context["server"]) as found:
            found.page.set_default_timeout(_PATIENCE)
            expect.set_options(timeout=_PATIENCE)
            found.log_in_by_token(context["token"])
            yield found
        browser.close()


def test_a_machine_becomes_a_host_and_falls_silent(fleet: Fleet, person: Viewer) -> None:
    host, page = fleet.lab.hosts()[0], person.page
    person.open("/hosts")
    page.locator("#list").get_by_role("link", name="Add host").click()
    page.fill("#field-addresses", f"{host.name}={host.address}")
    page.fill("#field-labels", "rack=r1")
    page.get_by_role("button", name="Look at their keys").click()
    page.locator(f"input[value='{fingerprint_of(host.public_key)}']").check()
    page.fill("[name='ssh.user']", "nobody-here")
    page.fill("[name='ssh.private_key']", fleet.lab.site.key.read_text())
    page.locator("[name=vms]").uncheck()
    page.get_by_role("button", name="Install now").click()
    main = page.locator("#main")
    expect(main).to_contain_text("refuses this user with these credentials", timeout=_INSTALLATION)
    page.get_by_role("link", name="Retry").click()
    expect(main).to_contain_text("The credentials were used once and forgotten")
    page.fill("[name='ssh.user']", ADMINISTRATOR)
    page.fill("[name='ssh.private_key']", fleet.lab.site.key.read_text())
    page.fill("[name='ssh.become_password']", fleet.lab.password)
    page.get_by_role("button", name="Retry the installation").click()
    expect(page.locator("#main")).to_contain_text("packages", timeout=_INSTALLATION)
    expect(page.locator(".state", has_text="succeeded").first).to_be_visible(timeout=_INSTALLATION)
    person.open(f"/hosts/{host.name}")
    expect(page.locator("#summary .state").first).to_contain_text("ready")
    expect(page.locator("#summary")).to_contain_text("rack=r1")

    fleet.run("image", "build", "busybox", "--name", "busybox", "--kind", "container")
    fleet.run("volume", "create", "data", "--size", "64MiB")
    fleet.run("run", "busybox", "--name", "web1", "--volume", "data:/data", "sleep", "1000")
    fleet.run("exec", "web1", "--", "dd", "if=/dev/zero", "of=/data/all", "bs=1M", check=False)
    fleet.run("run", "busybox", "--name", "ghost", "payd", check=False)
    person.open("/projects/default/workloads/ghost")
    expect(page.locator("#summary")).to_contain_text("What to do: correct the command with YAML")
    reloads_until_it_sees(person, "/projects/default/workloads/web1", "Its volume data is nearly")
    signal_in(host, "agent", "STOP")
    try:
        person.open("/projects/default/workloads/web1/console")
        expect(main).to_contain_text(f"opening a stream on host '{host.name}' failed")
        person.open(f"/hosts/{host.name}")
        expect(page.locator("#summary")).to_contain_text("It does not answer", timeout=_PATIENCE)
        person.open("/workloads")  # no page waits for it
        expect(page.locator("#list .stale").first).to_contain_text("as of")
        person.open("/projects/default/workloads/web1")
        expect(page.locator("#summary .stale")).to_contain_text("host does not report")
        expect(page.locator("#summary")).to_contain_text("so nobody knows whether it runs")
        person.open("/")
        expect(page.locator(".severity-critical").first).to_contain_text("does not answer")
    finally:
        signal_in(host, "agent", "CONT")
    person.open(f"/hosts/{host.name}")
    expect(page.locator("#summary .state").first).to_contain_text("ready")
    assert person.unexpected() == []
