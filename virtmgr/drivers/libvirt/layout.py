"""Where one VM's files are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtmgr.domain.errors import DriverError
from virtmgr.domain.ids import is_id

_LONGEST_SOCKET = 107  # bytes of sun_path without its final NUL, unix(7)


@dataclass(frozen=True)
class Layout:
    """The files of one VM in its own directory."""

    directory: Path

    @property
    def root_disk(self) -> Path:
        return self.directory / "root.qcow2"

    @property
    def seed(self) -> Path:
        return self.directory / "seed.iso"

    @property
    def nvram(self) -> Path:
        return self.directory / "nvram.fd"

    @property
    def console(self) -> Path:
        """QEMU's listening socket for the serial port."""
        return self.directory / "tty"

    @property
    def log(self) -> Path:
        """What came out of the serial port; virtlogd writes and rotates it (``.0``, ``.1`` …)."""
        return self.directory / "console.log"

    @property
    def run(self) -> Path:
        return self.directory / "run.json"

    @property
    def expected(self) -> Path:
        """The definition that a guest which comes while it runs has to be like."""
        return self.directory / "expected.xml"

    def export(self, id: str) -> Path:
        """The root disk while it is flattened; what a crash leaves goes as half written."""
        return self.directory / f"export-{id}.partial"

    def disks(self, other: Layout) -> Iterator[tuple[Path, Path]]:
        """What the guest has written: its files that are there, and where ``other`` has them."""
        for mine, theirs in ((self.root_disk, other.root_disk), (self.nvram, other.nvram)):
            if mine.exists():
                yield mine, theirs

    def make(self) -> None:
        """Make the directory: QEMU's user may pass through it, nobody may list it."""
        if len(os.fsencode(self.console)) > _LONGEST_SOCKET:
            raise DriverError(
                f"cannot put a VM in {self.directory}: its console socket's path would be longer "
                f"than the {_LONGEST_SOCKET} bytes that Unix allows",
                hint="configure a shorter state directory",
            )
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory.chmod(0o711)

    def remove(self) -> None:
        """Remove the directory and all in it; no error if it is gone."""
        if self.directory.exists():
            shutil.rmtree(self.directory)


@dataclass(frozen=True)
class Layouts:
    """The directory that holds one directory per VM, named by workload id."""

    root: Path

    def of(self, workload_id: str) -> Layout:
        if not is_id(workload_id):
            raise DriverError(f"{workload_id!r} is no workload id")
        return Layout(self.root / workload_id)

    def has(self, workload_id: str) -> bool:
        return (self.root / workload_id).is_dir()

    def ids(self) -> set[str]:
        """Workloads that have a directory, whole or half made."""
        if not self.root.is_dir():
            return set()
        return {entry.name for entry in self.root.iterdir() if is_id(entry.name)}

    def remove_partial(self) -> None:
        """Remove files that a crash left half written."""
        for partial in self.root.glob("*/*.partial"):
            partial.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that takes ``path``'s place, whole, once the block ends well."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
