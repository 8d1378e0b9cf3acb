"""Publishing: what is refused, what the worker does with what a host sends, and what goes wrong."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import IMAGES, PretendHost
from virtmgr.domain.errors import Unavailable
from virtmgr.domain.project import Role
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.images.blobs import BlobStore
from virtmgr.images.builder import Builder
from virtmgr.images.importer import Importer
from virtmgr.ports.driver import Feature
from virtmgr.services.container import Services
from virtmgr.services.image_worker import ImageWorker

ALL = "/projects/default/workloads"
ONE = f"{ALL}/web1"
ENDED = (Channel.END, b'{"exit_code": 0}')
Messages = Iterator[tuple[Channel, bytes]]


@dataclass
class Line:
    """The streams of an agent that was told what to send in each."""

    scripts: list[Callable[[], Messages]] = field(default_factory=list)
    asked: list[StreamRequest] = field(default_factory=list)
    closed: int = 0

    def __call__(self, _url: str, _host_id: str, request: StreamRequest) -> Line:
        self.asked.append(request)
        if not self.scripts:
            raise Unavailable("nobody answers", code="host_unreachable")
        self.messages = self.scripts.pop(0)()
        return self

    def sends(self, *messages: tuple[Channel, bytes]) -> None:
        self.scripts.append(lambda: iter(messages))

    def send(self, channel: Channel, content: bytes) -> None:
        """Nothing is to be said to it."""

    def receive(self) -> tuple[Channel, bytes] | None:
        return next(self.messages, None)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def host(api: Api, services: Services) -> PretendHost:
    del api  # makes the inventory
    made = PretendHost(services)
    with services.units() as uow:
        row = uow.hosts.lock(made.id)
        assert row is not None
        row.facts = {**row.facts, "stream_url": "wss://host"}
        uow.commit()
    return made


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def worker(services: Services, line: Line) -> ImageWorker:
    store = services.blobs
    assert isinstance(store, BlobStore)
    builder = Builder(store=store, cache=Path("unused"))
    return ImageWorker(replace(services, dial=line), Importer(store=store), builder)


def make(api: Api, host: PretendHost, **fields: Any) -> None:
    spec = {"name": "web1", "kind": "container", "image": "busybox", "state": "stopped"}
    assert api.post(ALL, {**spec, **fields}).status == 202
    host.converge()


def publish(api: Api, name: str = "golden", **fields: Any) -> str:
    begun = api.post(f"{ONE}/publish", {"name": name, **fields})
    assert (begun.status, begun.body["verb"]) == (202, "publish")
    return str(begun.body["id"])


def layer(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def uploads(services: Services) -> list[Path]:
    return list(services.blobs.upload_path("x").parent.iterdir())


def test_a_container_becomes_its_image_and_a_layer(
    api: Api, host: PretendHost, line: Line, worker: ImageWorker, services: Services
) -> None:
    make(api, host)
    content = layer("etc/.wh.group", "etc/motd")
    line.sends((Channel.STDOUT, content[:700]), (Channel.STDOUT, b""))  # and breaks
    line.sends(*((Channel.STDOUT, part) for part in (content[:700], b"", content[700:])), ENDED)
    operation = publish(api, aliases=["g"], labels={"of": "web1"})
    assert worker.run_once()
    assert api.get(f"/operations/{operation}").body["state"] == "succeeded"
    assert [request.action for request in line.asked] == ["export", "export"]
    assert line.closed == 2
    image = api.get("/images/g").body
    assert (image["state"], image["source"]) == ("ready", "publish:default/web1")
    (only,) = image["manifest"]["layers"]
    with services.blobs.open(only["digest"]) as blob:
        assert blob.read() == content
    assert image["manifest"]["history"][-1]["comment"] == "published from workload web1"
    assert uploads(services) == []
    make(api, host, name="web2", image="golden")
    assert api.get(f"{ALL}/web2").body["image"]["name"] == "golden"


def test_the_workload_is_left_alone_until_the_image_is_made(
    api: Api, host: PretendHost, line: Line, worker: ImageWorker
) -> None:
    make(api, host)
    tried = api.post(f"{ONE}/publish", {"name": "golden"}, query={"dry_run": "true"})
    assert tried.body["would"]["image"]["source"] == "publish:default/web1"
    publish(api)
    for refused in (
        api.post(f"{ONE}/start"),
        api.delete(ONE),
        api.patch(ONE, {"state": "running"}),
        api.post(f"{ONE}/nics", {"network": "default"}),
    ):
        assert (refused.status, refused.code) == (409, "being_published")
        assert refused.body["explanation"]["images"] == ["golden"]
    line.sends((Channel.STDOUT, layer()), ENDED)
    worker.run_once()
    assert api.post(f"{ONE}/start").status == 202


def test_what_cannot_be_published(api: Api, host: PretendHost, services: Services) -> None:
    make(api, host, state="running")
    assert api.post(f"{ONE}/publish", {"name": "golden"}).code == "illegal_transition"
    make(api, host, name="vm1", kind="vm", image="busybox-vm")
    refused = api.post(f"{ALL}/vm1/publish", {"name": "golden"})
    assert (refused.status, refused.code) == (409, "nothing_to_publish")
    make(api, host, name="web2")
    assert api.post(f"{ALL}/web2/publish", {"name": "busybox"}).code == "name_taken"
    assert api.post(f"{ALL}/web3/publish", {"name": "golden"}).status == 404
    without = PretendHost(services, without=frozenset({Feature.PUBLISH}))
    make(api, without, name="web4", placement={"host": without.id})
    refused = api.post(f"{ALL}/web4/publish", {"name": "golden"})
    assert (refused.status, refused.code) == (502, "unsupported")


def test_who_may_publish(api: Api, host: PretendHost, as_role: Callable[..., Api]) -> None:
    make(api, host)
    for role, project, status in (
        (Role.MEMBER, "default", 403),
        (Role.OPERATOR, "default", 403),
        (None, None, 404),
        (Role.OPERATOR, None, 202),
    ):
        asks = as_role(role, project)
        assert asks.post(f"{ONE}/publish", {"name": "golden"}).status == status, role


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([(Channel.END, b'{"code": "in_use", "detail": "it runs"}')], "in_use"),
        ([(Channel.STDOUT, layer("../etc/passwd")), ENDED], "image_refused"),
        ([(Channel.STDOUT, layer("etc/motd")[:600]), ENDED], "image_truncated"),
    ],
)
def test_what_a_host_sends_is_not_trusted(
    messages: list[tuple[Channel, bytes]],
    code: str,
    api: Api,
    host: PretendHost,
    line: Line,
    worker: ImageWorker,
    services: Services,
) -> None:
    make(api, host)
    line.sends(*messages)
    operation = publish(api)
    worker.run_once()
    done = api.get(f"/operations/{operation}").body
    assert (done["state"], done["error"]["code"]) == ("failed", code)
    assert uploads(services) == []
    assert list(services.blobs) == []
    assert api.post(f"{ONE}/start").status == 202


def test_deleting_the_image_ends_it(
    api: Api, host: PretendHost, line: Line, worker: ImageWorker, services: Services
) -> None:
    make(api, host)
    at_work, go_on = threading.Event(), threading.Event()

    def never_ends() -> Messages:
        while True:
            yield Channel.STDOUT, b""
            at_work.set()
            go_on.wait(0.05)

    line.scripts.append(never_ends)
    operation = publish(api)
    thread = threading.Thread(target=worker.run_once)
    thread.start()
    assert at_work.wait(10)
    assert api.delete("/images/golden").status == 204
    assert api.post(f"{ONE}/start").status == 202
    thread.join(10)
    assert not thread.is_alive()
    assert api.get(f"/operations/{operation}").body["state"] == "cancelled"
    assert line.closed == 1
    assert uploads(services) == []


def test_a_vm_becomes_a_disk_with_the_kernel_that_it_had(
    api: Api,
    host: PretendHost,
    line: Line,
    worker: ImageWorker,
    services: Services,
    tmp_path: Path,
) -> None:
    kernel = IMAGES["busybox-vm"].kernel
    assert kernel is not None
    assert isinstance(services.blobs, BlobStore)
    services.blobs.path(kernel.kernel.digest).write_bytes(b"k")
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M"], check=True)
    make(api, host, kind="vm", image="busybox-vm", root_disk={"size": "8MiB"})
    whole = disk.read_bytes().ljust(4 * 65536, b"\0")
    line.sends((Channel.STDOUT, whole), ENDED)
    publish(api)
    worker.run_once()
    image = api.get("/images/golden").body
    assert (image["failure"], image["type"]) == (None, "disk")
    assert image["manifest"]["disk"]["virtual_size"] == 8 * 1024**2
    assert image["manifest"]["kernel"] == kernel.model_dump(mode="json")
