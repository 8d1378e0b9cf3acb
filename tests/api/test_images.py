"""Images: import, build, upload, and the worker that makes them."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.api.conftest import StillClock, as_new_user, initialise
from tests.api.contract import Api, Contract
from tests.bootstrap.raw import eventually
from virtmgr.api.app import create_app
from virtmgr.domain.errors import ImageError, Unavailable
from virtmgr.domain.host import Fingerprint
from virtmgr.domain.image import Disk, ImageManifest, ImageType
from virtmgr.domain.operation import Operation
from virtmgr.domain.sync import SyncRequest
from virtmgr.images.blobs import BlobStore
from virtmgr.ports.images import BuildRequest, Cancelled, ImageOffer, ImageProgress, ImportRequest
from virtmgr.ports.unit_of_work import ListQuery
from virtmgr.services.container import Services
from virtmgr.services.image_worker import ImageWorker, remove_failed, remove_leftovers
from virtmgr.services.sync import sync

FILE = b"a disk, more or less" * 1000


class Maker:
    """Imports and builds by storing the content that it is told to."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.content = b"disk"
        self.requests: list[ImportRequest | BuildRequest] = []
        self.before: Callable[[Cancelled], None] = lambda _: None

    def import_image(
        self, request: ImportRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        if request.path is not None:
            self.content = request.path.read_bytes()
        return self.build(request, progress, cancelled)

    def build(
        self, request: BuildRequest | ImportRequest, progress: ImageProgress, cancelled: Cancelled
    ) -> ImageManifest:
        self.requests.append(request)
        progress(1, 2, "working")
        self.before(cancelled)
        blob = self.store.add([self.content])
        disk = Disk(blob=blob, format="raw", virtual_size=blob.size)
        return ImageManifest(type=ImageType.DISK, disk=disk)


@pytest.fixture
def maker(services: Services) -> Maker:
    store = services.blobs
    assert isinstance(store, BlobStore)
    return Maker(store)


@pytest.fixture
def worker(services: Services, maker: Maker) -> ImageWorker:
    return ImageWorker(services, maker, maker)


def _import(api: Api, name: str = "disk", **more: Any) -> str:
    body = {"name": name, "source": "https://example.org/disk.raw", **more}
    begun = api.post("/images/import", body)
    assert begun.status == 202
    assert begun.headers["Location"] == f"/api/v1/operations/{begun.body['id']}"
    return str(begun.body["id"])


def test_an_import_is_carried_out(api: Api, worker: ImageWorker, maker: Maker) -> None:
    operation = _import(api, aliases=["d"], labels={"os": "none"}, format="raw")
    assert api.get("/images/d").body["state"] == "importing"
    assert worker.run_once()
    assert not worker.run_once()
    done = api.get(f"/operations/{operation}").body
    assert (done["state"], done["progress"], done["target"]["name"]) == ("succeeded", 1.0, "disk")
    image = api.get("/images/disk").body
    assert (image["state"], image["type"], image["size"]) == ("ready", "disk", 4)
    assert image["digest"].startswith("sha256:")
    assert image["version"] == 1
    request = maker.requests[0]
    assert isinstance(request, ImportRequest)
    assert (request.source, request.type) == ("https://example.org/disk.raw", ImageType.DISK)
    assert [e["type"] for e in api.get("/events", after=0, target=image["id"]).body["items"]] == [
        "image.created",
        "image.ready",
    ]


def test_a_build_is_carried_out(api: Api, worker: ImageWorker, maker: Maker) -> None:
    body = {"name": "deb", "distribution": "debian", "kind": "vm"}
    assert api.post("/images/build", body).status == 202
    worker.run_once()
    request = maker.requests[0]
    assert isinstance(request, BuildRequest)
    assert (request.distribution, request.suite, request.kind.value) == ("debian", "bookworm", "vm")


def test_a_failure_is_told(api: Api, worker: ImageWorker, maker: Maker) -> None:
    def fail(_: Cancelled) -> None:
        raise ImageError("fetch disk.raw: 404", hint="correct the URL", code="not_fetched")

    maker.before = fail
    operation = _import(api)
    worker.run_once()
    failed = api.get(f"/operations/{operation}").body
    assert failed["state"] == "failed"
    assert failed["error"] == {
        "code": "not_fetched",
        "detail": "fetch disk.raw: 404",
        "hint": "correct the URL",
    }
    assert api.get("/images", state="failed").body["items"][0]["failure"] == "fetch disk.raw: 404"
    assert api.delete("/images/disk").status == 204


def test_a_failed_image_gives_way(api: Api, worker: ImageWorker, maker: Maker) -> None:
    def fail(_: Cancelled) -> None:
        raise ImageError("fetch disk.raw: 404")

    maker.before = fail
    _import(api, aliases=["d"])
    assert api.post("/images/import", {"name": "disk", "source": "docker://x/y"}).status == 409
    worker.run_once()
    failed = api.get("/images/disk").body
    maker.before = lambda _: None
    _import(api, "other", aliases=["d"])
    assert api.get("/images/disk").status == 404
    _import(api)
    worker.run_once()
    worker.run_once()
    assert api.get("/images/disk").body["state"] == "ready"
    assert api.get("/images/disk").body["id"] != failed["id"]
    events = api.get("/events", after=0, target=failed["id"]).body["items"]
    assert [event["type"] for event in events] == ["image.created", "image.failed", "image.deleted"]


def test_failed_images_go_after_some_days(
    api: Api, services: Services, worker: ImageWorker, maker: Maker, clock: StillClock
) -> None:
    def fail(_: Cancelled) -> None:
        raise ImageError("404")

    _import(api, "sound")
    worker.run_once()
    maker.before = fail
    _import(api, "old")
    worker.run_once()
    clock.advance(days=2)
    _import(api, "young")
    worker.run_once()
    clock.advance(days=2)
    remove_failed(services)
    names = [image["name"] for image in api.get("/images", sort="name").body["items"]]
    assert names == ["sound", "young"]


def test_a_defect_of_the_maker_is_a_failure(api: Api, worker: ImageWorker, maker: Maker) -> None:
    def fail(_: Cancelled) -> None:
        raise RuntimeError("secret")

    maker.before = fail
    operation = _import(api)
    worker.run_once()
    error = api.get(f"/operations/{operation}").body["error"]
    assert error["code"] == "internal_error"
    assert "secret" not in error["detail"]


def test_a_dead_worker_s_work_is_taken_over(
    api: Api, services: Services, worker: ImageWorker, maker: Maker, clock: StillClock
) -> None:
    operation = _import(api)
    taken = worker._take()  # and dies
    assert taken is not None
    other = ImageWorker(services, maker, maker)
    assert not other.run_once()
    clock.advance(seconds=61)
    assert other.run_once()
    worker._fail(taken, ImageError("too late"))  # it was only slow: nobody heeds it
    assert api.get(f"/operations/{operation}").body["state"] == "succeeded"
    assert api.get("/images/disk").body["state"] == "ready"


def test_a_database_that_was_away_fails_nothing(
    api: Api, worker: ImageWorker, maker: Maker, clock: StillClock
) -> None:
    operation = _import(api)

    def die(_: Cancelled) -> None:
        raise Unavailable("use the database: it is starting up", code="database_unavailable")

    maker.before = die
    with pytest.raises(Unavailable):
        worker.run_once()
    maker.before = lambda _: None
    clock.advance(seconds=61)
    assert worker.run_once()
    assert api.get(f"/operations/{operation}").body["state"] == "succeeded"


def test_deleting_an_image_in_the_making_cancels_it(
    api: Api, worker: ImageWorker, maker: Maker
) -> None:
    operation = _import(api)

    def delete(_: Cancelled) -> None:
        assert api.delete("/images/disk").status == 204

    maker.before = delete
    worker.run_once()
    assert api.get(f"/operations/{operation}").body["state"] == "cancelled"
    assert api.get("/images/disk").status == 404


def test_the_worker_runs_until_it_is_stopped(api: Api, worker: ImageWorker) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        begun = api.post(
            "/images/import", {"name": "disk", "source": "docker://x/y"}, query={"wait": "30"}
        )
        assert (begun.status, begun.body["state"]) == (200, "succeeded")
    finally:
        stop.set()
        thread.join()


def test_registry_credentials_reach_only_the_worker(
    api: Api, services: Services, worker: ImageWorker, maker: Maker
) -> None:
    auth = {"username": "ci", "password": "correct horse"}
    body = {"name": "x", "source": "docker://registry.example/x", "registry_auth": auth}
    for query in ({"dry_run": "true"}, {}):
        begun = api.post("/images/import", body, query=query)
        assert "correct horse" not in str(begun.body)
    (path,) = _uploads(services)
    assert path.stat().st_mode & 0o777 == 0o600
    with services.units(read_only=True) as uow:
        (operation,) = uow.operations.list(ListQuery()).items
        assert "correct horse" not in str(operation.parameters)

    def look(_: Cancelled) -> None:
        (request,) = maker.requests
        assert isinstance(request, ImportRequest)
        assert request.credentials is not None
        assert "registry.example" in request.credentials.read_text()

    maker.before = look
    worker.run_once()
    assert api.get("/images/x").body["state"] == "ready"
    assert _uploads(services) == []
    refused = api.post("/images/import", {**body, "name": "y", "source": "https://h.example/y"})
    assert (refused.status, refused.body["field"]) == (422, "registry_auth")
    assert "correct horse" not in str(refused.body)


def test_waiting_ends_after_a_while(api: Api) -> None:
    body = {"name": "disk", "source": "docker://x/y"}
    begun = api.post("/images/import", body, query={"wait": "0.1"})
    assert (begun.status, begun.body["state"]) == (202, "pending")


def test_blobs_go_with_the_last_image_that_needs_them(
    api: Api, services: Services, worker: ImageWorker
) -> None:
    for name in ("one", "two"):
        _import(api, name)
        worker.run_once()
    assert len(list(services.blobs)) == 1
    api.delete("/images/one")
    assert len(list(services.blobs)) == 1
    api.delete("/images/two")
    assert list(services.blobs) == []


def test_a_blob_that_is_removed_meanwhile_is_fetched_again(
    api: Api, services: Services, worker: ImageWorker, maker: Maker
) -> None:
    finish = worker._finish

    def lose_blob_once(taken: Operation, manifest: ImageManifest) -> bool:
        if len(maker.requests) == 1:
            for digest in services.blobs:
                services.blobs.remove(digest)
        return finish(taken, manifest)

    worker._finish = lose_blob_once  # type: ignore[method-assign]
    _import(api)
    worker.run_once()
    assert len(maker.requests) == 2
    assert api.get("/images/disk").body["state"] == "ready"
    assert len(list(services.blobs)) == 1


# ---- uploads


def _uploads(services: Services) -> list[Path]:
    return list(services.blobs.upload_path("x").parent.iterdir())


def test_an_upload_is_imported(
    api: Api, services: Services, worker: ImageWorker, maker: Maker
) -> None:
    begun = api.post("/images/upload", data=FILE, query={"name": "disk", "format": "raw"})
    assert (begun.status, begun.body["verb"]) == (202, "import")
    assert len(_uploads(services)) == 1
    assert _uploads(services)[0].stat().st_mode & 0o777 == 0o600
    worker.run_once()
    assert maker.content == FILE
    assert api.get("/images/disk").body["size"] == len(FILE)
    assert _uploads(services) == []


def test_an_upload_may_be_larger_than_other_bodies(api: Api, services: Services) -> None:
    large = b"x" * (5 * 1024**2)
    assert api.post("/images/upload", data=large, query={"name": "disk"}).status == 202
    assert _uploads(services)[0].stat().st_size == len(large)


@pytest.mark.parametrize(
    ("query", "data", "status"),
    [
        ({"name": "taken"}, FILE, 409),
        ({"name": "disk"}, b"", 400),
        ({"name": "Not a name"}, FILE, 422),
        ({"name": "disk", "format": "exe"}, FILE, 422),
        ({"name": "disk", "dry_run": "true"}, FILE, 200),
    ],
)
def test_a_refused_upload_leaves_nothing(
    api: Api, services: Services, query: dict[str, str], data: bytes, status: int
) -> None:
    _import(api, "taken")
    assert api.post("/images/upload", data=data, query=query).status == status
    assert _uploads(services) == []
    assert len(api.get("/images").body["items"]) == 1


def test_a_repeated_upload_is_kept_once(api: Api, services: Services) -> None:
    key, query = {"Idempotency-Key": "one"}, {"name": "disk"}
    first = api.post("/images/upload", data=FILE, query=query, headers=key)
    again = api.post("/images/upload", data=FILE, query=query, headers=key)
    assert first.body["id"] == again.body["id"]
    assert len(_uploads(services)) == 1
    other = api.post("/images/upload", data=b"else", query=query, headers=key)
    assert other.code == "idempotency_mismatch"
    assert len(_uploads(services)) == 1


PARTS = {"Content-Type": "application/partial-upload"}


def _append(api: Api, begun: Any, offset: int, data: bytes) -> Any:
    headers = {**PARTS, "Upload-Offset": str(offset)}
    return api.call("PATCH", f"/images/uploads/{begun['id']}", data=data, headers=headers)


def test_a_discarded_upload_begins_anew(api: Api, services: Services) -> None:
    body = {"key": "file", "size": 10}
    begun = api.post("/images/uploads", body).body
    assert _append(api, begun, 0, b"12345").body["offset"] == 5
    assert api.delete(f"/images/uploads/{begun['id']}").status == 204
    assert _uploads(services) == []
    assert api.delete(f"/images/uploads/{begun['id']}").status == 404
    assert api.post("/images/uploads", body).body["offset"] == 0


def test_an_upload_in_parts(
    api: Api, services: Services, worker: ImageWorker, maker: Maker
) -> None:
    asked = {"key": "a file", "size": len(FILE)}
    begun = api.post("/images/uploads", asked).body
    assert _append(api, begun, 0, FILE[:7000]).body["offset"] == 7000
    assert _append(api, begun, 0, FILE).code == "upload_offset"
    again = api.post("/images/uploads", asked).body
    assert (again["id"], again["offset"]) == (begun["id"], 7000)
    source = {"name": "disk", "source": f"upload:{begun['id']}"}
    assert api.post("/images/import", source).code == "upload_incomplete"
    assert _append(api, begun, 7000, FILE[7000:] + b"more").status == 422
    assert _append(api, begun, 7000, FILE[7000:]).body["offset"] == len(FILE)
    assert api.post("/images/import", source, query={"dry_run": "true"}).status == 200
    assert api.post("/images/import", source).status == 202
    assert api.get(f"/images/uploads/{begun['id']}").status == 404
    worker.run_once()
    assert maker.content == FILE
    assert _uploads(services) == []


def test_a_broken_connection_loses_little(api: Api, app: Flask) -> None:
    size = 1_000_000
    begun = api.post("/images/uploads", {"key": "a", "size": size}).body
    path = f"/images/uploads/{begun['id']}"
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with socket.create_connection(server.server_address[:2]) as connection:
            lines = {
                "Host": "localhost",
                "Authorization": f"Bearer {api.token}",
                "Content-Length": str(size),
                "Upload-Offset": "0",
                **PARTS,
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            connection.sendall(f"PATCH /api/v1{path} HTTP/1.1\r\n{head}\r\n".encode())
            connection.sendall(bytes(700_000))
        eventually(lambda: api.get(path).body["offset"] >= 600_000)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    def is_added() -> bool:
        """Not while the one whose connection broke is still writing what has come."""
        offset = api.get(path).body["offset"]
        assert 600_000 <= offset <= 700_000
        return _append(api, begun, offset, bytes(size - offset)).status == 200

    eventually(is_added)
    assert api.get(path).body["offset"] == size


def test_two_do_not_add_at_once(api: Api, services: Services) -> None:
    begun = api.post("/images/uploads", {"key": "a", "size": 10}).body
    with open(services.blobs.upload_path(begun["id"]), "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _append(api, begun, 0, b"12345").code == "upload_busy"
    assert _append(api, begun, 0, b"12345").status == 200


def test_half_uploads_expire(api: Api, services: Services, clock: StillClock) -> None:
    begun = api.post("/images/uploads", {"key": "a", "size": 10}).body
    _append(api, begun, 0, b"12345")
    waiting = services.blobs.upload_path("of-an-import")
    waiting.write_bytes(FILE)
    _import(api)  # which may need what is not part of an upload
    remove_leftovers(services)
    assert len(_uploads(services)) == 2
    clock.advance(hours=25)
    remove_leftovers(services)
    assert _uploads(services) == [waiting]
    assert _append(api, begun, 5, b"12345").status == 404


@pytest.mark.parametrize("upload", ["x", "part-9-", "..%2Fx", "part-1-" + "0" * 32])
def test_uploads_that_are_none(upload: str, api: Api) -> None:
    assert api.get(f"/images/uploads/{upload}").status == 404


def test_names_and_aliases_are_unique_together(api: Api) -> None:
    _import(api, "one", aliases=["first"])
    taken = api.post("/images/import", {"name": "first", "source": "docker://x/y"})
    assert (taken.status, taken.code) == (409, "name_taken")
    assert api.patch("/images/one", {"aliases": ["uno", "eins"]}).body["aliases"] == ["uno", "eins"]
    assert api.get("/images/eins").status == 200
    assert api.get("/images/first").status == 404


@pytest.mark.parametrize("source", ["/etc/passwd", "file:///etc/passwd", "oci:/x", "ftp://x/y"])
def test_files_of_the_server_are_no_source(api: Api, source: str) -> None:
    refused = api.post("/images/import", {"name": "x", "source": source})
    assert (refused.status, refused.body["field"]) == (422, "source")


# ---- where images are, and what is not needed of them


def test_an_image_says_where_it_is(api: Api, services: Services, worker: ImageWorker) -> None:
    _import(api)
    worker.run_once()
    image = api.get("/images/disk").body
    assert image["hosts"] == []
    api.post("/host-tokens", {"name": "host1"})
    host = api.get("/hosts/host1").body
    assert host["images"] == []
    sync(services, host["id"], _first_sync(image["id"]))
    assert api.get("/images/disk").body["hosts"] == [{"id": host["id"], "name": "host1"}]
    assert [each["at_hand"] for each in api.get("/images", q="disk").body["items"]] == [1]
    assert api.get("/hosts/host1").body["images"] == [{"id": image["id"], "name": "disk"}]


def test_pruning_is_shown_before_it_is_done(
    api: Api, services: Services, worker: ImageWorker, maker: Maker
) -> None:
    _import(api)
    worker.run_once()
    image = api.get("/images/disk").body["id"]
    hosts = [api.post("/host-tokens", {"name": name}).body["id"] for name in ("host1", "host2")]
    for host in hosts:
        sync(services, host, _first_sync(image))
    stray = maker.store.add([b"stray blob"])
    half = services.blobs.upload_path("half")
    half.write_bytes(FILE)
    os.utime(half, (0, 0))
    fresh = services.blobs.upload_path("fresh")
    fresh.write_bytes(FILE)
    would = api.post("/images/prune", {}, query={"dry_run": "true"}).body["would"]
    assert [each["host"]["name"] for each in would["hosts"]] == ["host1", "host2"]
    assert would["hosts"][0]["images"] == [{"id": image, "name": "disk", "size": 4}]
    assert (would["store"]["blobs"], would["store"]["leftovers"]) == (1, 1)
    assert would["size"] >= 8 + stray.size + len(FILE)
    assert half.exists()
    assert services.blobs.exists(stray.digest)
    assert sync(services, hosts[0], SyncRequest()).prune_nonce == 0
    assert api.post("/images/prune", {}).body == would
    assert not half.exists()
    assert fresh.exists()
    assert [sync(services, host, SyncRequest()).prune_nonce for host in hosts] == [1, 1]
    assert len(list(services.blobs)) == 1
    assert len(api.get("/events", type="host.pruned").body["items"]) == 2


def test_pruning_one_host_touches_nothing_else(api: Api, services: Services, maker: Maker) -> None:
    hosts = [api.post("/host-tokens", {"name": name}).body["id"] for name in ("host1", "host2")]
    stray = maker.store.add([b"stray blob"])
    assert api.post("/images/prune", {"host": "host2"}).body == {
        "hosts": [],
        "store": None,
        "size": 0,
    }
    assert services.blobs.exists(stray.digest)
    assert [sync(services, host, SyncRequest()).prune_nonce for host in hosts] == [0, 1]
    assert api.post("/images/prune", {"host": "no"}).status == 404


def test_nothing_is_pruned_while_images_are_made(
    api: Api, services: Services, maker: Maker
) -> None:
    stray = maker.store.add([b"a blob of the image that is being made, perhaps"])
    _import(api)
    assert api.post("/images/prune", {}).body["store"]["busy"] is True
    assert services.blobs.exists(stray.digest)


def _first_sync(*image_ids: str) -> SyncRequest:
    fingerprint = Fingerprint(
        hostname="h", machine_id="", boot_id="b", architecture="x86_64", vcpus=1, memory=1, disk=1
    )
    return SyncRequest(full=True, fingerprint=fingerprint, images=image_ids)


def test_what_is_protected_stays(api: Api, worker: ImageWorker) -> None:
    _import(api, "kept", protected=True, description="Ours")
    worker.run_once()
    shown = api.get("/images/kept").body
    assert (shown["protected"], shown["description"]) == (True, "Ours")
    assert api.delete("/images/kept").code == "protected"
    assert api.patch("/images/kept", {"protected": False}).status == 200
    assert api.delete("/images/kept").status == 204


def test_image_servers_are_searched(services: Services, contract: Contract) -> None:
    def has(address: str, words: Sequence[str]) -> tuple[ImageOffer, ...]:
        if address != "https://images.example":
            raise ImageError("it is not there", code="image_unreachable")
        aliases = ("debian/12", "debian/bookworm")
        one = ImageOffer(aliases[0], aliases, ImageType.DISK, "x86_64", "1", 5, " ".join(words))
        return (one, replace(one, alias="debian/13"))

    found = replace(services, search_images=has)
    api = initialise(create_app(found), found, contract)
    asked = {"server": "https://images.example", "words": ["debian", "cloud"], "limit": 1}
    answer = api.post("/images/search", asked).body
    assert (answer["total"], [one["alias"] for one in answer["items"]]) == (2, ["debian/12"])
    assert answer["items"][0]["description"] == "debian cloud"
    assert answer["items"][0]["aliases"] == ["debian/12", "debian/bookworm"]
    assert api.post("/images/search", {"server": "https://other"}).code == "image_unreachable"
    assert api.post("/images/search", {"server": "file:///etc"}).status == 422
    assert as_new_user(api, "viewer").post("/images/search", asked).status == 403
