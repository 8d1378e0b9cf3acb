"""An image server over https with the documents that LXD's servers have."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.images.conftest import Import, digest_of, member, tar_of
from tests.images.test_containers import nothing_left
from tests.images.test_disks import qcow2
from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.image import ImageType
from virtmgr.images.blobs import BlobStore
from virtmgr.images.simplestreams import search_server

ROOT = tar_of(
    member("./", type_=tarfile.DIRTYPE),
    member("sbin", type_=tarfile.DIRTYPE),
    member("sbin/init", b"#!/bin/sh\n"),
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""


class Server:
    """The files of an image server, and its address."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = ""
        self.products: dict[str, Any] = {}

    def product(self, alias: str, version: str, *, arch: str = "amd64", **files: bytes) -> None:
        """Add a version; ``files`` are named by their format, ``_`` for ``.``."""
        name = f"{alias.replace('/', ':')}:{arch}"
        product = self.products.setdefault(
            name,
            {
                "aliases": f"{alias},{alias}/default",
                "arch": arch,
                "os": "Debian",
                "release": "bookworm",
                "release_title": "bookworm",
                "requirements": {},
                "variant": "default",
                "versions": {},
            },
        )
        metadata = lzma.compress(b"metadata")
        items = {"lxd.tar.xz": self._item("lxd.tar.xz", name, version, metadata)}
        for key, content in files.items():
            format_ = key.replace("_", ".").replace("disk.kvm", "disk-kvm")
            items[format_] = self._item(format_, name, version, content)
            combined = hashlib.sha256(metadata + content).hexdigest()
            short = {"root.tar.xz": "rootxz"}.get(format_, format_.replace(".", "-"))
            items["lxd.tar.xz"][f"combined_{short}_sha256"] = combined
        product["versions"][version] = {"items": items}
        self.write()

    def _item(self, format_: str, name: str, version: str, content: bytes) -> dict[str, Any]:
        path = f"images/{name.replace(':', '/')}/{version}/{format_}"
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        return {"ftype": format_, "path": path, "size": len(content), "sha256": sha256}

    def write(self) -> None:
        streams = self.directory / "streams/v1"
        streams.mkdir(parents=True, exist_ok=True)
        entry = {
            "datatype": "image-downloads",
            "path": "streams/v1/images.json",
            "format": "products:1.0",
            "products": list(self.products),
        }
        index = {"format": "index:1.0", "index": {"images": entry}}
        (streams / "index.json").write_text(json.dumps(index))
        products = {
            "content_id": "images",
            "datatype": "image-downloads",
            "format": "products:1.0",
            "products": self.products,
        }
        (streams / "images.json").write_text(json.dumps(products))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    directory = tmp_path / "served"
    directory.mkdir()
    found = Server(directory)
    found.write()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as http:
        http.socket = context.wrap_socket(http.socket, server_side=True)
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            found.address = f"https://127.0.0.1:{http.server_port}"
            yield found
        finally:
            http.shutdown()
            thread.join()


def source(server: Server, alias: str) -> str:
    return f"simplestreams:{server.address}#{alias}"


def squashfs(directory: Path, *options: str) -> bytes:
    root, target = directory / "root", directory / "root.squashfs"
    (root / "sbin").mkdir(parents=True)
    init = root / "sbin/init"
    init.write_bytes(b"#!/bin/sh\n")
    init.chmod(0o4755)
    (root / "sbin/hard").hardlink_to(init)
    (root / "link").symlink_to("/etc/passwd")
    with open(root / "sparse", "wb") as file:
        file.truncate(1_000_000)
    command = ["mksquashfs", str(root), str(target), "-all-root", "-quiet", "-no-progress"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return target.read_bytes()


def test_the_newest_version_for_the_architecture(server: Server, do_import: Import) -> None:
    newest = tar_of(member("sbin/init", b"newest"))
    server.product("debian/12", "20260101_05:24", root_tar_xz=lzma.compress(ROOT))
    server.product("debian/12", "20260301_05:24", root_tar_xz=lzma.compress(newest))
    server.product("debian/12", "20260201_05:24", root_tar_xz=lzma.compress(ROOT))
    server.product("debian/12", "20260401_05:24", arch="arm64", root_tar_xz=lzma.compress(ROOT))
    manifest = do_import(source=source(server, "debian/12"), architecture="x86_64")
    assert manifest.layers[0].diff_id == digest_of(newest)
    assert manifest.config is not None
    assert manifest.config.init == "system"
    other = do_import(source=source(server, "debian/12/default"), architecture="aarch64")
    assert (other.layers[0].diff_id, other.architecture) == (digest_of(ROOT), "aarch64")


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_squashfs(compression: str, server: Server, tmp_path: Path, do_import: Import) -> None:
    content = squashfs(tmp_path, "-comp", compression)
    server.product("debian/12", "1", squashfs=content)
    manifest = do_import(source=source(server, "debian/12"))
    assert manifest.config is not None
    assert manifest.config.init == "system"
    file = tmp_path / "file"
    file.write_bytes(content)
    assert do_import(file).layers == manifest.layers


def test_a_disk_is_asked_for_by_its_type(server: Server, tmp_path: Path, do_import: Import) -> None:
    disk = qcow2(tmp_path / "disk").read_bytes()
    server.product("debian/12", "1", disk_kvm_img=disk, root_tar_xz=lzma.compress(ROOT))
    assert do_import(source=source(server, "debian/12")).type is ImageType.CONTAINER
    assert do_import(source=source(server, "debian/12"), type=ImageType.DISK).disk is not None


def test_what_is_not_there(server: Server, do_import: Import, store: BlobStore) -> None:
    server.product("debian/12", "1", root_tar_xz=lzma.compress(ROOT))
    for alias, more, hint in (
        ("debian/13", {}, "image search"),
        ("debian", {}, "debian/12"),
        ("debian/12", {"type": ImageType.DISK}, "container for x86_64"),
        ("debian/12", {"architecture": "riscv64"}, "container for x86_64"),
    ):
        with pytest.raises(ImageError) as failure:
            do_import(source=source(server, alias), **more)
        assert failure.value.code == "image_unknown"
        assert hint in str(failure.value.hint)
    assert nothing_left(store)


def test_another_content_than_the_index_says(
    server: Server, do_import: Import, store: BlobStore
) -> None:
    server.product("debian/12", "1", root_tar_xz=lzma.compress(ROOT))
    (path,) = server.directory.rglob("root.tar.xz")
    path.write_bytes(lzma.compress(ROOT + bytes(512)))
    with pytest.raises(ImageError) as failure:
        do_import(source=source(server, "debian/12"))
    assert failure.value.code == "digest_mismatch"
    assert nothing_left(store)


@pytest.mark.parametrize("key", ["combined_rootxz_sha256", "combined_sha256"])
def test_other_metadata_than_the_image_was_published_with(
    key: str, server: Server, do_import: Import, store: BlobStore
) -> None:
    server.product("debian/12", "1", root_tar_xz=lzma.compress(ROOT))
    (product,) = server.products.values()
    items = product["versions"]["1"]["items"]
    items["lxd.tar.xz"][key] = items["lxd.tar.xz"].pop("combined_rootxz_sha256")
    server.write()
    assert do_import(source=source(server, "debian/12"))
    for blob in list(store):
        store.remove(blob)
    (path,) = server.directory.rglob("lxd.tar.xz")
    path.write_bytes(lzma.compress(b"other metadata"))
    with pytest.raises(ImageError, match="together") as failure:
        do_import(source=source(server, "debian/12"))
    assert failure.value.code == "digest_mismatch"
    assert nothing_left(store)


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "https://127.0.0.1/x", "//127.0.0.1/x", "a?b", "a\n"],
)
def test_paths_that_lead_elsewhere(
    path: str, server: Server, do_import: Import, store: BlobStore
) -> None:
    server.product("debian/12", "1", root_tar_xz=lzma.compress(ROOT))
    (product,) = server.products.values()
    product["versions"]["1"]["items"]["root.tar.xz"]["path"] = path
    server.write()
    with pytest.raises(ImageError) as failure:
        do_import(source=source(server, "debian/12"))
    assert failure.value.code == "image_refused"
    assert nothing_left(store)


def truncated(content: bytes) -> bytes:
    return content[: len(content.rstrip(b"\0")) * 2 // 3]


def patched(content: bytes) -> bytes:
    return content[:200] + os.urandom(100) + content[300:]


@pytest.mark.parametrize("damage", [truncated, patched])
def test_damaged_squashfs(
    damage: Callable[[bytes], bytes], tmp_path: Path, do_import: Import, store: BlobStore
) -> None:
    path = tmp_path / "file"
    path.write_bytes(damage(squashfs(tmp_path)))
    with pytest.raises(ImageError) as failure:
        do_import(path)
    assert failure.value.code in ("image_refused", "image_truncated")
    assert nothing_left(store)


def test_a_certificate_that_nobody_vouches_for(
    server: Server, do_import: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ImageError, match="certificate"):
        do_import(source=source(server, "debian/12"))


@pytest.mark.parametrize(
    "text", ["simplestreams:", "simplestreams:ftp://x#y", "simplestreams:https://x"]
)
def test_sources_that_are_none(text: str, do_import: Import) -> None:
    with pytest.raises(InvalidRequest):
        do_import(source=text)


def test_a_server_is_searched(server: Server) -> None:
    server.product("debian/12", "1", root_tar_xz=lzma.compress(ROOT))
    server.product("debian/12", "1", arch="arm64", root_tar_xz=lzma.compress(ROOT))
    server.product("alpine/3.20", "1", root_tar_xz=lzma.compress(ROOT))
    found = search_server(f"simplestreams:{server.address}/", ("debian/12", "x86"))
    assert [(one.aliases, one.type, one.architecture) for one in found] == [
        (("debian/12", "debian/12/default"), ImageType.CONTAINER, "x86_64")
    ]
    assert len(search_server(server.address, ())) == 3
    assert search_server(server.address, ("plan9",)) == ()
    with pytest.raises(ImageError):
        search_server("http://127.0.0.1:1", ())
