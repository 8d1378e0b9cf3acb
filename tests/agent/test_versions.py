"""Agent and control plane of different releases, over real connections."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.agent.fakes import NoBlobs
from tests.bootstrap.raw import eventually
from tests.fixtures.answering import Answering
from tests.fixtures.control_plane import new_control_plane, served
from tests.fixtures.enrolled_host import TOOLS, enrol
from tests.fixtures.from_the_future import UNKNOWN, from_the_future, message
from tests.fixtures.running_agent import looping, parts
from virtmgr.agent.agent import Agent
from virtmgr.agent.control_plane import ControlPlane, Wake
from virtmgr.agent.files import Entry, KeptImages, StateFiles
from virtmgr.agent.fingerprint import machine_id
from virtmgr.agent.identity import client_context
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.host import HostState
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.image_keeping import KeptImage
from virtmgr.domain.readiness import missing
from virtmgr.domain.sync import DesiredNetwork, DesiredWorkload, SyncRequest, SyncResponse
from virtmgr.domain.workload import Reason


@contextmanager
def answering(answer: Any) -> Iterator[ControlPlane]:
    """An agent's connection to a control plane that answers this to everything."""
    content = json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{http.server_port}"
        try:
            with closing(ControlPlane(address, ssl.create_default_context())) as connection:
                yield connection
        finally:
            http.shutdown()
            thread.join()


@contextmanager
def changed(path: Path) -> Iterator[Any]:
    """A file's JSON, decoded, which is written back as it is at the end of the block."""
    document = json.loads(path.read_bytes())
    yield document
    path.write_text(json.dumps(document))


def test_an_older_agent_takes_what_a_newer_control_plane_answers() -> None:
    expected = message(SyncResponse)
    with answering(from_the_future(expected)) as control_plane:
        assert control_plane.sync(SyncRequest()) == expected
    with answering(from_the_future(message(Wake))) as control_plane:
        assert control_plane.wait_for_wake(1, 1.0) == message(Wake)


def test_an_answer_that_is_not_understood_is_told_as_such() -> None:
    answer = message(SyncResponse).model_dump(mode="json")
    answer["workloads"][0]["kind"] = "unikernel"
    with answering(answer) as control_plane, pytest.raises(Unavailable) as refused:
        control_plane.sync(SyncRequest())
    assert refused.value.code == "not_understood"
    assert "workloads.0.kind" in refused.value.message


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_older_control_plane_takes_what_a_newer_agent_sends(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "control-plane")
    with served(server):
        identity = enrol(server, tmp_path / "host")
        said = from_the_future(message(SyncRequest))
        said["fingerprint"]["machine_id"] = machine_id()
        with httpx.Client(
            base_url=identity.server, verify=client_context(identity, TOOLS)
        ) as client:
            answer = client.post("/agent/v1/sync", json=said)
        assert answer.status_code == 200, answer.text
        with server.inventory() as uow:
            host = uow.hosts.find("host1")
            assert host is not None
            assert host.state is HostState.READY
            assert UNKNOWN not in host.facts


def test_an_older_agent_reads_what_a_newer_one_has_kept(tmp_path: Path) -> None:
    entry = Entry(desired=message(DesiredWorkload))
    images = KeptImages({"i": KeptImage(message(ImageManifest), needed_at=datetime.now(UTC))})
    files = StateFiles(tmp_path)
    files.save(entry, durable=False)
    files.save_networks((message(DesiredNetwork),))
    files.save_images(images)
    with changed(tmp_path / f"workloads/{entry.desired.id}.json") as document:
        document["desired"] = from_the_future(entry.desired)
        document["memory"][UNKNOWN] = 1
    with changed(tmp_path / "networks.json") as document:
        document[0] = from_the_future(message(DesiredNetwork))
    with changed(tmp_path / "images.json") as document:
        document["images"]["i"]["manifest"] = from_the_future(message(ImageManifest))
    again = StateFiles(tmp_path)
    assert again.load() == {entry.desired.id: entry}
    assert again.load_networks() == (message(DesiredNetwork),)
    assert again.load_images() == images


class Misunderstood(Answering):
    """A control plane whose answers are not understood at first."""

    def __init__(self) -> None:
        super().__init__()
        self.is_understood = False
        self.told: list[Reason | None] = []  # the faults in the fingerprints that came

    def sync(self, request: SyncRequest, **_: object) -> SyncResponse:
        if request.fingerprint is not None:
            self.told.append(request.fingerprint.fault)
        if not self.is_understood:
            raise Unavailable("what it answers is not understood", code="not_understood")
        return super().sync(request)


def test_an_agent_tells_that_it_does_not_understand(tmp_path: Path) -> None:
    control_plane = Misunderstood()
    made = parts(tmp_path, lambda: control_plane, NoBlobs())
    with looping(Agent(made)):
        eventually(lambda: control_plane.told[-1:] not in ([], [None]))
        fault = control_plane.told[-1]
        assert fault is not None
        facts = made.fingerprint().model_copy(update={"fault": fault}).model_dump(mode="json")
        assert [reason.code for reason in missing(facts)] == ["not_understood"]
        control_plane.is_understood = True
        eventually(lambda: control_plane.told[-1] is None)
        assert missing(made.fingerprint().model_dump(mode="json")) == ()
