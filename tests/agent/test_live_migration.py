"""Live migration between two agents over real mutual TLS; the guests are imaginary."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.agent.fakes import Host, desired, eventually
from virtmgr.agent.departing import Departures
from virtmgr.agent.migrating import Passages, Receiver
from virtmgr.agent.streams import StreamServer
from virtmgr.domain.migration import Migration, MigrationMode, Phase
from virtmgr.domain.moving import at_its_host, at_target
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.domain.sync import DesiredWorkload, ObservedMove
from virtmgr.domain.workload import Kind, State
from virtmgr.enrollment import pki
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.ports.driver import RuntimeState, WorkloadDriver

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SOURCE, TARGET, STRANGER = "host-a", "host-b", "host-c"


@dataclass
class Certified:
    """A host's certificate, and what it dials and serves with."""

    client: ssl.SSLContext
    server: ssl.SSLContext


class Migrating(Host):
    """A host whose agent migrates."""

    def __init__(self, directory: Path, certified: Certified) -> None:
        directory.mkdir()
        self.certified = certified
        self.passages = Passages(directory / "p")
        super().__init__(directory)
        self.server = StreamServer(
            ("127.0.0.1", 0),
            certified.server,
            self.find,
            self.storage,
            Receiver(self.find, lambda workload: self.agent.take_over(workload), self.passages),
        )
        self.server.start()

    def departures(self) -> Departures:
        return Departures(lambda: self.certified.client, self.passages)

    def find(self, workload_id: str) -> tuple[WorkloadDriver, DesiredWorkload] | None:
        wish = self.agent.book.desired(workload_id)
        return (self.driver, wish) if wish is not None else None

    def said(self) -> ObservedMove:
        found = self.outbox.latest("w1")
        return found.move if found is not None and found.move is not None else ObservedMove(id="")

    def close(self) -> None:
        self.server.close()
        super().close()


@dataclass
class Pair:
    """VM ``w1`` runs on ``source``."""

    source: Migrating
    target: Migrating
    stranger: ssl.SSLContext
    migration: Migration
    wish: DesiredWorkload

    def prepare(self) -> None:
        self.migration.phase = Phase.PREPARING
        self.target.apply(at_target(self.wish, self.migration))
        eventually(lambda: self.target.said().ready)

    def go(self) -> None:
        self.migration.phase = Phase.MIGRATING
        url = f"wss://127.0.0.1:{self.target.server.port}"
        self.source.apply(at_its_host(self.wish, self.migration, url))

    def hand_over(self) -> None:
        self.migration.phase = Phase.STARTING
        self.wish = self.wish.model_copy(update={"generation": 2})
        self.target.apply(self.wish)
        self.target.until(self.wish, State.RUNNING)

    def running(self) -> list[str]:
        """Where it runs, as the hosts' runtimes have it."""
        return [
            host.directory.name
            for host in (self.source, self.target)
            if (guest := host.world.guest("w1")) and guest.state is RuntimeState.RUNNING
        ]


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr("virtmgr.domain.remembering.failure_delay", lambda n: 0.01 * n)
    ca = CertificateAuthority(tmp_path / "ca")
    ca.create()
    certified = partial(_certified, ca, tmp_path)
    wish = desired("w1", kind=Kind.VM)
    migration = Migration(
        id="m1", workload_id="w1", project_id="p", source_host_id=SOURCE, target_host_id=TARGET,
        mode=MigrationMode.LIVE, operation_id="o", ticket="secret",
        created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    with ExitStack() as closers:
        source = closers.enter_context(closing(Migrating(tmp_path / "a", certified(SOURCE))))
        target = closers.enter_context(closing(Migrating(tmp_path / "b", certified(TARGET))))
        source.apply(wish)
        source.until(wish, State.RUNNING)
        yield Pair(source, target, certified(STRANGER).client, migration, wish)
        assert source.world.overlaps == target.world.overlaps == []


def test_it_runs_on_at_the_target(pair: Pair) -> None:
    before = pair.source.world.guest("w1")
    assert before is not None
    pair.prepare()
    assert pair.running() == ["a"]
    pair.go()
    eventually(lambda: pair.source.said().departed and pair.target.said().arrived)
    assert pair.running() == ["b"]
    # Nobody is told that it ended: the source says that it runs, which it does.
    assert State.STOPPED not in pair.source.outbox.states("w1")
    pair.hand_over()
    after = pair.target.world.guest("w1")
    assert after is not None
    assert after.started_at == before.started_at  # the same run
    assert pair.target.world.count("start", "w1") == 0
    assert not list((pair.source.directory / "p").glob("*"))
    assert not list((pair.target.directory / "p").glob("*"))


def test_what_the_target_refuses_stays(pair: Pair) -> None:
    pair.prepare()
    pair.target.world.script.fail("admit")
    pair.go()
    eventually(lambda: pair.source.said().stayed)
    reason = pair.source.said().reason
    assert reason is not None
    assert reason.code == "scripted"
    assert pair.running() == ["a"]
    pair.source.apply(pair.wish.model_copy(update={"generation": 2}))
    pair.source.until(pair.wish.model_copy(update={"generation": 2}), State.RUNNING)


def test_a_cancelled_one_stays(pair: Pair) -> None:
    pair.prepare()
    pair.source.world.script.delay("depart_slowly", 20.0)
    pair.go()
    eventually(lambda: pair.source.said().progress is not None)
    pair.migration.cancelling = True
    pair.go()
    eventually(lambda: pair.source.said().stayed)
    assert pair.running() == ["a"]


def test_one_that_was_cancelled_before_it_began_stays(pair: Pair) -> None:
    pair.prepare()
    pair.migration.cancelling = True
    pair.go()
    eventually(lambda: pair.source.said().stayed)
    assert pair.source.world.count("depart", "w1") == 0


def test_a_target_that_was_not_told_learns_it_from_the_control_plane(pair: Pair) -> None:
    pair.prepare()
    pair.target.world.script.fail("take_over")
    pair.go()
    eventually(lambda: pair.source.said().departed)
    assert pair.running() == []  # for a moment
    pair.hand_over()
    assert pair.running() == ["b"]


def test_a_source_that_was_restarted_says_how_it_ended(pair: Pair) -> None:
    """Once as one that was interrupted, once as one whose end was seen by nobody."""
    pair.prepare()
    pair.source.world.script.fail("settle")  # libvirtd does not answer: it is asked again
    entry = pair.source.agent.book.entry("w1")
    pair.source.agent.book.remember(entry, replace(entry.memory, departing="m1"), durable=True)
    pair.source.restart_agent()
    pair.go()
    eventually(lambda: pair.source.said().stayed)
    assert pair.running() == ["a"]


def test_what_stays_runs_on_whoever_is_away(pair: Pair) -> None:
    """It was let stand still to come to an end, and the migration breaks: nobody need say so."""
    pair.prepare()
    guest = pair.source.world.guest("w1")
    assert guest is not None
    pair.source.world.put("w1", replace(guest, state=RuntimeState.PAUSED))
    pair.source.world.script.fail("depart_fails")
    pair.go()
    eventually(lambda: pair.source.said().stayed and pair.running() == ["a"])


@pytest.mark.parametrize("departed", [True, False])
def test_what_was_decided_is_never_taken_back(pair: Pair, departed: bool) -> None:
    pair.prepare()
    if not departed:
        pair.target.world.script.fail("admit")
    pair.go()
    eventually(lambda: pair.source.said().departed or pair.source.said().stayed)
    pair.source.restart_agent()
    pair.go()
    eventually(lambda: pair.source.said().id == "m1")
    assert pair.source.said().departed is departed
    assert pair.running() == (["b"] if departed else ["a"])


@pytest.mark.parametrize("wrong", ["host", "ticket", "migration", "none", "action"])
def test_nobody_else_is_let_in(pair: Pair, wrong: str) -> None:
    if wrong != "none":
        pair.prepare()
    context = pair.stranger if wrong == "host" else pair.source.certified.client
    request = StreamRequest(
        workload_id="w1",
        action="exec" if wrong == "action" else "migrate",
        parameters={
            "migration": "m2" if wrong == "migration" else "m1",
            "ticket": "guess" if wrong == "ticket" else "secret",
            "what": "take_over",
        },
    )
    url = f"wss://127.0.0.1:{pair.target.server.port}"
    with connect(url, ssl=context, compression=None) as connection:
        connection.send(request.model_dump_json())
        answer = connection.recv(decode=False)
    assert answer[0] == Channel.END
    assert b'"not_found"' in answer or b'"not_expected"' in answer
    assert pair.target.world.count("take_over", "w1") == 0


def _certified(ca: CertificateAuthority, directory: Path, host_id: str) -> Certified:
    key = directory / f"{host_id}.key"
    pki.write_private(key, pki.new_key())
    issued = ca.issue_host(pki.signing_request(key.read_bytes()), host_id, ["127.0.0.1"])
    certificate = directory / f"{host_id}.crt"
    pki.write_private(certificate, issued.pem)
    root = ca.certificate_path
    client = pki.client_context(root, certificate, key)
    client.check_hostname = False
    return Certified(client, pki.server_context(certificate, key, client_ca=root))
