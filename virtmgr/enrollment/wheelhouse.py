"""What a host installs its agent from: virtmgr and what it needs, as wheels, without the internet.

    DIRECTORY/manifest.json                        the release, and its archive for each Python
    DIRECTORY/virtmgr-RELEASE-cp311-x86_64.tar     wheels, and requirements.txt with their digests

A release is virtmgr's version and a digest of its code and requirements, so that two builds of one
version are told apart. The same code gives the same release, byte for byte. The manifest also has a
digest of the virtmgr that made it (``content_digest``), which is quick to compare with what runs.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from virtmgr.config.resources import resource_path
from virtmgr.domain.errors import InvalidRequest, Unavailable

PYTHONS = ("3.11", "3.12", "3.13")
_OLDEST_GLIBC, _NEWEST_GLIBC = 5, 34  # 2.N; the newest that every supported host has (RHEL 9)
_EPOCH = 315532800  # the first second of 1980, zip's earliest: dates tell nothing here
_TREE = ("virtmgr", "migrations", "templates", "ansible", "alembic.ini", "requirements-host.lock")
_BUILD_FILES = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

Progress = Callable[[str], None]


def make_wheelhouse(
    directory: Path, pythons: Sequence[str] = PYTHONS, progress: Progress = lambda _: None
) -> str:
    """Put manifest and archives for hosts with these versions of Python into ``directory``.

    :param pythons: such as ``3.11``.
    :return: the release.
    :raises InvalidRequest: a version of Python is none.
    :raises Unavailable: a package cannot be fetched, or virtmgr's own wheel cannot be built.
    """
    for python in pythons:
        if not re.fullmatch(r"3\.\d{1,2}", python):
            raise InvalidRequest(f"{python!r} is no version of Python", hint="write 3.11")
    directory.mkdir(parents=True, exist_ok=True)
    lock = resource_path("requirements-host.lock").read_text()
    archives: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="virtmgr-wheelhouse-") as work:
        progress("making virtmgr's own wheel")
        own = own_wheel(Path(work) / "own")
        version = own.name.split("-")[1]
        digest = hashlib.sha256(_digest(own).encode() + lock.encode()).hexdigest()
        release = f"{version}-{digest[:8]}"
        for python in pythons:
            progress(f"fetching what virtmgr needs, for Python {python}")
            wheels = Path(work) / python
            wheels.mkdir()
            requirements = requirements_for(lock, python)
            _download(requirements, python, wheels)
            shutil.copy2(own, wheels)
            named = f"virtmgr=={version} --hash=sha256:{_digest(own)}\n"
            (wheels / "requirements.txt").write_text(requirements + named)
            name = f"virtmgr-{release}-cp{python.replace('.', '')}-x86_64.tar"
            _pack(wheels, directory / name)
            archives[python] = {"file": name, "sha256": _digest(directory / name)}
    manifest = {
        "version": version,
        "release": release,
        "content": content_digest(),
        "archives": archives,
    }
    _write(directory / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    _remove_all_but(directory, {archive["file"] for archive in archives.values()})
    return release


def is_current(directory: Path) -> bool:
    """Whether a wheelhouse is whole, and of the virtmgr that runs here."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        files = [str(archive["file"]) for archive in manifest["archives"].values()]
        content = manifest.get("content")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return content == content_digest() and all((directory / file).is_file() for file in files)


def content_digest() -> str:
    """SHA-256 of the virtmgr that runs here: names and contents of all that its wheel is made of,
    the lock file of hosts among them."""
    tree = resource_path("requirements-host.lock").parent
    if (tree / "setup.py").exists():
        files = _files_of_tree(tree)
    else:
        files = dict(_files_of(importlib.metadata.distribution("virtmgr")))
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _files_of_tree(tree: Path) -> dict[str, bytes]:
    found = {}
    for name in (*_TREE, *_BUILD_FILES):
        for path in (tree / name).rglob("*") if (tree / name).is_dir() else (tree / name,):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                found[str(path.relative_to(tree))] = path.read_bytes()
    return found


def requirements_for(lock: str, python: str) -> str:
    """The lines of a universal lock file that concern x86_64 Linux with this Python, unmarked.

    pip evaluates markers for the Python that it runs under, so they are evaluated here.
    """
    environment = {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    text = re.sub(r"(?m)^\s*#.*\n", "", lock).replace("\\\n", " ")
    return "".join(
        f"{line}\n" for line in map(_unmarked(environment), text.splitlines()) if line is not None
    )


def _unmarked(environment: Mapping[str, str]) -> Callable[[str], str | None]:
    def unmarked(line: str) -> str | None:
        named, *hashes = re.split(r"\s+(?=--hash=)", line.strip())
        if not named:
            return None
        requirement = Requirement(named)
        if requirement.marker is not None and not requirement.marker.evaluate(dict(environment)):
            return None
        requirement.marker = None
        return " ".join((str(requirement), *hashes))

    return unmarked


def own_wheel(directory: Path) -> Path:
    """The wheel of the virtmgr that runs here: built from its tree, or put together again from
    what is installed.

    :raises Unavailable: it cannot be built.
    """
    directory.mkdir(parents=True)
    tree = resource_path("requirements-host.lock").parent
    if not (tree / "setup.py").exists():
        return _packed_again(importlib.metadata.distribution("virtmgr"), directory)
    copy = directory / "tree"  # setuptools would leave build/ in the tree, and take from it
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in (*_TREE, *_BUILD_FILES):
        if (tree / name).is_dir():
            shutil.copytree(tree / name, copy / name, ignore=ignored)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy2(tree / name, copy / name)
    _pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(copy))
    return next(directory.glob("virtmgr-*.whl"))


def _packed_again(distribution: importlib.metadata.Distribution, directory: Path) -> Path:
    """A wheel of an installed distribution: what the one that it was installed from had in it.

    Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    wheel = directory / f"virtmgr-{distribution.version}-py3-none-any.whl"
    record = []
    information = f"virtmgr-{distribution.version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in _files_of(distribution):
            _add(archive, file, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{file},sha256={digest.decode()},{len(content)}")
        own = f"{information}/RECORD"
        _add(archive, own, ("\n".join([*record, f"{own},,"]) + "\n").encode())
    return wheel


def _files_of(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """What an installed distribution's wheel had in it, by name."""
    made_here = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json")
    information = f"virtmgr-{distribution.version}.dist-info"
    for file in sorted(distribution.files or (), key=str):
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue  # programs and byte code, which the installer makes
        if file.parts[0] == information and file.name in made_here:
            continue
        yield str(file), file.read_binary()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def _download(requirements: str, python: str, directory: Path) -> None:
    wanted = directory / "wanted.txt"
    wanted.write_text(requirements)
    platforms = [
        f"--platform=manylinux_2_{minor}_x86_64"
        for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)
    ]
    older = ("--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64")
    _pip(
        *("download", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--implementation=cp", f"--python-version={python}", *platforms, *older),
        *(f"--dest={directory}", f"--requirement={wanted}"),
    )
    wanted.unlink()


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise Unavailable(
            f"pip {arguments[0]} failed: {said}",
            code="wheelhouse_failed",
            hint="the control plane needs pip and a package index that it reaches "
            "(PIP_INDEX_URL); hosts need neither",
        )


def _pack(source: Path, target: Path) -> None:
    """A tar archive of the files of ``source``, the same for the same files."""
    partial = target.with_suffix(".new")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(source.iterdir()):
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode, entry.mtime = path.stat().st_size, 0o644, _EPOCH
            with path.open("rb") as content:
                archive.addfile(entry, content)
    partial.replace(target)


def _remove_all_but(directory: Path, names: Iterable[str]) -> None:
    """Remove archives of earlier releases, whole and half made."""
    for path in directory.glob("virtmgr-*-x86_64.*"):
        if path.name not in names:
            path.unlink()


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    partial.write_text(text)
    partial.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
