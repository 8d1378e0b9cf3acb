"""Agents of a release before or after ours go on: what they send is understood, and so is what they
are sent.

Those before us: ``golden/`` has what an agent of 0.1.0 sent, what it was answered, and which fields
it knew; these files stay as they are when a field is added. It refused what it did not know, so a
new field needs a default, and is set only where the other side has shown that it knows it.

Those after us: every message is read with fields at every depth that nobody knows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tests.api.contract import Api
from tests.api.host import PretendHost
from tests.fixtures.from_the_future import (
    SPEC,
    UNKNOWN,
    from_the_future,
    kinds,
    message,
    models,
    parts,
)
from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.sync import ObservedWorkload, SyncRequest, SyncResponse
from virtmgr.domain.values import Message
from virtmgr.domain.workload import State, WorkloadSpec, WorkloadStatus
from virtmgr.services.container import Services
from virtmgr.services.sync import sync

_GOLDEN = Path(__file__).parent / "golden"
KNOWN: dict[str, list[str]] = json.loads((_GOLDEN / "protocol_fields.json").read_text())


def _unknown(value: Any) -> set[str]:
    """Fields that are set, and that the agent of 0.1.0 does not know."""
    found: set[str] = set()
    if isinstance(value, BaseModel):
        kind = type(value).__name__
        for name in value.model_fields_set:
            if name not in KNOWN.get(kind, ()):
                found.add(f"{kind}.{name}")
            found |= _unknown(getattr(value, name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            found |= _unknown(item)
    elif isinstance(value, dict):
        for item in value.values():
            found |= _unknown(item)
    return found


def test_what_an_older_agent_sends_is_understood(api: Api, services: Services) -> None:
    host = PretendHost(services)
    content = (_GOLDEN / "sync_request.json").read_text().replace("MACHINE", host.id)
    answer = sync(services, host.id, SyncRequest.model_validate_json(content))
    assert answer.full
    shown = api.get(f"/hosts/{host.id}").body
    assert (shown["state"], shown["facts"]["agent_version"]) == ("ready", "0.1.0")


def test_an_older_agent_knows_all_that_it_is_answered(api: Api, services: Services) -> None:
    host = PretendHost(services)
    api.post("/projects/default/volumes", {"name": "data", "size": "1MiB"})
    spec = {"kind": "container", "image": "busybox", "nics": [{"network": "default"}]}
    mounts = [{"volume": "data", "path": "/data"}]
    api.post("/projects/default/workloads", {**spec, "name": "web1", "volumes": mounts})
    answer = sync(services, host.id, SyncRequest(full=True))
    sent = SyncResponse.model_validate_json(answer.model_dump_json(exclude_unset=True))
    assert sent.workloads
    assert sent.networks
    assert not _unknown(sent)


def test_what_an_older_control_plane_answers_is_understood() -> None:
    content = (_GOLDEN / "sync_response.json").read_text()
    answer = SyncResponse.model_validate_json(content)
    assert answer.workloads[0].name == "web1"


@pytest.mark.parametrize("model", [SyncRequest, SyncResponse])
def test_new_fields_may_be_left_out(model: type[BaseModel]) -> None:
    for each in models(model):
        known = KNOWN.get(each.__name__)
        for name, field in each.model_fields.items():
            if known is not None and name not in known:
                assert not field.is_required(), f"{each.__name__}.{name}"


@pytest.mark.usefixtures("api")
def test_another_protocol_is_refused_by_name(services: Services) -> None:
    host = PretendHost(services)
    with pytest.raises(InvalidRequest) as refused:
        sync(services, host.id, SyncRequest(protocol=2))
    assert refused.value.code == "protocol_mismatch"


@pytest.mark.parametrize("kind", kinds())
def test_unknown_fields_of_a_newer_side_are_ignored(kind: type[Message]) -> None:
    made = message(kind)
    assert {type(part) for part in parts(made)} == set(models(kind)), "the example is not whole"
    newer = from_the_future(made)
    assert json.dumps(newer).count(UNKNOWN) == len(list(parts(made)))
    assert kind.read(json.dumps(newer)) == made
    assert kind.read_from(newer) == made


@pytest.mark.parametrize("kind", kinds())
def test_what_is_made_here_has_no_unknown_field(kind: type[Message]) -> None:
    with pytest.raises(ValidationError, match=UNKNOWN):
        kind(**{**dict(message(kind)), UNKNOWN: 1})


def test_people_hear_of_fields_that_are_not_known(api: Api) -> None:
    refused = api.post("/projects/default/workloads", from_the_future(SPEC), status=422)
    assert {error["field"].rpartition(".")[2] for error in refused.body["errors"]} == {UNKNOWN}
    assert len(refused.body["errors"]) == len(list(parts(SPEC)))
    with pytest.raises(ValidationError, match=UNKNOWN):
        WorkloadSpec.model_validate(from_the_future(SPEC))


def test_a_state_that_is_not_known_is_unknown(api: Api, services: Services) -> None:
    host = PretendHost(services)
    api.post("/projects/default/workloads", {"name": "web1", "kind": "vm", "image": "busybox-vm"})
    host.converge()
    id = host.wish("web1").id
    said = ObservedWorkload(
        id=id, observed_generation=1, status=WorkloadStatus(state=State.RUNNING, restarts=7)
    ).model_dump(mode="json")
    said["status"]["state"] = "hibernating"
    host.sync(SyncRequest.read(json.dumps({"known_revision": 1, "workloads": [said]})))
    status = api.get("/projects/default/workloads/web1").body["status"]
    assert (status["state"], status["restarts"]) == ("unknown", 7)
    assert status["progress"] == "its agent is newer and says 'hibernating'"
    host.converge()
    status = api.get("/projects/default/workloads/web1").body["status"]
    assert (status["state"], status["progress"]) == ("running", None)


def test_capabilities_that_are_not_known_are_left_alone(api: Api, services: Services) -> None:
    host = PretendHost(services)
    facts = host.fingerprint().model_dump(mode="json")
    facts["kernel_features"]["teleports"] = True
    facts["drivers"][0]["features"].append("teleport")
    facts["drivers"][0]["kinds"].append("unikernel")
    facts["drivers"].append({"name": "firecracker", "healthy": True, "kinds": ["unikernel"]})
    host.sync(SyncRequest.read(json.dumps({"full": True, "fingerprint": facts})))
    shown = api.get(f"/hosts/{host.id}").body
    assert shown["state"] == "ready"
    assert "teleport" in shown["facts"]["drivers"][0]["features"]
    spec = {"kind": "container", "image": "busybox"}
    api.post("/projects/default/workloads", {**spec, "name": "web1"})
    host.converge()
    assert api.get("/projects/default/workloads/web1").body["status"]["state"] == "running"
