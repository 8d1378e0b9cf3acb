"""Backup and restore of a whole control plane, on both databases and from one to the other."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fixtures.control_plane import (
    Client,
    Server,
    add_hosts,
    new_control_plane,
    served,
)
from tests.fixtures.enrolled_host import TOOLS, enrol
from tests.fixtures.postgresql import PostgresqlServer
from tests.store.inventory import Inventory
from virtmgr.agent.control_plane import ControlPlane
from virtmgr.agent.identity import client_context
from virtmgr.bootstrap.backup import back_up, restore
from virtmgr.bootstrap.control_plane import authority, check_database, server_certificate
from virtmgr.bootstrap.setup import initialise
from virtmgr.config.settings import ServerSettings
from virtmgr.domain.errors import Conflict, InvalidRequest, Unavailable
from virtmgr.domain.image import Blob, Disk, ImageManifest, ImageState, ImageType
from virtmgr.domain.sync import SyncRequest
from virtmgr.images.blobs import BlobStore
from virtmgr.services import authorities

DatabaseMaker = Callable[[str], str]


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseMaker]:
    """Makes empty databases of either kind; "" is SQLite's default place."""
    made: list[str] = []

    def make(kind: str) -> str:
        if kind == "sqlite":
            return ""
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        made.append(server.create_database())
        return server.url(made[-1])

    yield make
    for name in made:
        request.getfixturevalue("postgresql").drop_database(name)


_POSTGRESQL = pytest.mark.postgresql
_KINDS = [
    pytest.param(("sqlite", "sqlite"), id="sqlite"),
    pytest.param(("postgresql", "postgresql"), id="postgresql", marks=_POSTGRESQL),
    pytest.param(("sqlite", "postgresql"), id="sqlite-to-postgresql", marks=_POSTGRESQL),
    pytest.param(("postgresql", "sqlite"), id="postgresql-to-sqlite", marks=_POSTGRESQL),
]


def _elsewhere(settings: ServerSettings, directory: Path, database: str) -> ServerSettings:
    """An empty machine with the same addresses."""
    data = directory / "data"
    url = database or f"sqlite:///{data / 'virtmgr.db'}"
    return replace(settings, data_directory=data, run_directory=directory / "run", database=url)


def _add_image(server: Server) -> Blob:
    blob = BlobStore(server.settings.shared / "images").add([b"a disk"])
    disk = Disk(blob=blob, format="raw", virtual_size=1024**3)
    manifest = ImageManifest(type=ImageType.DISK, disk=disk)
    with server.inventory() as uow:
        uow.images.add(
            Inventory().make_image(
                name="small", type=ImageType.DISK, state=ImageState.READY, manifest=manifest,
                digest=blob.digest, size=blob.size,
            )
        )  # fmt: skip
    return blob


@pytest.mark.parametrize("kinds", _KINDS)
def test_hosts_go_on_after_a_restore_elsewhere(
    kinds: tuple[str, str], database: DatabaseMaker, tmp_path: Path
) -> None:
    server = new_control_plane(tmp_path / "old", database(kinds[0]))
    blob = _add_image(server)
    (server.settings.shared / "registry-auth.json").write_text('{"auths": {}}')
    file = tmp_path / "backup.tar"
    with served(server):
        identity = enrol(server, tmp_path / "host", "mars")
        made = back_up(server.settings, file, images=True, replace=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.images == 1
    assert {name for name, rows, _ in made.tables if rows} >= {"hosts", "users", "tokens", "images"}

    settings = _elsewhere(server.settings, tmp_path / "new", database(kinds[1]))
    restored = restore(settings, file, replace=False)
    assert sorted(restored.tables) == sorted(made.tables)
    check_database(settings)
    assert (settings.shared / "registry-auth.json").read_text() == '{"auths": {}}'
    assert BlobStore(settings.shared / "images").size(blob.digest) == blob.size
    server_certificate(settings)  # as ``virtmgr serve`` does first
    again = replace(server, settings=settings, log=tmp_path / "new.log")
    with served(again):
        client = Client(again)  # the token of before, and the CA of before
        assert [host["name"] for host in client.call("GET", "/hosts").body["items"]] == ["mars"]
        client.close()
        agent = ControlPlane(f"https://{settings.agent_listen}", client_context(identity, TOOLS))
        with closing(agent):
            assert agent.sync(SyncRequest(known_revision=0, full=True)).full


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=_POSTGRESQL)])
def test_a_backup_is_of_one_moment(kind: str, database: DatabaseMaker, tmp_path: Path) -> None:
    """A project and its quota are made in one transaction: a backup never has only one of them."""
    server = new_control_plane(tmp_path / "old", database(kind))
    made: list[int] = []
    enough = threading.Event()

    def work() -> None:
        client = Client(server)
        while not enough.is_set():
            body = {"name": f"p{len(made)}"}
            assert client.call("POST", "/projects", body).status == 201
            made.append(1)
        client.close()

    with served(server):
        worker = threading.Thread(target=work)
        worker.start()
        try:
            for number in range(5):
                before = len(made)
                file = tmp_path / f"{number}.tar"
                back_up(server.settings, file, images=False, replace=False)
                with tarfile.open(file) as archive:
                    content = archive.extractfile("manifest.json")
                    assert content is not None
                    rows = {one["table"]: one["rows"] for one in json.load(content)["tables"]}
                assert rows["projects"] == rows["quotas"] >= before + 1
        finally:
            enough.set()
            worker.join()
    assert len(made) > 5
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "old")
    settings, file = server.settings, tmp_path / "backup.tar"
    back_up(settings, file, images=False, replace=False)
    with pytest.raises(Conflict) as refused:
        back_up(settings, file, images=False, replace=False)
    assert refused.value.code == "file_exists"
    back_up(settings, file, images=False, replace=True)
    with server.inventory() as uow:
        add_hosts(uow, 3)
    with pytest.raises(Conflict) as refused:
        restore(settings, file, replace=False)
    assert refused.value.code == "not_empty"
    restore(settings, file, replace=True)
    with server.inventory() as uow:
        assert not uow.hosts.all()
    other = new_control_plane(tmp_path / "other").settings
    with pytest.raises(Conflict):
        restore(other, file, replace=False)
    restore(other, file, replace=True)
    assert other.ca_file.read_bytes() == settings.ca_file.read_bytes()
    check_database(other)


def test_a_running_control_plane_is_not_replaced(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "old")
    file = tmp_path / "backup.tar"
    back_up(server.settings, file, images=False, replace=False)
    with server.inventory() as uow:
        assert uow.leaderships.take("controllers", "somebody")
    with pytest.raises(Conflict) as refused:
        restore(server.settings, file, replace=True)
    assert refused.value.code == "control_plane_running"


@pytest.mark.parametrize("place", [0.02, 0.3, 0.5, 0.7, 0.9])
def test_a_damaged_backup_changes_nothing(place: float, tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "old")
    file = tmp_path / "backup.tar"
    back_up(server.settings, file, images=False, replace=False)
    with server.inventory() as uow:
        add_hosts(uow, 1)
    size = len(file.read_bytes().rstrip(b"\0"))  # what follows is padding, and means nothing
    with file.open("r+b") as damaged:
        damaged.seek(int(size * place))
        damaged.write(os.urandom(1024))
    with pytest.raises((InvalidRequest, Unavailable)):
        restore(server.settings, file, replace=True)
    with server.inventory() as uow:
        assert len(uow.hosts.all()) == 1


def test_a_database_has_one_authority(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "one")
    apart = replace(server.settings, shared_directory=tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as refused:
        check_database(apart)
    assert refused.value.code == "other_authority"
    with pytest.raises(Unavailable):
        initialise(apart)
    assert not apart.ca_file.exists(), "no second one is made"


def test_a_change_of_the_authority_goes_on_after_a_restore(tmp_path: Path) -> None:
    old = new_control_plane(tmp_path / "old").settings
    authority(old).rotate()
    spreading = authority(old).authorities()
    file = tmp_path / "backup.tar"
    assert "pki/ca-next.key" in back_up(old, file, images=False, replace=False).files
    new = replace(
        old, data_directory=tmp_path / "new", database=f"sqlite:///{tmp_path / 'new/virtmgr.db'}"
    )
    restore(new, file, replace=False)
    assert authority(new).authorities() == spreading
    for path in (tmp_path / "new/pki").glob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    check_database(new)
    authority(new).replace()
    assert authority(new).authorities().issuing == spreading.other


def test_a_database_goes_with_either_authority_while_it_is_changed(tmp_path: Path) -> None:
    server = new_control_plane(tmp_path / "one")
    settings, before = server.settings, tmp_path / "before"
    shutil.copytree(settings.ca_file.parent, before / "pki")
    authority(settings).rotate()
    check_database(settings)
    authority(settings).replace()
    check_database(settings)
    with server.inventory() as uow:  # as 'virtmgr ca retire' does it
        uow.settings.set(authorities.SETTING, authority(settings).authorities().issuing)
    check_database(settings)
    authority(settings).retire()
    check_database(settings)
    with pytest.raises(Unavailable) as refused:  # a mount of before
        check_database(replace(settings, shared_directory=before))
    assert refused.value.code == "other_authority"
