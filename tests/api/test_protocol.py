"""Agents of a release before or after ours go on: what they send is understood, and what they are
sent has nothing in it that they do not know.

Models refuse unknown fields on both sides, so a new one needs a default, and is set only where the
other side has shown that it knows it. ``golden/`` has what an agent of 0.1.0 sent, what it was
answered, and which fields it knew; these files stay as they are when a field is added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.errors import InvalidRequest
from virtmgr.domain.sync import SyncRequest, SyncResponse
from virtmgr.services.container import Services
from virtmgr.services.sync import sync

_GOLDEN = Path(__file__).parent / "golden"
KNOWN: dict[str, list[str]] = json.loads((_GOLDEN / "protocol_fields.json").read_text())


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """It and all that it is made of."""
    yield model
    for field in model.model_fields.values():
        pending = [field.annotation]
        while pending:
            hint = pending.pop()
            pending += get_args(hint)
            if isinstance(hint, type) and issubclass(hint, BaseModel):
                yield from _models(hint)


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
    for each in _models(model):
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
