"""What the pages of the overview, hosts and clusters make of the API's answers. Pure."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from virtmgr.console import feed, forms
from virtmgr.console.forms import labels_text
from virtmgr.console.pages import clusters, host_add, host_drain, hosts, overview
from virtmgr.console.rest import Refusal
from virtmgr.services.clusters import ClusterFields

GIB = 1024**3


def amounts(vcpus: float, memory: int = 0, disk: int = 0) -> dict[str, float]:
    return {"vcpus": vcpus, "memory": memory, "disk": disk}


def host(name: str, state: str = "ready", **labels: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "state": state,
        "scheduling_state": "ready",
        "labels": labels,
        "capacity": amounts(4, 8 * GIB, GIB),
        "claimed": amounts(8, 4 * GIB, 0),
        "free": amounts(8, 4 * GIB, GIB),
    }


def test_an_alert_leads_to_the_list_with_its_filters() -> None:
    alert = {"noun": "hosts", "filters": {"state": ["unreachable", "fenced"]}}
    assert overview.link_to(alert) == "/hosts?state=unreachable&state=fenced"
    alert = {"noun": "hosts", "filters": {"drain_incomplete": True}}
    assert overview.link_to(alert) == "/hosts?drain_incomplete=true"
    alert = {"noun": "operations", "filters": {"state": ["failed"], "mended": False}}
    assert overview.link_to(alert) == "/operations?state=failed&mended=false"


def test_workloads_stand_by_kind_with_a_list_behind_each_number() -> None:
    counts = [
        {"kind": "container", "init": "app", "state": "failed", "count": 1},
        {"kind": "container", "init": "app", "state": "running", "count": 4},
        {"kind": "vm", "init": None, "state": "stopped", "count": 2},
    ]
    vms, apps = overview.kind_lines(counts)
    assert (vms.title, vms.total.count, vms.total.link) == (
        "Virtual machines",
        2,
        "/workloads?kind=vm",
    )
    assert [(one.state, one.count) for one in apps.states] == [("running", 4), ("failed", 1)]
    assert apps.states[1].link == "/workloads?kind=container&init=app&state=failed"


def test_gauges_tell_claims_of_limits_and_where_the_machines_end() -> None:
    totals = {
        "capacity": amounts(96, 64 * GIB),
        "limit": amounts(384, 64 * GIB),
        "claimed": amounts(96, 60 * GIB),
        "free": amounts(288, 4 * GIB),
    }
    cpu, memory, disk = overview.gauges(totals)
    assert (cpu.share, cpu.width, cpu.mark, cpu.tone) == (0.25, 50, 50, "low")
    assert (memory.tone, memory.claimed, memory.free) == ("full", "60 GiB", "4 GiB")
    assert (disk.share, disk.limit) == (0, "0 B")


def test_first_steps_end_with_the_first_workload() -> None:
    nothing: dict[str, Any] = {"hosts": [], "workloads": []}
    assert [step.done for step in overview.first_steps(nothing, 1)] == [False, True, False]
    assert overview.first_steps({"hosts": [1], "workloads": [1]}, 3) == []


def test_events_are_told_with_the_name_once() -> None:
    def event(type: str, message: str, kind: str = "workload", name: str = "db") -> dict[str, Any]:
        return {
            "sequence": 1,
            "at": "2026-01-01T00:00:00Z",
            "type": type,
            "target": {"type": kind, "id": "1", "name": name},
            "project": {"id": "2", "name": "shop"} if kind == "workload" else None,
            "user": None,
            "message": message,
        }

    done, later, running, said, odd = feed.lines(
        [
            event("operation.succeeded", "create"),
            event("operation.succeeded", "update: at the next start: name"),
            event("workload.running", ""),
            event("host.joined", "host h1 joined", "host", "h1"),
            event("ca.rotated", "the CA changes", "ca", "root"),
        ]
    )
    assert (done.name, done.text, done.link) == (
        "db",
        "create succeeded",
        "/projects/shop/workloads/1",
    )
    assert later.text == "update succeeded: at the next start: name"
    assert (running.name, running.text, running.user) == ("db", "running", "virtmgr")
    assert (said.name, said.text, said.link) == ("", "host h1 joined", "/hosts/1")
    assert odd.link is None


def test_the_map_has_zones_and_racks_and_the_unlabelled_last() -> None:
    found = hosts.zones(
        [host("c"), host("a", zone="b", rack="r2"), host("b", "unreachable", zone="b")], "vcpus"
    )
    assert [(zone.name, [rack for rack, _ in zone.racks]) for zone in found] == [
        ("b", ["r2", "no label"]),
        ("no label", ["no label"]),
    ]
    cell = found[0].racks[0][1][0]
    assert (cell.heat, cell.shares[0]) == (3, ("CPU", "50 %"))
    assert found[0].racks[1][1][0].heat is None


@pytest.mark.parametrize(("share", "step"), [(0, 0), (0.166, 0), (0.17, 1), (0.99, 5), (1, 5)])
def test_heat(share: float, step: int) -> None:
    assert hosts.heat_of(share) == step


@pytest.mark.parametrize(
    ("state", "scheduling", "possible", "not_possible"),
    [
        ("ready", "ready", {"cordon", "drain", "maintenance", "upgrade"}, {"uncordon", "retry"}),
        ("cordoned", "cordoned", {"uncordon", "drain"}, {"cordon"}),
        ("draining", "draining", {"cancel-drain"}, {"drain", "cordon", "uncordon"}),
        ("maintenance", "maintenance", {"uncordon"}, {"drain", "cordon"}),
        ("unreachable", "ready", {"confirm-off", "cordon", "fence"}, {"drain", "maintenance"}),
        ("install_failed", "ready", {"retry", "remove"}, {"cordon", "upgrade"}),
        ("enrolling", "ready", {"join-token", "remove"}, {"cordon", "drain", "retry"}),
        ("removing", "ready", {"remove"}, {"cordon", "edit"}),
    ],
)
def test_the_verbs_of_each_state(
    state: str, scheduling: str, possible: set[str], not_possible: set[str]
) -> None:
    verbs = hosts.possible({"state": state, "scheduling_state": scheduling})
    assert possible <= verbs
    assert not not_possible & verbs


def test_machines_are_typed_in_several_ways() -> None:
    text = "node1.example.org\ndb=10.0.0.7:2222, [fd00::1]:23\nfd00::2 node1.example.org"
    found = [(one.address, one.port, one.name) for one in host_add.parse_machines(text, 22)]
    assert found == [
        ("node1.example.org", 22, "node1"),
        ("10.0.0.7", 2222, "db"),
        ("fd00::1", 23, ""),
        ("fd00::2", 22, ""),
    ]


@pytest.mark.parametrize("text", ["", " \n", "a:b", "name=", "\n".join(f"h{n}" for n in range(33))])
def test_what_is_no_machine_is_refused_at_its_field(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        host_add.parse_machines(text, 22)
    assert list(refused.value.fields) == ["addresses"]


def test_only_credentials_that_were_given_are_sent() -> None:
    form = MultiDict({"ssh.user": " ", "ssh.password": "p w", "ssh.private_key": "a\r\nb\r\n"})
    assert host_add.login_of(form) == {"password": "p w", "private_key": "a\nb\n"}


def test_failures_stand_out_in_a_log() -> None:
    assert host_add.tone_of("  failed: no space left") == "log-bad"
    assert host_add.tone_of("  failed; that is expected here") == ""
    assert host_add.tone_of("  changed") == "log-changed"


def test_a_plan_has_what_stays_apart() -> None:
    def proposal(name: str, target: str | None, mode: str = "cold") -> dict[str, Any]:
        return {
            "workload": {"id": name, "name": name},
            "project": {"id": "p", "name": "p"},
            "target": {"id": target, "name": target} if target else None,
            "mode": mode,
            "data": 10,
            "downtime": 3.0 if mode == "cold" else 0.3,
            "why_not": None if target else {"code": "no", "message": "no", "hint": None},
        }

    found = host_drain.plan_of(
        [proposal("b", "h2"), proposal("c", None), proposal("a", "h2", "live")]
    )
    assert [move["workload"]["name"] for move in found.moves] == ["a", "b"]
    assert [move["workload"]["name"] for move in found.stays] == ["c"]
    assert (found.targets, found.cold, found.data) == ([("h2", 2)], 1, 20)


def test_room_counts_the_other_hosts_only() -> None:
    cpu, memory, _ = host_drain.room(host("a"), [host("a"), host("b")])
    assert (cpu.needed, cpu.free, cpu.left) == (8, 8, 0)
    assert memory.free == 4 * GIB


def test_labels_are_read_as_they_are_written() -> None:
    labels = {"zone": "a", "rack": "r1"}
    assert forms.labels(labels_text(labels)) == labels
    assert forms.labels("a=1, b=", {"c": "3"}) == {"a": "1", "b": "", "c": None}
    with pytest.raises(Refusal):
        forms.labels("zone")


def test_the_form_of_a_cluster_knows_every_field_and_the_defaults_of_the_api() -> None:
    names = {setting.name for group in clusters.SETTINGS.values() for setting in group}
    assert names | {"name", "description", "labels"} == set(ClusterFields.model_fields)
    fields = ClusterFields(name="c")
    shown = clusters.typed(fields.model_dump(mode="json"))
    assert {name: shown[name] for name in names} == clusters.DEFAULTS
    body = clusters.body_of({**clusters.DEFAULTS, "name": "c"})
    assert ClusterFields.model_validate(body) == fields


def test_a_number_that_is_none_is_left_to_the_api_to_refuse() -> None:
    body = clusters.body_of({"name": "c", "reserve": "many", "ha_lease": "2,5"})
    assert (body["reserve"], body["ha_lease"]) == ("many", 2.5)
