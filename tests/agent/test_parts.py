"""The agent's small parts: outbox, timers, files, networks."""

from __future__ import annotations

import json
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.fakes import FakeNetwork, desired, desired_network, eventually
from virtmgr.agent.control_plane import ControlPlane
from virtmgr.agent.files import Entry, StateFiles
from virtmgr.agent.networks import NetworkKeeper
from virtmgr.agent.outbox import Outbox
from virtmgr.agent.timers import Timers
from virtmgr.domain.errors import NetworkError, Unavailable
from virtmgr.domain.plan import Memory
from virtmgr.domain.sync import ObservedVolume, ObservedWorkload
from virtmgr.domain.workload import State, WorkloadStatus

# ---- outbox


def observed(id: str, state: State = State.RUNNING, *, gone: bool = False) -> ObservedWorkload:
    return ObservedWorkload(
        id=id, observed_generation=1, status=WorkloadStatus(state=state), gone=gone
    )


def test_the_outbox_keeps_the_latest_until_it_is_acknowledged() -> None:
    outbox = Outbox()
    outbox.put(observed("a", State.STARTING))
    outbox.put(observed("a"))
    outbox.put(observed("b"))
    assert outbox.wait(0)
    parcel = outbox.take(everything=False)
    assert not outbox.wait(0)
    assert parcel.workloads == (observed("a"), observed("b"))
    assert outbox.take(everything=False) == parcel  # it was lost on the way
    outbox.acknowledge(parcel)
    assert outbox.take(everything=False).workloads == ()
    assert outbox.take(everything=True).workloads == parcel.workloads


def test_what_was_said_already_is_not_said_again() -> None:
    outbox = Outbox()
    outbox.put(observed("a"))
    outbox.put_volume(ObservedVolume(id="v", ready=True))
    outbox.acknowledge(outbox.take(everything=False))
    outbox.put(observed("a"))
    outbox.put_volume(ObservedVolume(id="v", ready=True))
    assert not outbox.wait(0)
    parcel = outbox.take(everything=False)
    assert (parcel.workloads, parcel.volumes) == ((), ())


def test_what_comes_while_a_parcel_is_on_its_way_goes_with_the_next() -> None:
    outbox = Outbox()
    outbox.put(observed("a", State.STARTING))
    parcel = outbox.take(everything=False)
    outbox.put(observed("a"))
    outbox.put_volume(ObservedVolume(id="v", ready=True))
    outbox.acknowledge(parcel)
    assert outbox.wait(0)
    later = outbox.take(everything=False)
    assert later.workloads == (observed("a"),)
    assert [one.id for one in later.volumes] == ["v"]


def test_what_is_gone_is_forgotten_once_the_control_plane_knows() -> None:
    outbox = Outbox()
    outbox.put(observed("a"))
    outbox.acknowledge(outbox.take(everything=False))
    outbox.put(observed("a", State.DELETING, gone=True))
    outbox.put_volume(ObservedVolume(id="v", ready=False, gone=True))
    parcel = outbox.take(everything=False)
    assert [one.gone for one in parcel.workloads] == [True]
    assert [one.gone for one in parcel.volumes] == [True]
    outbox.acknowledge(parcel)
    outbox.acknowledge(parcel)
    empty = outbox.take(everything=True)
    assert (empty.workloads, empty.volumes) == ((), ())


# ---- timers


@pytest.fixture
def rung() -> Iterator[tuple[Timers, list[str]]]:
    calls: list[str] = []
    with closing(Timers(calls.append)) as timers:
        timers.start()
        yield timers, calls


def test_timers_call_in_the_order_of_their_times(rung: tuple[Timers, list[str]]) -> None:
    timers, calls = rung
    timers.after(0.2, "late")
    timers.after(0.1, "middle")
    timers.after(0, "soon")
    timers.after(-5, "past")
    eventually(lambda: len(calls) == 4)
    assert calls[2:] == ["middle", "late"]


def test_a_key_that_is_set_many_times_is_called_once_at_the_earliest(
    rung: tuple[Timers, list[str]],
) -> None:
    timers, calls = rung
    for seconds in (300, 0.05, 60, 0.06, 0.07):
        timers.after(seconds, "a")
    timers.after(0.2, "end")
    eventually(lambda: "end" in calls)
    assert calls == ["a", "end"]
    timers.after(0, "a")
    eventually(lambda: calls == ["a", "end", "a"])


def test_many_looks_at_a_workload_do_not_add_up() -> None:
    with closing(Timers(lambda _: None)) as timers:
        timers.start()
        for _ in range(1000):
            timers.after(60, "a")
        assert len(timers._heap) == 1


# ---- files

moments = st.none() | st.datetimes(timezones=st.just(UTC))
memories = st.builds(
    Memory,
    applied_generation=st.integers(0),
    started=st.booleans(),
    starting=st.booleans(),
    boot_id=st.text(),
    failures=st.integers(0),
    retry_at=moments,
    previous_start=moments,
    needs_restart=st.lists(st.text()).map(tuple),
)


@given(memories, st.integers(0, 2**31), st.booleans())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
def test_what_is_saved_is_loaded(
    tmp_path: Path, memory: Memory, id_base: int, durable: bool
) -> None:
    files = StateFiles(tmp_path)
    entry = Entry(desired("a", spec={"env": {"A": "ä\n"}}), memory, id_base)
    files.save(entry, durable=durable)
    assert StateFiles(tmp_path).load() == {"a": entry}


def test_only_the_owner_reads_the_agents_files(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.save(Entry(desired("a")), durable=True)
    files.save_networks((desired_network("n"),))
    for path in (tmp_path / "workloads" / "a.json", tmp_path / "networks.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.load_networks() == (desired_network("n"),)
    assert StateFiles(tmp_path / "new").load_networks() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"\xff\xfe"])
def test_networks_that_cannot_be_read_are_not_taken_for_none(
    tmp_path: Path, content: bytes
) -> None:
    files = StateFiles(tmp_path)
    (tmp_path / "networks.json").write_bytes(content)
    assert files.load_networks() is None
    assert (tmp_path / "networks.unreadable").read_bytes() == content
    assert files.load_networks() is None


def test_half_written_files_are_dropped_and_the_old_ones_count(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    entry = Entry(desired("a"), Memory(started=True))
    files.save(entry, durable=True)
    torn = tmp_path / "workloads" / "a.json.new"
    torn.write_bytes(b'{"desired": {"id": "a", ')
    assert files.load() == {"a": entry}
    assert not torn.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"desired": 1}', b"\xff\xfe"])
def test_one_unreadable_file_does_not_keep_the_others_from_coming_up(
    tmp_path: Path, content: bytes
) -> None:
    files = StateFiles(tmp_path)
    entry = Entry(desired("a"))
    files.save(entry, durable=True)
    (tmp_path / "workloads" / "b.json").write_bytes(content)
    assert files.load() == {"a": entry}
    assert (tmp_path / "workloads" / "b.unreadable").read_bytes() == content
    assert files.load() == {"a": entry}


def test_what_a_newer_agent_remembered_is_left_out(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    retry = datetime(2030, 1, 1, tzinfo=UTC)
    files.save(Entry(desired("a"), Memory(retry_at=retry)), durable=True)
    path = tmp_path / "workloads" / "a.json"
    document = json.loads(path.read_text())
    document["memory"]["invented_later"] = 1
    path.write_text(json.dumps(document))
    assert files.load()["a"].memory == Memory(retry_at=retry)


def test_a_removed_entry_is_gone_and_may_be_removed_again(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.save(Entry(desired("a")), durable=True)
    files.remove("a")
    files.remove("a")
    assert files.load() == {}


# ---- networks


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def keeper(network: FakeNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkKeeper]:
    monkeypatch.setattr("virtmgr.agent.networks._RETRY", 0.02)
    with closing(NetworkKeeper(network)) as made:
        made.start()
        yield made
        network.gate.set()


def test_many_wishes_cost_one_call_and_the_newest_wins(
    keeper: NetworkKeeper, network: FakeNetwork
) -> None:
    network.gate.clear()
    keeper.wish([desired_network("first")], [])
    eventually(lambda: len(network.asked) == 1)
    for number in range(5):
        keeper.wish([desired_network(f"n{number}")], [desired("w")])
    network.gate.set()
    keeper.settle({"n4"})
    assert network.asked == [(["first"], []), (["n4"], ["w"])]


def test_who_waits_before_the_first_wish_has_no_network_removed(network: FakeNetwork) -> None:
    """To ensure nothing is to remove everything: what an agent that starts must never do."""
    keeper = NetworkKeeper(network)
    waiting = threading.Thread(target=keeper.settle, args=({"n"},))
    waiting.start()
    keeper.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert network.asked == []
    keeper.wish([desired_network("n")], [])
    waiting.join(10)
    assert not waiting.is_alive()
    assert network.asked == [(["n"], [])]
    keeper.close()


def test_who_waits_is_told_why_it_failed_and_it_is_tried_again(
    keeper: NetworkKeeper, network: FakeNetwork
) -> None:
    network.error = NetworkError("the bridge cannot be made", code="no_bridge", hint="look")
    keeper.wish([desired_network("n")], [])
    with pytest.raises(NetworkError, match="cannot be made") as failed:
        keeper.settle({"n"})
    assert (failed.value.code, failed.value.hint) == ("no_bridge", "look")
    keeper.settle(())  # those without a network have nothing to wait for
    eventually(lambda: len(network.asked) > 2)
    network.error = None
    calls = len(network.asked)
    eventually(lambda: len(network.asked) > calls or keeper._error is None)
    eventually(lambda: keeper._error is None)
    keeper.settle({"n"})


def test_a_failure_that_was_not_foreseen_is_told_too(
    keeper: NetworkKeeper, network: FakeNetwork
) -> None:
    network.error = RuntimeError("surprise")
    keeper.wish([desired_network("n")], [])
    with pytest.raises(NetworkError, match="surprise"):
        keeper.settle({"n"})


def test_a_wait_ends_when_the_agent_does(network: FakeNetwork) -> None:
    keeper = NetworkKeeper(network)
    keeper.start()
    network.gate.clear()
    keeper.wish([], [])
    waiting = threading.Thread(target=keeper.settle, args=({"n"},))
    waiting.start()
    closer = threading.Thread(target=keeper.close)
    closer.start()
    waiting.join(10)
    assert not waiting.is_alive()
    network.gate.set()
    closer.join(10)
    assert not closer.is_alive()


# ---- the connection to the control plane


def test_a_question_to_a_closed_connection_is_an_error_like_any_other() -> None:
    connection = ControlPlane("https://127.0.0.1:1", ssl.create_default_context())
    with pytest.raises(Unavailable):
        connection.wait_for_wake(0, 1.0)
    connection.close()
    with pytest.raises(Unavailable, match="closed"):
        connection.wait_for_wake(0, 1.0)
