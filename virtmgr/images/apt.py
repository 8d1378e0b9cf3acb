"""What the control plane's own apt knows: mirrors, and packages to take files from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtmgr.domain.errors import ImageError
from virtmgr.images.task import Task

DEFAULT_MIRROR = "http://deb.debian.org/debian"
_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ONE_LINE = re.compile(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)")


@dataclass(frozen=True)
class Source:
    """One repository that apt uses."""

    uri: str
    suite: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class KernelFiles:
    image: Path
    modules: Path


def debian_architecture() -> str:
    """Debian's name for this machine's architecture."""
    machine = os.uname().machine
    return _DEBIAN_ARCHITECTURES.get(machine, machine)


def sources(directory: Path = Path("/etc/apt")) -> tuple[Source, ...]:
    """All repositories, from both formats of sources.list(5)."""
    found: list[Source] = []
    extra = directory / "sources.list.d"
    for path in (directory / "sources.list", *sorted(extra.glob("*.list"))):
        if path.exists():
            found.extend(_one_line_sources(path.read_text()))
    for path in sorted(extra.glob("*.sources")):
        found.extend(_deb822_sources(path.read_text()))
    return tuple(found)


def mirror_for(suite: str, known: tuple[Source, ...]) -> str:
    """Where ``suite`` comes from: the mirror in ``known`` that has it, or any Debian one there."""
    main = [source for source in known if "main" in source.components]
    for source in main:
        if source.suite == suite:
            return source.uri
    for source in main:
        if source.uri.rstrip("/").endswith("/debian"):
            return source.uri
    return DEFAULT_MIRROR


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.split("#")[0].strip())
        if found:
            yield Source(found[1], found[2], tuple(found[3].split()))


def _deb822_sources(text: str) -> Iterator[Source]:
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        joined = re.sub(r"\n\s+", " ", "\n".join(lines))
        fields = dict(re.findall(r"(?m)^(\S+?):\s*(.*)$", joined))
        if "deb" not in fields.get("Types", "").split() or fields.get("Enabled") == "no":
            continue
        for uri in fields.get("URIs", "").split():
            for suite in fields.get("Suites", "").split():
                yield Source(uri, suite, tuple(fields.get("Components", "").split()))


def download_kernel(target: Path, cache: Path, task: Task) -> KernelFiles:
    """Debian's cloud kernel, unpacked into the new directory ``target`` and not installed.

    The package is kept in ``cache``, as apt verified it.

    :raises ImageError: apt cannot get it.
    """
    package = _kernel_package(task)
    cache.mkdir(parents=True, exist_ok=True)
    task.phase(f"downloading {package}")
    task.run(["apt-get", "--quiet", "download", package], directory=cache)
    packages = sorted(cache.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    for old in packages[:-1]:
        old.unlink()
    if not packages:
        raise ImageError(f"apt-get download {package} left no file")
    task.phase(f"unpacking {package}")
    task.run(["dpkg-deb", "--extract", str(packages[-1]), str(target)])
    images = list((target / "boot").glob("vmlinu[xz]-*"))
    modules = [path for path in _module_directories(target) if path.is_dir()]
    if len(images) != 1 or not modules:
        raise ImageError(f"package {package} holds no kernel")
    return KernelFiles(images[0], modules[0])


def _module_directories(target: Path) -> tuple[Path, ...]:
    return (target / "lib" / "modules", target / "usr" / "lib" / "modules")


def _kernel_package(task: Task) -> str:
    meta = f"linux-image-cloud-{debian_architecture()}"
    task.phase(f"looking for {meta}")
    output = task.run(["apt-cache", "depends", "--important", meta]).decode()
    found = re.search(r"Depends: (linux-image-\S+)", output)
    if found is None:
        raise ImageError(
            f"apt knows no package {meta}",
            hint="Run apt-get update on the control plane; it must be a Debian machine.",
        )
    return found[1]
