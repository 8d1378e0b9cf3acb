"""Images from everywhere: files, OCI layouts, a registry and URLs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection

import pytest

from .conftest import Product
from .test_containers import SMALL

Import = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def imported(product: Product) -> Iterator[Import]:
    """Imports images, which are gone after the test."""
    names: list[str] = []

    def do(name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        names.append(name)
        return product.run("image", "import", "--name", name, *arguments, check=check)

    yield do
    for name in names:
        product.run("delete", f"of-{name}", "--yes", check=False)
        product.run("image", "delete", name, "--yes", check=False)


@pytest.fixture
def root_tar(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    for name in ("sh", "cat", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "mark").write_text("imported\n")
    path = tmp_path / "root.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root, ".")
    return path


@pytest.fixture
def layout(root_tar: Path) -> Path:
    """An OCI layout made by umoci."""
    base = root_tar.parent
    image = f"{base}/oci:v1"
    for arguments in (
        ["init", "--layout", f"{base}/oci"],
        ["new", "--image", image],
        ["unpack", "--rootless", "--image", image, f"{base}/bundle"],
    ):
        _umoci(*arguments)
    shutil.copytree(base / "root", base / "bundle/rootfs", symlinks=True, dirs_exist_ok=True)
    _umoci("repack", "--image", image, f"{base}/bundle")
    _umoci("config", "--image", image, "--config.cmd", "sleep", "--config.cmd", "1000")
    return base / "oci"


def _umoci(*arguments: str) -> None:
    subprocess.run(["umoci", *arguments], check=True, capture_output=True)


@contextmanager
def serving(port: int, *command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    pytest.fail(f"{command[0]} ended")
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def check_that_it_runs(product: Product, name: str) -> None:
    product.run("run", name, "--name", f"of-{name}", *SMALL, "--", "sleep", "1000")
    assert product.run("exec", f"of-{name}", "--", "cat", "/mark").stdout == "imported\n"


def test_a_root_file_system(product: Product, imported: Import, root_tar: Path) -> None:
    imported("rootfs", str(root_tar))
    check_that_it_runs(product, "rootfs")
    used = product.run("image", "delete", "rootfs", "--yes", check=False)
    assert (used.returncode, "of-rootfs" in used.stderr) == (4, True)


def test_an_oci_layout(product: Product, imported: Import, layout: Path) -> None:
    imported("layout", str(layout))
    check_that_it_runs(product, "layout")


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="no docker-registry")
def test_a_registry(product: Product, imported: Import, layout: Path, tmp_path: Path) -> None:
    config = tmp_path / "registry.yml"
    config.write_text(
        f"{{version: 0.1, storage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}, "
        "http: {addr: '127.0.0.1:5055'}}"
    )
    with serving(5055, "docker-registry", "serve", str(config)):
        target = "docker://127.0.0.1:5055/demo:v1"
        copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:v1", target]
        subprocess.run(copy, check=True, capture_output=True)
        assert imported("secure", target, check=False).returncode == 1
        imported("registry", target, "--insecure-registry")
    check_that_it_runs(product, "registry")


def test_a_url_is_held_to_its_checksum(
    product: Product, imported: Import, root_tar: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(root_tar.read_bytes()).hexdigest()
    server = (sys.executable, "-m", "http.server", "8097", "--bind", "127.0.0.1")
    with serving(8097, *server, "--directory", str(tmp_path)):
        url = "http://127.0.0.1:8097/root.tar.gz"
        wrong = imported("wrong", url, "--checksum", "sha256:" + "0" * 64, check=False)
        assert (wrong.returncode, digest in wrong.stderr) == (1, True)
        imported("url", url, "--checksum", f"sha256:{digest}")
    check_that_it_runs(product, "url")


def test_what_is_no_image_is_refused(imported: Import, tmp_path: Path) -> None:
    (tmp_path / "garbage").write_text("garbage")
    assert imported("garbage", str(tmp_path / "garbage"), check=False).returncode == 1
    missing = imported("missing", str(tmp_path / "missing"), check=False)
    assert (missing.returncode, "neither a file" in missing.stderr) == (2, True)
