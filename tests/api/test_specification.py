"""schemathesis walks the whole specification with all its checks, over HTTP.

Boundary values of every parameter (*coverage*), random requests (*fuzzing*) and sequences along
the document's links (*stateful*), wrong data as well as right. A short walk by default, longer
ones by environment variable (CONTRIBUTING.md, Tests).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis.errors import HypothesisWarning
from schemathesis.engine import events, from_schema
from werkzeug.serving import make_server

from tests.api.conftest import open_services
from tests.fixtures.control_plane import add_hosts, add_images
from virtmgr.api.app import create_app
from virtmgr.ports.clock import SystemClock
from virtmgr.ports.unit_of_work import ListQuery, UnitOfWork
from virtmgr.services import auth

CASES = int(os.environ.get("VIRTMGR_TEST_CASES", "600"))
FEWEST = 100  # that a phase must have tried, on the slowest machine
SECONDS = 30  # for a phase of so many cases; more in proportion

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + CASES)]

REFUSED = ["400", "401", "403", "404", "405", "406", "409", "412", "413", "415", "422", "429"]
CHECKS = {
    # Streams, logs and files need a host that answers; here there is none.
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "502", "503"]},
    "negative_data_rejection": {"expected-statuses": REFUSED},
    # 412 and 422: what is wrong with it, a schema cannot say.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "401", "403", "404", "409", "412", "422", "429", "502", "503"]
    },
}
# At /images/build there is POST; the other methods are those of an image named build.
ALSO_NAMES = [
    {
        "include-path": f"/api/v1/{path}",
        "checks": {"allow_header_conformance": {"enabled": False}},
    }
    for path in (
        *(f"images/{verb}" for verb in ("build", "import", "prune", "search", "upload", "uploads")),
        *("hosts/enroll", "hosts/scan-key"),
    )
]


@schemathesis.serializer("application/x-tar", "application/partial-upload")
def _as_bytes(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
def address(empty_database: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Where the application is served, with hosts and images, and the administrator's token."""
    with open_services(empty_database, tmp_path, SystemClock()) as services:
        with services.units() as uow:
            secret = auth.initialise(uow, services.clock)
            add_hosts(uow, 2)
            add_images(uow)
            uow.commit()
            own = _own(uow)
        assert secret is not None
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server("127.0.0.1", 0, _guarded(create_app(services), own), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.port}", secret
        server.shutdown()
        thread.join()
        server.server_close()


def _own(uow: UnitOfWork) -> list[str]:
    """How paths name the tester's own account: without it there is nothing left to test."""
    rows = [*uow.tokens.list(ListQuery(sort="created_at")).items]
    rows += [*uow.role_bindings.list(ListQuery(sort="created_at")).items]
    rows += [*uow.users.list(ListQuery()).items]
    return [row.id for row in rows] + [auth.FIRST_USER]


def _guarded(app: Callable[..., Iterable[bytes]], own: list[str]) -> Callable[..., Iterable[bytes]]:
    """``app``, but the tester's account stays, and no stream of events lasts for ever."""

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "POST"):
            for name in own:
                environ["PATH_INFO"] = environ["PATH_INFO"].replace("/" + name, "/0")
        if "event-stream" in environ.get("HTTP_ACCEPT", ""):
            environ["HTTP_ACCEPT"] = "application/json"
        return app(environ, start)

    return guarded


def _is_of_its_own(event: Any) -> bool:
    """Whether the tool warns of its own work, such as that what it made up is long."""
    return isinstance(getattr(event, "value", None), HypothesisWarning)


@pytest.mark.parametrize("phase", ["coverage", "fuzzing", "stateful"])
def test_every_answer_is_as_specified(address: tuple[str, str], phase: str) -> None:
    url, token = address
    phases = {name: {"enabled": name == phase} for name in ("examples", "coverage", "fuzzing")}
    phases["stateful"] = {"enabled": phase == "stateful"}
    config = schemathesis.Config.from_dict(
        {
            "seed": 1,
            "headers": {"Authorization": f"Bearer {token}"},
            "parameters": {"query.wait": "0"},  # nobody is there to carry operations out
            "generation": {
                "max-examples": max(2, CASES // 100),
                "deterministic": True,
                "no-shrink": True,
                "allow-x00": False,  # refused everywhere, which no schema says
                "with-security-parameters": False,
            },
            "phases": phases,
            "checks": CHECKS,
            "operations": ALSO_NAMES,
            "max-time": max(1, SECONDS * CASES // 600),
            "continue-on-failure": True,
        }
    )
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", config=config)
    statuses: Counter[int] = Counter()
    found: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError) and not _is_of_its_own(
            event
        ):
            found.append(str(event))
        if isinstance(event, events.ScenarioFinished):
            statuses += _statuses(event)
            found += _failures(event)
        if sum(statuses.values()) >= CASES:
            break
    print(f"{phase}: {sum(statuses.values())} requests, {dict(statuses)}")
    assert not found, "\n\n".join(found[:10])
    assert sum(statuses.values()) >= FEWEST
    assert statuses[200] + statuses[201] + statuses[202] > 0


def _statuses(event: events.ScenarioFinished) -> Counter[int]:
    answers = [one.response for one in event.recorder.interactions.values()]
    return Counter(answer.status_code for answer in answers if answer is not None)


def _failures(event: events.ScenarioFinished) -> list[str]:
    return [
        f"{check.name}: {check.failure_info.failure.title}\n{check.failure_info.failure.message}\n"
        f"{check.failure_info.code_sample[:2000]}"
        for checks in event.recorder.checks.values()
        for check in checks
        if check.failure_info is not None
        # What was deleted in a dry run is still there.
        and not (check.name == "use_after_free" and "dry_run=" in check.failure_info.code_sample)
    ]
