"""The CPU that a cluster's VMs see, and what stands against a live move."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.cpu import AUTO, HOST, baseline, resolved
from virtmgr.domain.host import Host
from virtmgr.domain.live_migration import Wish, findings, live_targets, settled
from virtmgr.domain.machine_type import newest_common, versioned
from virtmgr.domain.migration import MigrationMode
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import (
    Hardware,
    Kind,
    Reason,
    State,
    Workload,
    WorkloadSpec,
    WorkloadStatus,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OLD, NEW = ("Nehalem", "Westmere", "qemu64"), ("Nehalem", "Westmere", "Haswell", "qemu64")


def test_the_best_that_all_have() -> None:
    assert baseline([OLD, NEW]) == "Westmere"
    assert baseline([NEW, NEW]) == "Haswell"
    assert baseline([NEW, ()]) == "Haswell"  # a host without VMs does not count
    assert baseline([OLD, ("EPYC",)]) is None
    assert baseline([]) is None
    assert resolved(HOST, [OLD]) is None
    assert resolved(AUTO, [OLD, NEW]) == "Westmere"
    assert resolved("Penryn", [OLD]) == "Penryn"


@given(st.lists(st.sets(st.sampled_from(["Nehalem", "Haswell", "EPYC", "x"])), max_size=4))
def test_a_baseline_is_offered_by_all(models: list[set[str]]) -> None:
    found = baseline([tuple(each) for each in models])
    assert found is None or all(found in each for each in models if each)


def host(name: str, **facts: Any) -> Host:
    driver = {
        "name": "libvirt", "kinds": ["vm"], "features": ["live_migration"], "version": "libvirt 9",
        "cpu_models": list(OLD), **facts.pop("driver", {}),
    }  # fmt: skip
    return Host(
        id=name, name=name, cluster_id="c", architecture="x86_64", created_at=NOW,
        facts={"drivers": [driver], "accelerator": "kvm", "cpu_model": "A", **facts},
    )  # fmt: skip


def vm(state: State = State.RUNNING, **spec: Any) -> Workload:
    document = {"name": "vm1", "kind": "vm", "image": "x", **spec}
    return Workload(
        id="w",
        project_id="p",
        name="vm1",
        cluster_id="c",
        kind=Kind.VM,
        init=None,
        created_at=NOW,
        updated_at=NOW,
        spec=WorkloadSpec.model_validate(document),
        status=WorkloadStatus(state=state),
    )


def codes(workload: Workload, target: Host, cpu: str = HOST, *volumes: Volume) -> set[str]:
    return {why.code for why in findings(workload, volumes, host("a"), target, cpu)}


def test_all_findings_are_said_at_once() -> None:
    assert codes(vm(), host("b")) == set()
    assert codes(vm(State.PAUSED), host("b")) == set()
    assert codes(vm(State.STOPPED), host("b")) == {"not_running"}
    volume = Volume(id="v", project_id="p", name="v", size=1, created_at=NOW)
    other = host("b", accelerator="tcg", cpu_model="B", driver={"features": []})
    read_only = vm(volumes=[{"volume": "v", "read_only": True}])
    assert codes(read_only, replace(other, architecture="arm64"), HOST, volume) == {
        "host_not_able",
        "read_only_volume",
        "architecture_differs",
        "accelerator_differs",
        "cpu_differs",
        "volume_not_ready",
    }


@pytest.mark.parametrize(
    ("cpu", "fits"), [(HOST, False), (AUTO, True), ("Nehalem", True), ("Haswell", False)]
)
def test_a_cluster_of_different_hosts(cpu: str, fits: bool) -> None:
    assert codes(vm(), host("b", cpu_model="B"), cpu) == (set() if fits else {"cpu_differs"})


def test_what_a_vm_runs_with_counts_and_not_what_it_gets_at_its_next_start() -> None:
    target = host("b", cpu_model="B", driver={"machine_types": ["pc-q35-7.1", "pc-q35-7.2"]})
    for machine, cpu, found in (
        ("pc-q35-7.2", "Nehalem", set()),
        ("pc-q35-10.0", "Nehalem", {"machine_differs"}),
        ("pc-q35-7.2", HOST, {"cpu_differs"}),
        ("pc-q35-10.0", "Haswell", {"machine_differs", "cpu_differs"}),
    ):
        running = vm()
        hardware = Hardware(machine=machine, cpu=cpu)
        running.status = running.status.model_copy(update={"hardware": hardware})
        assert codes(running, target, AUTO) == found
    assert codes(running, host("b"), AUTO) == {"cpu_differs"}  # an agent that names no machines


MACHINES = ("pc-q35-7.2", "pc-q35-9.2", "pc-q35-10.0", "pc-q35-10.0.1", "q35", "pc-q35-noble")


def test_the_newest_machine_type_that_all_have() -> None:
    assert versioned(["q35", *reversed(MACHINES)]) == MACHINES[:4]
    assert newest_common([MACHINES, MACHINES[:3], ()]) == "pc-q35-10.0"
    assert newest_common([MACHINES, ["pc-q35-7.2", "pc-q35-rhel9.2.0"]]) == "pc-q35-7.2"
    assert newest_common([MACHINES, ["pc-q35-noble"]]) is None
    assert newest_common([]) is None


facts = st.fixed_dictionaries(
    {},
    optional={
        "accelerator": st.sampled_from(["kvm", "tcg"]),
        "cpu_model": st.sampled_from(["A", "B"]),
        "driver": st.fixed_dictionaries(
            {},
            optional={
                "features": st.sampled_from([[], ["live_migration"]]),
                "cpu_models": st.sampled_from([list(OLD), list(NEW), []]),
                "machine_types": st.sampled_from([list(MACHINES[:1]), list(MACHINES[:3])]),
                "version": st.sampled_from(["libvirt 9", "libvirt 11"]),
            },
        ),
    },
)


@given(st.lists(facts, max_size=8), st.sampled_from([HOST, AUTO, *NEW]), st.booleans())
def test_hosts_of_a_kind_are_looked_at_once_and_all_are_right(
    fleet: list[dict[str, Any]], cpu: str, known: bool
) -> None:
    running = vm()
    if known:
        hardware = Hardware(machine=MACHINES[1], cpu=NEW[2])
        running.status = running.status.model_copy(update={"hardware": hardware})
    hosts = [host(str(number), **dict(each)) for number, each in enumerate(fleet)]
    assert live_targets(running, (), host("a"), hosts, cpu) == {
        each.id for each in hosts if not findings(running, (), host("a"), each, cpu)
    }


def test_what_is_asked_for_is_done_or_refused() -> None:
    why = [Reason(code="x", message="of this"), Reason(code="y", message="of that", hint="mend it")]
    for wish in Wish:
        mode, refused = settled(vm(), wish, ())
        cold = wish is Wish.COLD
        assert (mode, refused) == (MigrationMode.COLD if cold else MigrationMode.LIVE, None)
    assert settled(vm(), Wish.EITHER, why) == (MigrationMode.COLD, None)
    assert settled(vm(State.STOPPED), Wish.LIVE_IF_VM, why) == (MigrationMode.COLD, None)
    for wish in (Wish.LIVE, Wish.LIVE_IF_VM):
        _, refused = settled(vm(), wish, why)
        assert refused is not None
        assert "of this; of that" in refused.message
        assert refused.hint == "mend it; or stop it meanwhile, with --cold"
