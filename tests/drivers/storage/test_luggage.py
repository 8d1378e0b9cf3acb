"""What goes from host to host: it comes as it went, and what is hostile or cut off is refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.errors import StorageError
from virtmgr.drivers.storage.arrivals import Arrivals, link
from virtmgr.drivers.storage.luggage import pack, unpack
from virtmgr.ports.driver import Luggage

LIMIT = 1 << 30


def record(content: object) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack(">I", len(text)) + text


def packed(directory: Path, **files: bytes) -> bytes:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return b"".join(pack(Luggage({name: directory / name for name in files}, {"id_base": 7})))


def test_files_come_as_they_went_holes_and_all(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(512 << 20)
        file.write(b"in the middle")
    stream = b"".join(pack(Luggage({"disk": disk}, {"id_base": 7})))
    assert len(stream) < 1 << 20
    came = tmp_path / "came"
    came.mkdir()
    assert unpack(io.BytesIO(stream), came, limit=LIMIT) == ({"id_base": 7}, ["disk"])
    assert (came / "disk").stat().st_size == 1 << 30
    assert (came / "disk").stat().st_blocks * 512 < 1 << 20
    with (came / "disk").open("rb") as file:
        file.seek(512 << 20)
        assert file.read(13) == b"in the middle"


@pytest.mark.parametrize("cut", [1, 10, 60, 200, -1, -40])
def test_what_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    stream = packed(tmp_path / "a", one=b"x" * 300)
    came = tmp_path / "came"
    came.mkdir()
    with pytest.raises(StorageError, match="cut off"):
        unpack(io.BytesIO(stream[:cut]), came, limit=LIMIT)


_FACTS = record({"facts": {}})


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (_FACTS + record({"file": "../up", "size": 1}), "is called"),
        (_FACTS + record({"file": "/etc/passwd", "size": 1}), "is called"),
        (_FACTS + record({"file": "a", "size": -1}), "cannot be"),
        (_FACTS + record({"file": "a", "size": 4}) + struct.pack(">QI", 2, 3) + b"abc", "outside"),
        (_FACTS + record({"file": "a", "size": 4}) + struct.pack(">QI", 0, 0) * 1
         + record({"file": "a", "size": 4}), "is called"),
        (_FACTS + record({"end": "0" * 64}), "checksum"),
        (record({"facts": {"a": "b"}}), "facts"),
        (record([]), "is none"),
        (struct.pack(">I", 1 << 30), "too long"),
    ],
)  # fmt: skip
def test_what_is_hostile_is_refused(tmp_path: Path, stream: bytes, why: str) -> None:
    with pytest.raises(StorageError, match=why) as caught:
        unpack(io.BytesIO(stream), tmp_path, limit=LIMIT)
    assert caught.value.code == "arrival_refused"


def test_more_than_expected_is_refused(tmp_path: Path) -> None:
    stream = packed(tmp_path / "a", one=b"x" * 100_000)
    came = tmp_path / "came"
    came.mkdir()
    with pytest.raises(StorageError, match="more than"):
        unpack(io.BytesIO(stream), came, limit=50_000)


@given(noise=st.binary(max_size=300), at=st.integers(0, 400))
def test_any_damage_is_noticed(
    noise: bytes, at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("damage")
    stream = packed(directory / "a", one=b"x" * 200)
    damaged = stream[:at] + noise + stream[at + len(noise) :]
    came = directory / "came"
    came.mkdir()
    try:
        unpack(io.BytesIO(damaged), came, limit=LIMIT)
    except StorageError:
        return
    assert damaged[: len(stream)] == stream


def test_an_arrival_is_whole_or_not_there(tmp_path: Path) -> None:
    place = tmp_path / "arrivals"
    place.mkdir()
    arrivals = Arrivals(place)
    stream = packed(tmp_path / "a", disk=b"new")
    with pytest.raises(StorageError) as lost:
        arrivals.get("m1")
    assert lost.value.code == "arrival_lost"
    with pytest.raises(StorageError):
        arrivals.receive("m1", io.BytesIO(stream[:-1]), limit=LIMIT)
    assert arrivals.ids() == ()
    arrivals.receive("m1", io.BytesIO(packed(tmp_path / "b", disk=b"old")), limit=LIMIT)
    arrivals.receive("m1", io.BytesIO(stream), limit=LIMIT)  # again, by another worker
    assert (arrivals.ids(), arrivals.get("m1").facts) == (("m1",), {"id_base": 7})
    taken = tmp_path / "taken"
    for _ in range(2):  # again after a crash
        link(arrivals.get("m1").files["disk"], taken)
    arrivals.remove("m1")
    arrivals.remove("m1")
    assert (arrivals.ids(), taken.read_bytes()) == ((), b"new")


def test_what_an_agent_left_half_received_goes(tmp_path: Path) -> None:
    half = tmp_path / "m1.0123.part"
    half.mkdir()
    (half / "disk").touch()
    assert Arrivals(tmp_path).ids() == ()
