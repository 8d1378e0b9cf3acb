"""Cancelling operations and trying them again, of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from tests.fixtures.control_plane import add_images
from virtmgr.domain.image import ImageState
from virtmgr.domain.operation import OperationState
from virtmgr.services import rebalancing_worker
from virtmgr.services.container import Services
from virtmgr.services.operation_end import end

WORKLOADS = "/projects/default/workloads"
ONE = f"{WORKLOADS}/vm1"


@pytest.fixture
def hosts(api: Api, services: Services) -> list[PretendHost]:
    """Two hosts; ``vm1`` is on the first."""
    first = PretendHost(services)
    assert api.post(WORKLOADS, {"name": "vm1", "kind": "vm", "image": "busybox-vm"}).status == 202
    first.converge()
    return [first, PretendHost(services)]


def begin(api: Api, path: str, body: Any = None) -> str:
    answer = api.post(path, body)
    assert answer.status == 202, answer.body
    return str(answer.body["id"])


def fail(services: Services, id: str) -> None:
    """As if it had."""
    with services.units() as uow:
        operation = uow.operations.lock(id)
        assert operation is not None
        problem = {"code": "broke", "detail": "it broke"}
        end(operation, OperationState.FAILED, services.clock.now(), problem=problem)
        image = uow.images.lock(operation.target_id)
        if image is not None:
            image.state = ImageState.FAILED
        uow.commit()


def settle(hosts: list[PretendHost]) -> None:
    """What one says may be news for the other."""
    for _ in range(3):
        for host in hosts:
            host.converge()


def cancelled(api: Api, id: str) -> Any:
    answer = api.post(f"/operations/{id}/cancel")
    assert answer.status == 200, answer.body
    return answer.body


def test_a_move_is_cancelled_and_tried_again(api: Api, hosts: list[PretendHost]) -> None:
    id = begin(api, f"{ONE}/move")
    shown = api.get(f"/operations/{id}").body
    assert shown["cannot_cancel"] is None
    assert shown["cannot_retry"]["code"] == "goes_on"
    cancelled(api, id)
    settle(hosts)
    shown = api.get(f"/operations/{id}").body
    assert shown["state"] == "cancelled"
    assert shown["cannot_cancel"]["code"] == "has_ended"
    assert api.get("/migrations").body["items"][0]["phase"] == "failed"
    again = api.post(f"/operations/{id}/cancel")
    assert (again.status, again.body["code"]) == (409, "has_ended")
    retried = begin(api, f"/operations/{id}/retry")
    assert retried != id
    (latest, _) = api.get("/migrations").body["items"]
    assert (latest["operation_id"], latest["mode"]) == (retried, "live")
    assert latest["target"]["id"] == hosts[1].id


def test_a_rebalancing_and_a_drain_are_cancelled(
    api: Api, services: Services, hosts: list[PretendHost]
) -> None:
    api.post(f"/hosts/{hosts[1].id}/cordon")
    for number in range(2, 8):
        body = {"name": f"vm{number}", "kind": "vm", "image": "busybox-vm"}
        assert api.post(WORKLOADS, body).status == 202
    hosts[0].converge()
    api.post(f"/hosts/{hosts[1].id}/uncordon")
    bounds = {"moves": 1, "at_once": 1, "cold": True}
    id = begin(api, "/clusters/default/rebalance", bounds)
    rebalancing_worker.advance(services)
    assert cancelled(api, id)["state"] == "cancelled"
    settle(hosts)
    again = begin(api, f"/operations/{id}/retry")
    assert again != id
    course = kept(services, again)
    assert (course["most_moves"], course["at_once"], course["cold"]) == (1, 1, True)
    assert len(course["moves"]) == 1
    api.post("/clusters/default/rebalance/cancel")
    settle(hosts)
    drain = begin(api, f"/hosts/{hosts[0].id}/drain", {"cold": True})
    assert cancelled(api, drain)["state"] == "cancelled"
    assert api.get(f"/hosts/{hosts[0].id}").body["state"] == "cordoned"
    settle(hosts)
    again = begin(api, f"/operations/{drain}/retry")
    assert kept(services, again) == kept(services, drain)
    moves = api.get("/migrations", drain=again).body["items"]
    assert {move["mode"] for move in moves} == {"cold"}


def kept(services: Services, id: str) -> Any:
    """What an operation was asked with."""
    with services.units(read_only=True) as uow:
        operation = uow.operations.get(id)
        assert operation is not None
        return operation.parameters


def test_power_is_tried_again(api: Api, services: Services, hosts: list[PretendHost]) -> None:
    id = begin(api, f"{ONE}/stop", {"force": True})
    refused = api.post(f"/operations/{id}/cancel")
    assert (refused.status, refused.body["code"]) == (409, "not_cancellable")
    assert "ask for something else" in refused.body["hint"]
    fail(services, id)
    again = begin(api, f"/operations/{id}/retry")
    hosts[0].converge()
    assert api.get(f"/operations/{again}").body["state"] == "succeeded"
    refused = api.post(f"/operations/{again}/retry")
    assert (refused.status, refused.body["code"]) == (409, "has_succeeded")


def test_an_import_is_cancelled_or_tried_again(api: Api, services: Services) -> None:
    source = {"name": "web", "source": "https://example.org/web.qcow2", "labels": {"a": "b"}}
    id = begin(api, "/images/import", {**source, "format": "qcow2"})
    fail(services, id)
    again = begin(api, f"/operations/{id}/retry")
    image = api.get("/images/web").body
    assert (image["source"], image["labels"]) == (source["source"], source["labels"])
    with services.units(read_only=True) as uow:
        found = uow.operations.get(again)
        assert found is not None
        assert found.parameters["format"] == "qcow2"
    cancelled(api, again)
    assert api.get("/images/web").status == 404
    build = begin(api, "/images/build", {"name": "tiny", "distribution": "busybox"})
    fail(services, build)
    assert begin(api, f"/operations/{build}/retry") != build
    fail(services, api.get("/operations").body["items"][0]["id"])
    assert api.delete("/images/tiny").status == 204
    gone = api.post(f"/operations/{build}/retry")
    assert gone.status == 404


def needing_somebody(api: Api) -> list[str]:
    """The verbs of the failed operations that the overview tells of."""
    told = [
        one for one in api.get("/overview").body["alerts"] if one["code"] == "operations_failed"
    ]
    if not told:
        return []
    found = api.get("/operations", **told[0]["filters"]).body["items"]
    assert told[0]["count"] == len(found)
    return [one["verb"] for one in found]


def test_what_succeeds_at_a_further_try_needs_nobody(
    api: Api, services: Services, hosts: list[PretendHost]
) -> None:
    id = begin(api, f"{ONE}/stop", {"force": True})
    fail(services, id)
    again = begin(api, f"/operations/{id}/retry")
    assert needing_somebody(api) == ["stop"]
    hosts[0].converge()
    assert api.get(f"/operations/{again}").body["state"] == "succeeded"
    assert needing_somebody(api) == []
    assert [one["id"] for one in api.get("/operations", mended=True).body["items"]] == [id]
    begin(api, f"{ONE}/start")
    hosts[0].converge()
    fail(services, begin(api, f"{ONE}/stop"))
    assert needing_somebody(api) == ["stop"], "what succeeded before says nothing of it"


def test_an_image_that_is_made_at_a_further_try_needs_nobody(api: Api, services: Services) -> None:
    id = begin(api, "/images/import", {"name": "web", "source": "https://example.org/web.qcow2"})
    fail(services, id)
    begin(api, f"/operations/{id}/retry")
    assert needing_somebody(api) == ["import"]
    with services.units() as uow:
        add_images(uow)
        image, other = uow.images.find("web"), uow.images.find("busybox")
        assert image is not None
        assert other is not None
        image.type, image.manifest, image.state = other.type, other.manifest, ImageState.READY
        uow.commit()
    assert needing_somebody(api) == []


def test_the_role_has_to_do_for_what_it_is_about(
    api: Api, services: Services, hosts: list[PretendHost], as_role: Callable[..., Api]
) -> None:
    assert hosts
    id = begin(api, f"{ONE}/move")
    viewer, operator = as_role("viewer", "default"), as_role("operator", "default")
    assert viewer.get(f"/operations/{id}").body["cannot_cancel"]["code"] == "forbidden"
    assert operator.get(f"/operations/{id}").body["cannot_cancel"] is None
    assert viewer.post(f"/operations/{id}/cancel").status == 403
    assert operator.post(f"/operations/{id}/cancel").status == 200
    stranger = as_role(None)
    assert stranger.post(f"/operations/{id}/cancel").status in (403, 404)
    settle(hosts)
    stop = begin(api, f"{ONE}/stop")
    fail(services, stop)
    assert viewer.post(f"/operations/{stop}/retry").status == 403
    assert as_role("member", "default").post(f"/operations/{stop}/retry").status == 202
