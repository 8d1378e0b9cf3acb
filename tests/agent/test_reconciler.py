"""The reconciler with the fake driver: what is desired comes about, whatever goes wrong."""

from __future__ import annotations

import random
import shutil
import threading
from io import BytesIO
from typing import Any

import pytest

from tests.agent.fakes import Host, desired, desired_network, desired_nic, eventually
from virtmgr.agent.files import StateFiles
from virtmgr.domain.errors import DriverError, NetworkError, StorageError, Unsupported
from virtmgr.domain.sync import Arrival, CloneSource, DesiredVolume, DesiredWorkload
from virtmgr.domain.workload import Kind, PowerState, State
from virtmgr.drivers.fake.world import Guest
from virtmgr.ports.driver import Luggage, RuntimeState

STOPPED, PAUSED = PowerState.STOPPED, PowerState.PAUSED


def running(host: Host, id: str = "w1", **given: Any) -> DesiredWorkload:
    workload = desired(id, **given)
    host.apply(workload)
    host.until(workload, State.RUNNING)
    return workload


# ---- the verbs


@pytest.mark.parametrize("kind", Kind)
def test_a_new_workload_is_prepared_and_started(host: Host, kind: Kind) -> None:
    workload = running(host, kind=kind)
    found = host.until(workload, State.RUNNING)
    assert found.status.started_at is not None
    assert found.status.reason is None
    states = host.outbox.states("w1")
    assert states == [State.PREPARING, State.STARTING, State.RUNNING]


def test_one_that_should_be_stopped_is_only_prepared(host: Host) -> None:
    workload = desired(state=STOPPED)
    host.apply(workload)
    host.until(workload, State.STOPPED)
    assert host.world.count("start", "w1") == 0
    guest = host.world.guest("w1")
    assert guest is not None
    assert guest.state is RuntimeState.PREPARED


def test_stop_start_pause_resume_restart(host: Host) -> None:
    running(host)
    steps = [
        (desired(generation=2, state=STOPPED), State.STOPPED),
        (desired(generation=3), State.RUNNING),
        (desired(generation=4, state=PAUSED), State.PAUSED),
        (desired(generation=5), State.RUNNING),
        (desired(generation=6, restart_nonce=1), State.RUNNING),
    ]
    for workload, state in steps:
        host.apply(workload)
        found = host.until(workload, state)
    assert found.restart_nonce == 1
    verbs = [verb for verb, _ in host.world.calls if verb not in ("inspect", "list", "update")]
    assert verbs == ["prepare", "start", "stop", "start", "pause", "resume", "stop", "start"]


def test_what_waits_for_a_restart_is_named_until_then(host: Host) -> None:
    running(host)
    changed = desired(generation=2, spec={"env": {"A": "1"}})
    host.apply(changed)
    assert host.until(changed, State.RUNNING).status.needs_restart == ("env",)
    restarted = desired(generation=3, spec={"env": {"A": "1"}}, restart_nonce=1)
    host.apply(restarted)
    assert host.until(restarted, State.RUNNING).status.needs_restart == ()


def test_the_same_wish_again_does_nothing(host: Host) -> None:
    workload = running(host)
    calls = len(host.world.calls)
    for _ in range(3):
        host.apply(workload)
    host.apply(workload, full=True)
    assert [verb for verb, _ in host.world.calls[calls:] if verb != "list"] == []


def test_a_deleted_workload_leaves_nothing(host: Host) -> None:
    nic = desired_nic(7, "n1")
    workload = desired(nics=(nic,))
    host.apply(workload, networks=[desired_network("n1")])
    host.until(workload, State.RUNNING)
    host.apply(desired(generation=2, nics=(nic,), deleting=True))
    host.until_gone("w1")
    assert host.world.guests() == {}
    assert host.network.removed_ports == [nic.id]
    assert list((host.state / "workloads").iterdir()) == []
    assert host.agent.book.desired("w1") is None
    eventually(lambda: host.network.asked[-1] == ([], []))


# ---- arrivals


def test_what_came_is_taken_up_once_whatever_happens(host: Host) -> None:
    volume = DesiredVolume(id="v1", name="v", size=9)
    place = host.directory / "luggage"
    place.mkdir()
    (place / "files.json").write_text("{}")
    (place / "v1").write_bytes(b"something")
    files = {"files.json": place / "files.json", "volume-v1": place / "v1"}
    packed = b"".join(host.storage.pack(Luggage(files)))
    wish = desired(volumes=(volume,), arrival=Arrival(id="m1"))
    host.apply(wish)
    lost = host.until(wish, State.FAILED)
    assert lost.status.reason is not None
    assert lost.status.reason.code == "arrival_lost"
    host.fail("arrive", times=1)  # first: what has come may be taken up at any moment
    host.storage.receive("m1", BytesIO(packed), limit=1 << 20)
    assert host.until(wish, State.RUNNING).arrived == "m1"
    assert (host.directory / "volumes/v1").read_bytes() == b"something"
    assert (host.world.count("arrive", "w1"), host.world.count("prepare", "w1")) == (2, 0)
    host.storage.remove_arrival("m1")
    host.restart_agent()
    stopped = wish.model_copy(update={"state": STOPPED, "generation": 2})
    host.apply(stopped)
    host.until(stopped, State.STOPPED)
    host.apply(wish.model_copy(update={"generation": 3}))
    host.until(wish.model_copy(update={"generation": 3}), State.RUNNING)
    assert host.world.count("arrive", "w1") == 2


# ---- clones


def test_a_clone_is_made_once_whatever_happens(host: Host) -> None:
    source = desired(state=STOPPED, volumes=(DesiredVolume(id="v1", name="v", size=9),))
    host.apply(source)
    host.until(source, State.STOPPED)
    (host.directory / "volumes/v1").write_bytes(b"something")
    host.fail("clone", times=1)
    wish = desired(
        "w2",
        clone_of=CloneSource(id="w1", name="w1"),
        volumes=(DesiredVolume(id="v2", name="v-w2", size=9, copy_of="v1"),),
    )
    host.apply(wish)
    assert host.until(wish, State.RUNNING).cloned
    assert (host.directory / "volumes/v2").read_bytes() == b"something"
    assert (host.world.count("clone", "w2"), host.world.count("prepare", "w2")) == (2, 0)
    host.restart_agent()
    stopped = wish.model_copy(update={"state": STOPPED, "generation": 2})
    host.apply(stopped)
    host.until(stopped, State.STOPPED)
    again = wish.model_copy(update={"generation": 3, "clone_of": None})
    host.apply(again)
    host.until(again, State.RUNNING)
    assert host.world.count("clone", "w2") == 2


def test_a_failure_says_names(host: Host) -> None:
    source = running(host)
    wish = desired("w2", name="copy", clone_of=CloneSource(id=source.id, name="web"))
    host.apply(wish)
    reason = host.until(wish, State.FAILED).status.reason
    assert reason is not None
    assert reason.message == "cannot clone workload web: it runs or is not here"


# ---- a full disk


def test_what_cannot_be_kept_is_told_and_taken_in_once_it_can(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = running(host)
    goes = running(host, "w3")

    def full(*_: object, **__: object) -> None:
        raise StorageError("cannot keep it: the disk is full", code="disk_full")

    wishes = (
        desired("w2"),
        runs.model_copy(update={"generation": 2, "state": STOPPED}),
        goes.model_copy(update={"generation": 2, "deleting": True}),
    )
    with monkeypatch.context() as patch:
        patch.setattr(StateFiles, "save", full)
        for _ in range(2):
            with pytest.raises(StorageError):
                host.apply(*wishes)
        new, old = host.until(wishes[0], State.FAILED), host.until(wishes[1], State.RUNNING)
        assert [one.status.reason and one.status.reason.code for one in (new, old)] == [
            "disk_full",
            "disk_full",
        ]
        host.until_gone("w3")
    host.apply(*wishes[:2])
    host.until(wishes[0], State.RUNNING, reason=None)
    host.until(wishes[1], State.STOPPED, reason=None)


# ---- forced stops


@pytest.mark.parametrize("how", ["force", "delete"])
def test_a_graceful_stop_is_ended_by_force(host: Host, how: str) -> None:
    running(host)
    host.driver.stubborn["w1"] = threading.Event()
    host.apply(desired(generation=2, state=STOPPED))
    eventually(lambda: "w1" in host.driver.stopping)
    if how == "force":
        forced = desired(generation=3, state=STOPPED, force_stop=True)
        host.apply(forced)
        assert host.until(forced, State.STOPPED)
    else:
        host.apply(desired(generation=3, deleting=True))
        host.until_gone("w1")
    assert State.STOPPING in host.outbox.states("w1")


def test_forced_stops_do_not_queue_behind_many_graceful_ones(host: Host) -> None:
    names = [f"w{number}" for number in range(16)]
    for name in names:
        running(host, name)
        host.driver.stubborn[name] = threading.Event()
    host.apply(*(desired(name, generation=2, state=STOPPED) for name in names))
    eventually(lambda: host.driver.stopping == set(names))
    forced = [desired(name, generation=3, state=STOPPED, force_stop=True) for name in names]
    host.apply(*forced)
    for workload in forced:
        host.until(workload, State.STOPPED)


# ---- failures


def test_a_failed_start_is_told_and_tried_again(host: Host) -> None:
    host.fail("start", DriverError("no more memory", code="no_memory", hint="free some"), times=2)
    workload = running(host)
    failed = [one for one in host.outbox.history if one.status.reason is not None]
    assert {(one.status.state, one.observed_generation) for one in failed} == {(State.STARTING, 0)}
    reason = failed[0].status.reason
    assert reason is not None
    assert (reason.code, reason.message, reason.hint) == (
        "no_memory",
        "no more memory",
        "free some",
    )
    assert host.until(workload, State.RUNNING).status.reason is None


@pytest.mark.parametrize(
    ("error", "times"), [(None, 3), (Unsupported("this host cannot", code="cannot"), 1)]
)
def test_a_start_that_keeps_failing_finishes_its_generation(
    host: Host, error: DriverError | None, times: int
) -> None:
    host.fail("start", error, times=times)
    workload = running(host)  # it is tried on and on
    final = [one for one in host.outbox.history if one.status.state is State.FAILED]
    assert [one.observed_generation for one in final] == [workload.generation]
    assert host.world.count("start", "w1") == times + 1


def test_failures_of_long_ago_do_not_count(host: Host) -> None:
    workload = running(host)
    host.fail("inspect", times=2)
    host.agent.touch("w1")
    host.until(workload, State.UNKNOWN)
    host.until(workload, State.RUNNING)
    host.fail("inspect")
    host.agent.touch("w1")
    host.until(workload, State.UNKNOWN)
    host.until(workload, State.RUNNING)
    unknown = [one for one in host.outbox.history if one.status.state is State.UNKNOWN]
    assert len(unknown) == 3
    assert host.agent.book.entry("w1").memory.failures == 0


def test_a_delete_that_fails_is_tried_until_it_is_done(host: Host) -> None:
    running(host)
    host.fail("destroy", times=4)
    host.apply(desired(generation=2, deleting=True))
    host.until_gone("w1")
    assert host.world.count("destroy", "w1") == 5


def test_a_kind_without_driver_is_refused_with_a_reason(host: Host) -> None:
    host.stop_agent()
    host.kinds = (Kind.CONTAINER,)
    host.start_agent()
    machine = desired("vm1", kind=Kind.VM)
    host.apply(machine)
    reason = host.until(machine, State.UNKNOWN).status.reason
    assert reason is not None
    assert reason.code == "unsupported"


def test_only_workloads_of_a_broken_network_wait_for_it(host: Host) -> None:
    why = {"code": "bridge_missing", "message": "there is no br0", "hint": "make it"}
    host.network.error = NetworkError("there is no br0", detail={"networks": {"bad": why}})
    networks = [desired_network("bad"), desired_network("good")]
    on_bad = desired("w1", nics=(desired_nic(1, "bad"),))
    on_good = desired("w2", nics=(desired_nic(2, "good"),))
    host.apply(on_bad, on_good, desired("w3"), networks=networks)
    host.until(on_good, State.RUNNING)
    host.until(desired("w3"), State.RUNNING)
    reason = host.until(on_bad, State.FAILED).status.reason
    assert reason is not None
    assert (reason.code, reason.hint) == ("bridge_missing", "make it")
    assert host.world.count("start", "w1") == 0
    host.network.error = None
    host.apply(on_bad, networks=[*networks, desired_network("third")])
    host.until(on_bad, State.RUNNING)


# ---- what ends by itself


@pytest.mark.parametrize(("policy", "code"), [("on-failure", 1), ("always", 0)])
def test_what_ends_is_restarted_by_its_policy(host: Host, policy: str, code: int) -> None:
    workload = running(host, spec={"restart": policy})
    for restarts in (1, 2):
        host.world.end("w1", exit_code=code)
        host.until(workload, State.RUNNING, restarts=restarts)
    reasons = {one.status.reason.code for one in host.outbox.history if one.status.reason}
    assert reasons == {"restarting"}


def test_what_is_not_restarted_says_how_it_ended(host: Host) -> None:
    workload = running(host, spec={"restart": "never"})
    host.world.end("w1", signal=9, oom=True)
    status = host.until(workload, State.FAILED).status
    assert (status.exit_code, status.signal, status.oom_killed) == (137, 9, True)
    assert status.reason is not None
    assert status.reason.code == "oom_killed"


# ---- what is not desired


def test_what_only_the_driver_knows_of_goes_on_a_full_list(host: Host) -> None:
    workload = running(host)
    host.world.put("orphan", Guest())
    host.apply(workload)
    assert "orphan" in host.world.guests()
    host.apply(workload, full=True)
    eventually(lambda: set(host.world.guests()) == {"w1"})


@pytest.mark.parametrize("verb", ["list", "destroy:orphan"])
def test_orphans_go_even_when_their_driver_fails_at_first(host: Host, verb: str) -> None:
    host.world.put("orphan", Guest())
    host.fail(verb)
    workload = desired()
    host.apply(workload, full=True)
    host.until(workload, State.RUNNING)

    def gone_after_the_next_syncs() -> bool:
        host.apply()
        return "orphan" not in host.world.guests()

    eventually(gone_after_the_next_syncs)


def test_a_known_workload_that_is_not_in_a_full_list_goes(host: Host) -> None:
    running(host, "w1")
    other = running(host, "w2")
    host.apply(other, full=True)
    host.until_gone("w1")
    assert set(host.world.guests()) == {"w2"}


# ---- crashes, restarts, reboots


def test_a_restarted_agent_takes_up_what_runs(host: Host) -> None:
    workload = running(host)
    host.restart_agent()
    host.until(workload, State.RUNNING)
    assert host.world.count("start", "w1") == 1
    host.world.end("w1")
    host.until(workload, State.FAILED)


def test_a_rebooted_host_starts_what_should_run_without_the_control_plane(host: Host) -> None:
    up, down = running(host, "w1"), running(host, "w2")
    down = desired("w2", generation=2, state=STOPPED)
    host.apply(down)
    host.until(down, State.STOPPED)
    host.stop_agent()
    host.world.reboot()
    host.boot_id = "boot-2"
    host.start_agent()
    host.until(up, State.RUNNING)
    host.until(down, State.STOPPED)
    assert (host.world.count("start", "w1"), host.world.count("start", "w2")) == (2, 1)


@pytest.mark.parametrize("asked", ["create", "restart"])
@pytest.mark.parametrize("ends", [False, True])
def test_an_agent_killed_right_after_a_start_does_not_start_again(
    host: Host, asked: str, ends: bool
) -> None:
    workload = desired()
    if asked == "restart":
        running(host)
        workload = desired(generation=2, restart_nonce=1)
    before = host.world.count("start", "w1")
    on_disk = host.directory / "as-it-was"

    def killed(workload_id: str) -> None:
        shutil.copytree(host.state, on_disk)
        if ends:
            host.world.end(workload_id, exit_code=0)

    host.driver.after_start = killed
    host.apply(workload)
    host.until(workload, State.STOPPED if ends else State.RUNNING)
    host.stop_agent()
    host.state = on_disk
    host.start_agent()
    host.until(workload, State.STOPPED if ends else State.RUNNING)
    host.apply(workload, full=True)
    host.until(workload, State.STOPPED if ends else State.RUNNING)
    assert host.world.count("start", "w1") == before + 1


def test_a_closed_agent_works_no_more(host: Host) -> None:
    running(host)
    host.stop_agent()
    calls = len(host.world.calls)
    host.agent.touch("w1")
    assert len(host.world.calls) == calls


def test_whatever_is_asked_in_whatever_order_the_last_wish_comes_about(host: Host) -> None:
    chance = random.Random(7)
    names = [f"w{number}" for number in range(12)]
    wishes: dict[str, DesiredWorkload] = {}
    for generation in range(1, 9):
        for name in names:
            wishes[name] = desired(
                name,
                generation=generation,
                state=chance.choice(list(PowerState)),
                restart_nonce=generation // 3,
            )
        host.apply(*chance.sample(list(wishes.values()), len(names)))
        if generation % 3 == 0:
            host.fail(chance.choice(["stop", "start", "update", "inspect"]), times=2)
    shown = {
        PowerState.RUNNING: State.RUNNING,
        PowerState.STOPPED: State.STOPPED,
        PowerState.PAUSED: State.PAUSED,
    }
    for workload in wishes.values():
        host.until(workload, shown[workload.state], reason=None)
    host.restart_agent()
    for workload in wishes.values():
        host.until(workload, shown[workload.state], reason=None)


# ---- ids, volumes, usage


def test_containers_have_id_ranges_of_their_own_and_keep_them(host: Host) -> None:
    running(host, "w1")
    running(host, "w2")
    running(host, "vm", kind=Kind.VM)
    before = dict(host.driver.id_bases)
    assert before["vm"] == 0
    assert 0 < before["w1"] != before["w2"] > 0
    host.restart_agent()
    host.apply(desired("w1", generation=2, restart_nonce=1))
    host.until(desired("w1", generation=2), State.RUNNING)
    assert host.driver.id_bases["w1"] == before["w1"]


def test_volumes_are_made_reported_and_removed(host: Host) -> None:
    volume = DesiredVolume(id="v1", name="data", size=4096)
    workload = running(host, volumes=(volume,))
    parcel = host.outbox.take(everything=False)
    assert [(one.id, one.ready) for one in parcel.volumes] == [("v1", True)]
    host.outbox.acknowledge(parcel)
    host.agent.touch("w1")
    host.apply(desired(generation=2, deleting=True))
    host.until_gone(workload.id)
    host.storage.broken = True
    host.agent.remove_volumes(["v1"])
    assert host.storage.volumes() == ("v1",)
    host.storage.broken = False

    def is_told() -> bool:
        host.agent.remove_volumes(["v1"])  # as the control plane says in each answer
        return any(one.gone for one in host.outbox.take(everything=False).volumes)

    eventually(is_told)
    assert host.storage.volumes() == ()


def test_usage_is_asked_by_kind(host: Host) -> None:
    running(host, "w1")
    running(host, "vm", kind=Kind.VM)
    by_kind = host.agent.book.by_kind()
    assert by_kind == {Kind.CONTAINER: ["w1"], Kind.VM: ["vm"]}
    assert set(host.agent.drivers[Kind.VM].stats(by_kind[Kind.VM])) == {"vm"}
