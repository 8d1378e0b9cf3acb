"""What is hostile or cut short is refused with a code that says so, and leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from backports import zstd

from tests.images.conftest import Import, LayoutWriter, digest_of, member, tar_of
from tests.images.test_containers import LAYER, layout, nothing_left
from tests.images.test_disks import bootable_raw, iso, kernel, qcow2, qemu_img
from virtmgr.domain.errors import ImageError
from virtmgr.domain.image import ImageType
from virtmgr.images.blobs import BlobStore
from virtmgr.images.tree import Tree

CODES = {
    "digest_mismatch",
    "image_refused",
    "image_too_large",
    "image_truncated",
    "image_unknown",
}
COMPRESSIONS = (gzip.compress, zstd.compress, lzma.compress, bz2.compress)
END = bytes(1024)
DIRECTORY = member("usr", type_=tarfile.DIRTYPE)


@pytest.fixture
def refused(do_import: Import, store: BlobStore) -> Callable[..., str]:
    """Import what must be refused; gives the code."""

    def run(path: Path, **more: object) -> str:
        with pytest.raises(ImageError) as failure:
            do_import(path, **more)
        assert failure.value.code in CODES, failure.value.message
        assert len(failure.value.message) < 10_000
        assert nothing_left(store)
        return failure.value.code

    return run


def header(name: bytes, type_: bytes = b"0", size: int = 0) -> bytes:
    """A tar header made by hand; sizes beyond octal in base 256."""
    block = bytearray(512)
    block[: len(name[:100])] = name[:100]
    block[100:124] = b"0000755\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[136:148] = b"%011o\0" % 0
    block[156:157] = type_
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: Iterable[tuple[bytes, bytes]], type_: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        body += b"%d" % length + rest
    return header(b"pax", type_, len(body)) + body + bytes(-len(body) % 512)


ARCHIVES: dict[str, bytes] = {
    "control characters lead out": tar_of(DIRECTORY, member("../\n\x1b[2J\x07")),
    "long name": tar_of(DIRECTORY, member("/".join(["n" * 200] * 21))),
    "long name of wide characters": tar_of(DIRECTORY, member("/".join(["\N{SNOWMAN}" * 80] * 20))),
    "long link": tar_of(DIRECTORY, member("l", type_=tarfile.SYMTYPE, link="x/" * 2048)),
    "too deep": tar_of(DIRECTORY, member("d/" * 200 + "f")),
    "long absolute name": tar_of(DIRECTORY, member("/" + "x" * 500_000)),
    "absurd size": header(b"usr/a", size=2**60),
    "absurd size in extended header": pax([(b"size", b"9" * 19)]) + header(b"usr/a") + END,
    "sparse": header(b"usr/a", b"S") + END,
    "sparse in extended header": pax([(b"GNU.sparse.major", b"1")]) + header(b"usr/a") + END,
    "extended header of a GiB": header(b"pax", b"x", 2**30) + bytes(2**20),
    "extended headers without end": pax([(b"k", b"v" * 900)]) * 3000 + header(b"usr/a") + END,
    "global headers without end": pax([(b"path", b"v" * 900)], b"g") * 3000 + header(b"a") + END,
    "long names without end": (header(b"@", b"L", 512) + b"n" * 512) * 3000 + header(b"a") + END,
    "extended header that lies": header(b"pax", b"x", 512) + b"99999 path=a\n".ljust(512, b"x"),
    "nameless file": tar_of(DIRECTORY, member("")),
    "nameless members without end": header(b"", b"5") * 110_000 + END,
    "directories without end": tar_of(
        DIRECTORY, *(member(f"{n}/" + "d/" * 120 + "f") for n in range(20))
    ),
    "whiteout of itself": tar_of(DIRECTORY, member("a/.wh..")),
    "whiteout of the parent": tar_of(DIRECTORY, member("a/.wh...")),
    "whiteout of nothing": tar_of(DIRECTORY, member(".wh.")),
    "beneath a whiteout": tar_of(DIRECTORY, member("a/.wh.b/c")),
    "the root as a link": tar_of(DIRECTORY, member("./", type_=tarfile.SYMTYPE, link="/etc")),
    "unknown type": header(b"usr", b"5") + header(b"usr/a", b"V") + END,
    "hard link to itself": tar_of(DIRECTORY, member("a", type_=tarfile.LNKTYPE, link="a")),
    "hard link to a skipped device": tar_of(
        DIRECTORY,
        member("dev/null", type_=tarfile.CHRTYPE, device=(1, 3)),
        member("a", type_=tarfile.LNKTYPE, link="dev/null"),
    ),
    "character device": tar_of(DIRECTORY, member("m", type_=tarfile.CHRTYPE, device=(1, 1))),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    content = ARCHIVES[name]
    path = tmp_path / "layer"
    path.write_bytes(content)
    refused(path)
    writer = LayoutWriter(tmp_path / "oci")
    packed = gzip.compress(content, 1)
    refused(writer.index(writer.image([packed], diff_ids=[digest_of(content)])))


def test_what_is_odd_and_harmless_is_taken(tmp_path: Path, do_import: Import) -> None:
    """Through an earlier layer's link nothing is followed: the upper layer has a directory."""
    first = tar_of(DIRECTORY, member("a", type_=tarfile.SYMTYPE, link="/etc"))
    setuid, content = member("usr/su", b"x")
    setuid.mode = 0o6755
    second = tar_of(
        (setuid, content),
        member("a/passwd", b"x"),
        member("\n\x1b[2J", b"x"),
        member("l/.wh..wh..opq"),
        member(".wh..wh.plnk/1.2", b"x"),
    )
    writer = LayoutWriter(tmp_path / "oci")
    assert len(do_import(writer.index(writer.image([first, second]))).layers) == 2


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_bombs(
    compress: Callable[[bytes], bytes], tmp_path: Path, refused: Callable[..., str]
) -> None:
    inner = tmp_path / "inner"
    inner.write_bytes(compress(bytes(2**23)))
    nested = tmp_path / "nested"
    nested.write_bytes(compress(inner.read_bytes()))
    members = compress(tar_of(DIRECTORY, member("zeros", bytes(2**23))))
    layer = tmp_path / "layer"
    layer.write_bytes(members)
    docker = tmp_path / "docker"
    docker.write_bytes(compress(tar_of(member("manifest.json", b"[]" + bytes(2**23)))))
    boot = tmp_path / "boot"
    boot.write_bytes(compress(tar_of(member("vmlinuz", bytes(2**23)))))
    assert refused(inner) == "image_unknown"
    assert refused(nested) == "image_unknown"
    for path in (layer, docker, boot):
        assert refused(path) == "image_too_large"


def test_a_descriptor_s_size_is_not_believed(tmp_path: Path, refused: Callable[..., str]) -> None:
    """It would raise the limit that its layer may expand to."""
    content = tar_of(DIRECTORY, member("zeros", bytes(2**23)))
    writer = LayoutWriter(tmp_path / "oci")
    image = writer.image([gzip.compress(content)], diff_ids=[digest_of(content)])
    blobs = writer.directory / "blobs/sha256"
    manifest = json.loads((blobs / str(image["digest"])[7:]).read_bytes())
    manifest["layers"][0]["size"] = 2**40
    assert refused(writer.index(writer.blob(json.dumps(manifest).encode()))) == "digest_mismatch"


def _index(writer: LayoutWriter, document: object) -> Path:
    (writer.directory / "index.json").write_text(json.dumps(document))
    return writer.directory


def nested_too_deep(writer: LayoutWriter) -> Path:
    writer.index(writer.image([LAYER]))
    for _ in range(6):
        nested = (writer.directory / "index.json").read_bytes()
        writer.index(writer.blob(nested, mediaType="application/vnd.oci.image.index.v1+json"))
    return writer.directory


def an_index_as_a_manifest(writer: LayoutWriter) -> Path:
    path = writer.index(writer.image([LAYER]))
    return writer.index(writer.blob((path / "index.json").read_bytes()))


def a_manifest_as_an_index(writer: LayoutWriter) -> Path:
    image = writer.image([LAYER])
    del image["platform"]
    return writer.index({**image, "mediaType": "application/vnd.oci.image.index.v1+json"})


def a_digest_as_a_path(writer: LayoutWriter) -> Path:
    return writer.index({"digest": "sha256:../../../../etc/passwd", "size": 1})


def a_negative_size(writer: LayoutWriter) -> Path:
    return writer.index({**writer.image([LAYER]), "size": -1})


def an_infinite_size(writer: LayoutWriter) -> Path:
    text = json.dumps({"manifests": [writer.image([LAYER])]})
    (writer.directory / "index.json").write_text(text.replace('"size": ', '"size": 1e999, "x": '))
    return writer.directory


def many_manifests(writer: LayoutWriter) -> Path:
    return writer.index(*[writer.image([LAYER])] * 2000)


def a_large_index(writer: LayoutWriter) -> Path:
    return _index(writer, {"manifests": [], "annotations": {"a": "b" * 2**23}})


def many_layers(writer: LayoutWriter) -> Path:
    return writer.index(writer.image([LAYER] * 600))


def no_layers(writer: LayoutWriter) -> Path:
    return writer.index(writer.image([]))


def a_nul_in_the_environment(writer: LayoutWriter) -> Path:
    return writer.index(writer.image([LAYER], Env=["A=\0B"]))


def half_a_character(writer: LayoutWriter) -> Path:
    return writer.index(writer.image([LAYER], Cmd=["\ud800"]))


def hostile_names(writer: LayoutWriter) -> Path:
    images = [writer.image([tar_of(member(str(number)))]) for number in range(2)]
    for image in images:
        del image["platform"]
        image["annotations"] = {"org.opencontainers.image.ref.name": "\0\x1b[2J" + "n" * 10**5}
    return writer.index(*images)


def not_json(writer: LayoutWriter) -> Path:
    (writer.directory / "index.json").write_bytes(b"\xff\xfe{")
    return writer.directory


def a_foreign_layer(writer: LayoutWriter) -> Path:
    layer = writer.blob(LAYER, urls=["http://127.0.0.1/"])
    config = {"rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]}}
    manifest = {"config": writer.blob(json.dumps(config).encode()), "layers": [layer]}
    return writer.index(writer.blob(json.dumps(manifest).encode()))


@pytest.mark.parametrize(
    "make",
    [
        nested_too_deep,
        an_index_as_a_manifest,
        a_manifest_as_an_index,
        a_digest_as_a_path,
        a_negative_size,
        an_infinite_size,
        many_manifests,
        a_large_index,
        many_layers,
        no_layers,
        a_nul_in_the_environment,
        half_a_character,
        hostile_names,
        not_json,
        a_foreign_layer,
    ],
)
def test_layouts(
    make: Callable[[LayoutWriter], Path], tmp_path: Path, refused: Callable[..., str]
) -> None:
    refused(make(LayoutWriter(tmp_path / "oci")))


# ---- disks


def patched(path: Path, at: int, value: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value)


QCOW2_PATCHES = {
    "backing file": (8, struct.pack(">QI", 0x200, 11)),
    "backing file of no length": (8, struct.pack(">QI", 0x200, 0)),
    "cluster bits": (20, struct.pack(">I", 60)),
    "virtual size": (24, struct.pack(">Q", 2**63)),
    "no virtual size": (24, struct.pack(">Q", 0)),
    "level 1 entries": (36, struct.pack(">I", 2**32 - 1)),
    "level 1 table beyond the end": (40, struct.pack(">Q", 2**50)),
    "refcount table beyond the end": (48, struct.pack(">Q", 2**50)),
    "refcount clusters": (56, struct.pack(">I", 2**31)),
    "snapshots": (60, struct.pack(">IQ", 2**32 - 1, 2**40)),
    "external data": (72, struct.pack(">Q", 4)),
    "unknown feature": (72, struct.pack(">Q", 1 << 40)),
    "marked corrupt": (72, struct.pack(">Q", 2)),
    "refcount bits": (96, struct.pack(">I", 60)),
    "header length": (100, struct.pack(">I", 2**31)),
    "extension of a data file": (112, struct.pack(">II4s", 0x44415441, 4, b"/etc")),
    "extension without end": (112, struct.pack(">II", 0x6803F857, 2**32 - 1)),
    "version": (4, struct.pack(">I", 9)),
}


@pytest.mark.parametrize("name", QCOW2_PATCHES)
def test_qcow2_headers(name: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = qcow2(tmp_path / "disk")
    patched(path, *QCOW2_PATCHES[name])
    refused(path)


def compressed_qcow2(path: Path) -> Path:
    raw = path.with_suffix(".data")
    raw.write_bytes(os.urandom(100_000).hex().encode() * 2)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
    return path


def test_compressed_qcow2(tmp_path: Path, do_import: Import) -> None:
    """Distributions' disks are compressed; such a file ends before its last cluster does."""
    path = compressed_qcow2(tmp_path / "disk")
    assert path.stat().st_size % 65536
    assert do_import(path).type is ImageType.DISK


def new_qcow2(path: Path) -> Path:
    qemu_img("create", "-f", "qcow2", path, "1G")
    return path


def test_a_new_qcow2(tmp_path: Path, do_import: Import) -> None:
    """Its last cluster is a table, of which it has no more than there is."""
    path = new_qcow2(tmp_path / "disk")
    assert path.stat().st_size % 65536
    assert do_import(path).type is ImageType.DISK


def gpt(size: int = 2**20) -> bytes:
    table = b"EFI PART" + bytes(24) + struct.pack("<Q", size // 512 - 1)
    return bytes(512) + table + bytes(size - 512 - len(table))


def boot_archive() -> bytes:
    tree = Tree()
    tree.file("init", os.urandom(5000))
    return tar_of(member("vmlinuz", kernel()), member("initrd.img", tree.initrd()))


def oci_archive(directory: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(layout(directory / "oci"), ".")
    return out.getvalue()


def docker_archive(directory: Path) -> bytes:
    target = directory / "docker.tar"
    source = f"oci:{layout(directory / 'oci')}"
    command = ["skopeo", "--insecure-policy", "copy", "-q", source, f"docker-archive:{target}:x:1"]
    subprocess.run(command, check=True)
    return target.read_bytes()


SOUND: dict[str, Callable[[Path], bytes]] = {
    "qcow2": lambda directory: qcow2(directory / "q").read_bytes(),
    "new qcow2": lambda directory: new_qcow2(directory / "q").read_bytes(),
    "compressed qcow2": lambda directory: compressed_qcow2(directory / "q").read_bytes(),
    "cd": lambda _: iso(),
    "disk with a GUID partition table": lambda _: gpt(),
    "disk in gzip": lambda _: gzip.compress(bootable_raw(2**16)),
    "kernel": lambda _: kernel(),
    "kernel and initial RAM disk": lambda _: boot_archive(),
    "OCI archive": oci_archive,
    "docker-archive": docker_archive,
    "root file system": lambda _: tar_of(DIRECTORY, member("usr/a", os.urandom(5000))),
    **{
        f"root file system in {compress.__module__}": lambda _, compress=compress: compress(
            tar_of(DIRECTORY, member("usr/a", os.urandom(5000)))
        )
        for compress in COMPRESSIONS
    },
}


def needed(name: str, content: bytes) -> int:
    """How much must be there; archives are padded by zeros behind their end."""
    if name in ("cd", "kernel") or name.startswith("disk"):
        return len(content)
    end = len(content.rstrip(b"\0"))
    return end - 16 if name == "compressed qcow2" else end  # the stream's last bits say nothing


@pytest.mark.parametrize("name", SOUND)
def test_cut_anywhere(
    name: str, tmp_path: Path, refused: Callable[..., str], do_import: Import
) -> None:
    content = SOUND[name](tmp_path)
    path = tmp_path / "whole"
    path.write_bytes(content)
    length = needed(name, content)
    cuts = {0, 1, 3, 100, 511, 513, 1025, 32770, 32800, 34000, length - 1}
    cuts |= {length * part // 7 for part in range(1, 7)}
    for cut in sorted(cut for cut in cuts if cut < length):
        part = tmp_path / "part"
        part.write_bytes(content[:cut])
        refused(part)
    assert do_import(path).size > 0


@pytest.mark.parametrize("type_", [None, *ImageType])
def test_empty_files(type_: ImageType | None, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert refused(path, type=type_) == "image_truncated"
