"""The images of a host: noted when they are fetched, removed when nothing needs them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.agent.fakes import Host, desired, eventually
from virtmgr.agent.files import StateFiles
from virtmgr.agent.images import ImageKeeper
from virtmgr.domain.errors import ImageError, StorageError
from virtmgr.domain.image import Blob, Disk, ImageManifest, ImageType
from virtmgr.domain.sync import DesiredImage, ObservedPool
from virtmgr.drivers.storage.local import LocalStorage


class Blobs:
    """Every image's disk; each fetch waits for ``gate``."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def image(self, name: str) -> DesiredImage:
        content = name.encode() * 5000
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.contents[digest] = content
        disk = Disk(
            blob=Blob(digest=digest, size=len(content)), format="raw", virtual_size=len(content)
        )
        manifest = ImageManifest(type=ImageType.DISK, disk=disk)
        return DesiredImage(id=f"id-{name}", name=name, manifest=manifest)

    def fetch(self, digest: str, offset: int) -> Iterator[bytes]:
        assert self.gate.wait(30)
        self.fetched.append(digest)
        if digest not in self.contents:
            raise ImageError(f"there is no blob {digest}")
        yield self.contents[digest][offset:]


class Pool(LocalStorage):
    """A real one, of which it can be said how full it is, and whose removals can be held up."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory=directory)
        self.used = 10
        self.error: StorageError | None = None
        self.removing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def pools(self) -> tuple[ObservedPool, ...]:
        return (ObservedPool(name="default", path="/", capacity=100, used=self.used),)

    def collect_images(self, keep: object) -> int:
        if self.error is not None:
            raise self.error
        self.removing.set()
        assert self.gate.wait(30)
        return super().collect_images(keep)  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 5, 4, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


class Keeping:
    """A keeper that can be started again, over one pool."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs = Blobs()
        self.pool = Pool(directory / "pool")
        self.clock = Clock()
        self.needed: list[DesiredImage] = []
        self.restart()

    def restart(self) -> None:
        self.keeper = ImageKeeper(
            storage=self.pool,
            source=self.blobs,
            files=StateFiles(self.directory / "state"),
            clock=self.clock,
            keep_for=timedelta(hours=24),
        )

    def fetch(self, image: DesiredImage) -> Path:
        disk = self.keeper.ensure(image, lambda *_: None).disk
        assert disk is not None
        return disk

    def tidy(self, *unknown: str, nonce: int = 0) -> None:
        self.keeper.tidy(lambda: list(self.needed), unknown, nonce)


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path)


def test_what_is_at_hand_survives_a_restart(keeping: Keeping) -> None:
    image = keeping.blobs.image("a")
    assert keeping.keeper.at_hand() == ()
    keeping.fetch(image)
    keeping.restart()
    assert keeping.keeper.at_hand() == ("id-a",)


def test_half_an_image_is_not_at_hand(keeping: Keeping) -> None:
    image = keeping.blobs.image("a")
    keeping.blobs.contents.clear()
    with pytest.raises(ImageError):
        keeping.fetch(image)
    assert keeping.keeper.at_hand() == ()


def test_an_image_goes_a_day_after_nothing_needs_it(keeping: Keeping) -> None:
    used, left = keeping.blobs.image("used"), keeping.blobs.image("left")
    files = [keeping.fetch(image) for image in (used, left)]
    keeping.needed = [used, left]
    keeping.clock.time += timedelta(days=3)
    keeping.tidy()
    keeping.needed = [used]
    keeping.clock.time += timedelta(hours=23)
    keeping.tidy()
    assert keeping.keeper.at_hand() == ("id-left", "id-used")
    keeping.clock.time += timedelta(hours=1)
    keeping.tidy()
    assert keeping.keeper.at_hand() == ("id-used",)
    assert [file.exists() for file in files] == [True, False]


def test_what_goes_at_once(keeping: Keeping) -> None:
    used, left = keeping.blobs.image("used"), keeping.blobs.image("left")
    keeping.needed = [used]

    def goes(*unknown: str, nonce: int = 0) -> bool:
        keeping.fetch(used)
        keeping.fetch(left)
        keeping.tidy(*unknown, nonce=nonce)
        assert "id-used" in keeping.keeper.at_hand()
        return "id-left" not in keeping.keeper.at_hand()

    assert not goes()
    assert goes("id-left", "id-used")  # not in the inventory any more, and yet one is needed
    assert goes(nonce=1)
    assert not goes(nonce=1)
    keeping.restart()
    assert not goes(nonce=1)
    keeping.pool.used = 95
    assert goes(nonce=1)


def test_what_changed_is_told(keeping: Keeping) -> None:
    told = threading.Event()
    keeping.fetch(keeping.blobs.image("left"))
    keeping.keeper.tidy_soon(list, (), 1, told.set)
    assert told.wait(30)
    assert keeping.keeper.at_hand() == ()


def test_a_prune_that_fails_is_tried_again(keeping: Keeping) -> None:
    file = keeping.fetch(keeping.blobs.image("left"))
    keeping.pool.error = StorageError("the disk is read-only")
    keeping.tidy(nonce=1)
    assert keeping.keeper.prune_nonce == 0
    keeping.pool.error = None
    keeping.tidy(nonce=1)
    assert keeping.keeper.prune_nonce == 1
    assert not file.exists()


def test_what_was_never_noted_goes_too_and_what_is_needed_stays(keeping: Keeping) -> None:
    used = keeping.blobs.image("used")
    files = [keeping.fetch(image) for image in (used, keeping.blobs.image("left"))]
    (keeping.directory / "state" / "images.json").write_text("half a fi")
    keeping.restart()
    keeping.needed = [used]
    keeping.tidy()
    assert [file.exists() for file in files] == [True, False]
    keeping.fetch(used)
    assert keeping.keeper.at_hand() == ("id-used",)


def test_an_image_that_is_wanted_while_it_goes_is_fetched_again(keeping: Keeping) -> None:
    image = keeping.blobs.image("a")
    keeping.fetch(image)
    keeping.pool.gate.clear()
    with ThreadPoolExecutor() as threads:
        tidied = threads.submit(keeping.tidy, nonce=1)
        assert keeping.pool.removing.wait(30)
        wanted = threads.submit(keeping.fetch, image)
        keeping.needed = [image]
        keeping.pool.gate.set()
        tidied.result(30)
        assert wanted.result(30).read_bytes() == b"a" * 5000
    keeping.tidy(nonce=2)
    assert keeping.keeper.at_hand() == ("id-a",)
    assert len(keeping.blobs.fetched) == 2


def test_an_image_that_is_being_fetched_stays(keeping: Keeping) -> None:
    image = keeping.blobs.image("a")
    keeping.needed = [image]
    keeping.blobs.gate.clear()
    with ThreadPoolExecutor() as threads:
        wanted = threads.submit(keeping.fetch, image)
        for nonce in range(1, 5):
            keeping.tidy(nonce=nonce)
        keeping.blobs.gate.set()
        assert wanted.result(30).exists()
    keeping.tidy(nonce=5)
    assert wanted.result().exists()


def test_creating_and_pruning_at_once(keeping: Keeping) -> None:
    """As the agent does it: what is desired is known before its image is asked for."""
    image = keeping.blobs.image("a")
    stop = threading.Event()

    def prune() -> None:
        nonce = 0
        while not stop.is_set():
            nonce += 1
            keeping.tidy(nonce=nonce)

    with ThreadPoolExecutor() as threads:
        pruning = threads.submit(prune)
        try:
            for _ in range(50):
                keeping.needed = [image]
                assert keeping.fetch(image).read_bytes() == b"a" * 5000
                assert keeping.fetch(image).exists()
                keeping.needed = []
        finally:
            stop.set()
        pruning.result(30)


def test_what_workloads_need_is_what_they_start_from(host: Host) -> None:
    image, cdrom = Blobs().image("a"), Blobs().image("b")
    workload = desired(image=image, cdrom=cdrom)
    host.apply(workload)
    assert host.agent.book.images() == [image, cdrom]
    host.apply(full=True)
    eventually(lambda: host.agent.book.images() == [])
