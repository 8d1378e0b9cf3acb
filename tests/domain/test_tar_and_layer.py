"""The tar reader and the layer rules, against tarfile and against noise."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.compression import Compression, decompressed, detect_compression
from virtmgr.domain.errors import ImageError
from virtmgr.domain.layer import Action, LayerLimits, LayerRules
from virtmgr.domain.tar import Member, MemberType, TarReader

_NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=300).filter(
    lambda name: not name.endswith("/")
)


def chunked(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@given(
    st.lists(st.tuples(_NAMES, st.binary(max_size=2000), st.integers(0, 2**40)), max_size=8),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.integers(1, 4000),
)
def test_reads_what_tarfile_writes(
    files: list[tuple[str, bytes, int]], format_: int, size: int
) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
        for name, content, uid in files:
            info = tarfile.TarInfo(name)
            info.size, info.uid = len(content), uid
            archive.addfile(info, io.BytesIO(content))
    read = [
        (member.name, b"".join(content), member.uid)
        for member, content in TarReader(chunked(out.getvalue(), size))
    ]
    assert read == files


@given(st.binary(max_size=3000), st.integers(0, 10239), st.binary(min_size=1, max_size=20))
def test_noise_is_refused_or_read_but_never_worse(noise: bytes, at: int, patch: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("a/b", "n" * 150, "c"):
            archive.addfile(tarfile.TarInfo(name))
    sound = bytearray(out.getvalue())
    sound[at : at + len(patch)] = patch
    for content in (noise, bytes(sound)):
        rules = LayerRules(LayerLimits(members=100))
        try:
            for member, _ in TarReader([content]):
                rules.admit(member)
        except ImageError:
            pass


@given(st.binary(max_size=5000), st.integers(1, 700), st.integers(0, 5000))
def test_compression_round_trip_limit_and_truncation(content: bytes, size: int, cut: int) -> None:
    for compress in (gzip.compress, zstd.compress, lzma.compress, bz2.compress):
        stored = compress(content) + compress(content)  # two frames are one stream
        kind = detect_compression(stored)
        assert kind is not Compression.NONE
        pieces = decompressed(chunked(stored, size), kind, limit=2 * len(content))
        assert b"".join(pieces) == content * 2
        if content:
            with pytest.raises(ImageError):
                list(decompressed(chunked(stored, size), kind, limit=2 * len(content) - 1))
        one = compress(content)
        with pytest.raises(ImageError):
            list(decompressed(chunked(one[: min(cut, len(one) - 1)], size), kind, limit=10**6))


@given(st.binary(max_size=2000), st.sampled_from(list(Compression)))
def test_noise_is_no_compressed_data(noise: bytes, kind: Compression) -> None:
    try:
        list(decompressed([noise], kind, limit=10**7))
    except ImageError:
        pass


def member(name: str, type_: MemberType = MemberType.DIRECTORY) -> Member:
    return Member(
        name=name, type=type_, mode=0o700, uid=0, gid=0, size=0, mtime=0, link="", device=(0, 0)
    )


@pytest.mark.parametrize("name", ["/", "./", ".", "//", "/./"])
def test_the_root_itself_may_be_a_member(name: str) -> None:
    rules = LayerRules()
    step = rules.admit(member(name))
    assert (step.action, step.path, step.replaces) == (Action.CREATE, "", False)
    assert rules.admit(member("etc")).path == "etc"
    for type_ in (MemberType.FILE, MemberType.SYMLINK, MemberType.FIFO):
        with pytest.raises(ImageError, match="refused"):
            LayerRules().admit(member(name, type_))


@pytest.mark.parametrize("name", ["/etc", "//etc", "/..", "/../x", "/./etc"])
def test_other_absolute_names_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match="is absolute"):
        LayerRules().admit(member(name))


_PARTS = st.sampled_from(
    ["a", "b", "..", ".", "", "dev", "null", ".wh.a", ".wh..wh..opq", ".wh..."]
)
_PATHS = st.lists(_PARTS, max_size=4).map("/".join)


@given(
    st.lists(
        st.builds(
            Member,
            name=_PATHS,
            type=st.sampled_from(list(MemberType)),
            mode=st.just(0o644),
            uid=st.just(0),
            gid=st.just(0),
            size=st.just(0),
            mtime=st.just(0),
            link=_PATHS,
            device=st.sampled_from([(0, 0), (1, 3), (8, 0)]),
        ),
        max_size=8,
    )
)
def test_no_admitted_step_leads_out(members: list[Member]) -> None:
    rules = LayerRules()
    links: set[str] = set()
    for member in members:
        try:
            step = rules.admit(member)
        except ImageError:
            continue
        parts = step.path.split("/")
        assert ".." not in parts
        assert not step.path.startswith("/")
        if step.action is Action.SKIP:
            continue
        assert not any("/".join(parts[:depth]) in links for depth in range(1, len(parts)))
        if step.action is Action.CREATE:
            links.discard(step.path)
            if member.type is MemberType.SYMLINK or (
                member.type is MemberType.HARD_LINK and step.target in links
            ):
                links.add(step.path)
            assert member.type not in (MemberType.CHARACTER_DEVICE, MemberType.BLOCK_DEVICE)
