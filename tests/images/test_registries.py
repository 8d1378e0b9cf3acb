"""Real registries on loopback: with passwords, as mirrors, with several architectures."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.images.conftest import Import, LayoutWriter, digest_of, member, tar_of
from tests.images.test_containers import LAYER, copy, layout, nothing_left
from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.image import ImageManifest
from virtmgr.domain.registry import Mirror, credentials_document, parse_reference, places
from virtmgr.images.blobs import BlobStore
from virtmgr.images.importer import Importer, Registries
from virtmgr.ports.images import ImportRequest

USER, PASSWORD = "puller", "correct horse"
Start = Callable[..., str]


@contextmanager
def serve(directory: Path, *, password: bool = False) -> Iterator[str]:
    directory.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": address},
    }
    if password:
        command = ["htpasswd", "-iBn", "-C", "4", USER]
        users = subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True)
        (directory / "htpasswd").write_bytes(users.stdout)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    (directory / "config.yml").write_text(json.dumps(config))
    with open(directory / "log", "wb") as log:
        command = ["docker-registry", "serve", str(directory / "config.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        host, port = address.split(":")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port)), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a registry by name; gives its address."""
    with ExitStack() as stack:
        yield lambda name, **more: stack.enter_context(serve(tmp_path / name, **more))


def credentials(path: Path, host: str, password: str = PASSWORD) -> Path:
    path.touch(0o600)
    path.write_bytes(credentials_document(host, USER, password))
    return path


def with_registries(store: BlobStore, registries: Registries, source: str) -> ImageManifest:
    request = ImportRequest(source=source, insecure_registry=True)
    importer = Importer(store=store, registries=registries)
    return importer.import_image(request, lambda *_: None, lambda: False)


def test_without_a_password(tmp_path: Path, start: Start, do_import: Import) -> None:
    registry = start("open")
    reference = f"docker://{registry}/team/hello:1"
    copy(f"oci:{layout(tmp_path / 'oci')}", reference, "--dest-tls-verify=false")
    manifest = do_import(source=reference, insecure_registry=True)
    assert manifest.layers[0].diff_id == digest_of(LAYER)
    with pytest.raises(ImageError, match="manifest unknown") as failure:
        do_import(source=f"docker://{registry}/team/none:1", insecure_registry=True)
    assert failure.value.code == "registry_image_not_found"
    with pytest.raises(ImageError):
        do_import(source=reference)


def test_a_password(tmp_path: Path, start: Start, do_import: Import, store: BlobStore) -> None:
    registry = start("closed", password=True)
    right = credentials(tmp_path / "right", registry)
    wrong = credentials(tmp_path / "wrong", registry, "wrong")
    other = credentials(tmp_path / "other", "registry.example")
    source = f"docker://{registry}/team/hello:1"
    copy(
        f"oci:{layout(tmp_path / 'oci')}", source, "--dest-tls-verify=false", f"--authfile={right}"
    )
    for refused in (None, wrong, other):
        with pytest.raises(ImageError) as failure:
            do_import(source=source, insecure_registry=True, credentials=refused)
        assert PASSWORD not in failure.value.message
        assert nothing_left(store)
    assert do_import(source=source, insecure_registry=True, credentials=right).layers
    assert with_registries(store, Registries(credentials=right), source).layers


def test_the_password_is_no_argument(tmp_path: Path, start: Start, do_import: Import) -> None:
    registry = start("closed", password=True)
    right = credentials(tmp_path / "right", registry)
    source = f"docker://{registry}/team/hello:1"
    copy(
        f"oci:{layout(tmp_path / 'oci')}", source, "--dest-tls-verify=false", f"--authfile={right}"
    )
    seen: set[bytes] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        do_import(source=source, insecure_registry=True, credentials=right)
    finally:
        ended.set()
        watcher.join()
    assert any(b"skopeo" in line and registry.encode() in line for line in seen)
    assert not any(PASSWORD.encode() in line for line in seen)


def test_mirrors_come_first_and_the_origin_last(
    tmp_path: Path, start: Start, store: BlobStore
) -> None:
    origin, mirror = start("origin"), start("mirror")
    path = layout(tmp_path / "oci")
    for registry, name in ((origin, "one"), (mirror, "one"), (origin, "two")):
        copy(f"oci:{path}", f"docker://{registry}/{name}:1", "--dest-tls-verify=false")
    dead = Mirror(origin, "127.0.0.1:1", insecure=True)
    registries = Registries(mirrors=(dead, Mirror(origin, mirror, insecure=True)))
    for name in ("one", "two"):
        assert with_registries(store, registries, f"docker://{origin}/{name}:1").layers
    logs = {name: (tmp_path / name / "data").rglob("link") for name in ("origin", "mirror")}
    assert all(any(found) for found in logs.values())
    only = Registries(mirrors=(Mirror("registry.example", mirror, insecure=True),))
    assert with_registries(store, only, "docker://registry.example/one:1").layers


def test_several_architectures_and_digests(tmp_path: Path, start: Start, do_import: Import) -> None:
    registry = start("open")
    writer = LayoutWriter(tmp_path / "oci")
    other = tar_of(member("other"))
    path = writer.index(writer.image([LAYER]), writer.image([other], architecture="arm64"))
    index = (path / "index.json").read_bytes()
    document = {**json.loads(index), "mediaType": "application/vnd.oci.image.index.v1+json"}
    index = json.dumps(document).encode()
    writer.index(writer.blob(index, mediaType="application/vnd.oci.image.index.v1+json"))
    target = f"docker://{registry}/many"
    copy(f"oci:{path}", f"{target}:1", "--all", "--dest-tls-verify=false")
    digest = do_import(source=f"{target}:1", insecure_registry=True).registry_digest
    assert digest is not None
    for source in (f"{target}:1", f"{target}@{digest}", f"{target}:1@{digest}"):
        for architecture, layer in (("x86_64", LAYER), ("aarch64", other)):
            manifest = do_import(source=source, architecture=architecture, insecure_registry=True)
            assert manifest.layers[0].diff_id == digest_of(layer)
            assert manifest.registry_digest == digest
    with pytest.raises(ImageError):
        do_import(source=f"{target}@{digest_of(b'')}", insecure_registry=True)
    with pytest.raises(ImageError):
        do_import(source=f"{target}:1", architecture="riscv64", insecure_registry=True)


@pytest.mark.parametrize(
    ("source", "normal"),
    [
        ("nginx", "docker://docker.io/library/nginx:latest"),
        ("docker://nginx:1.27", "docker://docker.io/library/nginx:1.27"),
        ("docker://team/app", "docker://docker.io/team/app:latest"),
        ("docker://localhost/app:2", "docker://localhost/app:2"),
        ("docker://127.0.0.1:5000/a/b", "docker://127.0.0.1:5000/a/b:latest"),
        (f"docker://h.example/a:1@{digest_of(b'')}", f"docker://h.example/a@{digest_of(b'')}"),
    ],
)
def test_references(source: str, normal: str) -> None:
    assert str(parse_reference(source)) == normal


@pytest.mark.parametrize("source", ["", "docker://", "a b", "h.example/", "h.example/A:1", "-x/y"])
def test_references_that_are_none(source: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_reference(source)


def test_mirrors_are_parsed() -> None:
    mirrors = Mirror.parse_all("docker.io=https://m.example, docker.io=http://10.0.0.1:5000")
    found = places(parse_reference("docker://nginx"), mirrors)
    assert [(place.host, insecure) for place, insecure in found] == [
        ("m.example", False),
        ("10.0.0.1:5000", True),
        ("docker.io", False),
    ]
    assert Mirror.parse_all("") == ()
    with pytest.raises(ValueError, match="no registry mirror"):
        Mirror.parse_all("docker.io")
