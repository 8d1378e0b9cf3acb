"""What is wrong is told where it is seen, with why and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.api.host import PretendHost, fall_silent
from tests.console.without_browser import Console, console_of, services_of
from virtmgr.domain.sync import ObservedFileSystem, ObservedWorkload, SyncRequest
from virtmgr.domain.workload import GIB, MIB, Filling, Reason, State, Usage, WorkloadStatus
from virtmgr.services.container import Services

HERE = "/projects/default/workloads/web"
REFUSED = Reason(code="digest_mismatch", message="blob x is refused", hint="import it again")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with services_of(tmp_path) as found:
        yield found


@pytest.fixture
def console(services: Services) -> Console:
    return console_of(services)


@pytest.fixture
def host(services: Services, console: Console) -> PretendHost:
    """With one container that runs, and a volume in it."""
    found = PretendHost(services)
    console.api.post("/projects/default/volumes", {"name": "data", "size": "64MiB"})
    mount = {"volume": "data", "path": "/data"}
    spec = {"name": "web", "kind": "container", "image": "busybox", "volumes": [mount]}
    assert console.api.post("/projects/default/workloads", spec).status == 202
    found.converge()
    return found


def text_of(console: Console, path: str) -> str:
    """The page, without what marks it up where that matters."""
    page = console.get(path)
    assert page.status_code == 200, page.text
    return unescape(page.text)


def tell(host: PretendHost, **status: Any) -> None:
    """Report the workload to be so."""
    wish = host.wish("web")
    host.report(
        ObservedWorkload(
            id=wish.id,
            observed_generation=wish.generation,
            restart_nonce=wish.restart_nonce,
            status=WorkloadStatus(**status),
        )
    )


def use(host: PretendHost, free: int, root_free: int = 900 * MIB) -> None:
    """Report how full the disks are."""
    wish = host.wish("web")
    usage = Usage(
        at=datetime.now(UTC),
        disk=100 * MIB,
        disk_free=root_free,
        volumes={wish.volumes[0].id: Filling(used=54 * MIB, free=free)},
    )
    host.sync(SyncRequest(known_revision=host.known_revision, usage={wish.id: usage}))


def test_a_full_volume_is_told_with_where_it_is_grown(console: Console, host: PretendHost) -> None:
    use(host, free=20 * MIB)
    assert "full" not in text_of(console, HERE).split("<h2")[0].split('id="summary"')[1]
    assert "54 MiB of 74 MiB used" in text_of(console, f"{HERE}/devices")
    use(host, free=MIB // 2, root_free=0)
    for path in (HERE, f"{HERE}/devices", "/projects/default/volumes/data"):
        assert "/projects/default/volumes/data/edit" in text_of(console, path), path
    summary = text_of(console, HERE)
    assert "Its volume data is nearly full" in summary
    assert "Its root disk is full</b>: 0 B are left" in summary
    assert "512 KiB are left" in text_of(console, "/projects/default/volumes/data")


@pytest.mark.usefixtures("host")
def test_a_volume_that_no_host_sees_has_no_bar(console: Console) -> None:
    assert " used" not in text_of(console, "/projects/default/volumes/data")


@pytest.mark.usefixtures("host")
def test_an_unknown_workload_leads_to_its_host(services: Services, console: Console) -> None:
    assert "does not report" not in text_of(console, HERE)
    fall_silent(services)
    page = text_of(console, HERE)
    assert "does not report, so nobody knows whether it runs" in page
    assert "What is asked of it now is done when the host is back." in page


def test_memory_that_was_too_little_is_told_once(console: Console, host: PretendHost) -> None:
    reason = Reason(code="oom_killed", message="it needed more", hint="see 'virtmgr logs web'")
    tell(host, state=State.FAILED, reason=reason, oom_killed=True, exit_code=137)
    failed = text_of(console, HERE)
    assert "it needed more" in failed
    assert "It was ended because" not in failed
    tell(host, state=State.RUNNING, restarts=3)
    assert f'href="{HERE}/events">why?' in text_of(console, HERE)


def test_a_move_that_does_not_get_on_says_why(
    services: Services, console: Console, host: PretendHost
) -> None:
    PretendHost(services)
    moved = console.api.post("/projects/default/workloads/web/move", {})
    assert moved.status in (200, 202), moved.body
    [migration] = console.api.get("/migrations").body["items"]
    tell(host, state=State.FAILED, reason=REFUSED)
    for path in ("/migrations", f"/migrations/{migration['id']}"):
        assert "blob x is refused" in text_of(console, path), path


def test_a_hosts_own_file_systems_are_shown(console: Console, host: PretendHost) -> None:
    page = f"/hosts/{host.id}"
    assert "Its own file systems" not in text_of(console, page)
    full = ObservedFileSystem(path="/var/log", capacity=10 * GIB, used=9 * GIB)
    host.sync(SyncRequest(known_revision=host.known_revision, file_systems=(full,)))
    own = text_of(console, page).split("Its own file systems")[1]
    assert "/var/log" in own
    assert "9 GiB of 10 GiB" in own
    assert "file system of a host is nearly full" in text_of(console, "/")
