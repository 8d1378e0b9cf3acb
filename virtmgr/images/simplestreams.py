"""Image servers of LXD and Incus: the simplestreams format, as an index of files by HTTP(S).

``streams/v1/index.json`` names documents of products; a product (one system, release, architecture
and variant) has versions, and a version has items: the same image as files of several formats
(https://documentation.ubuntu.com/lxd/en/latest/reference/remote_image_servers/ and LXD's
``shared/simplestreams``). Of an item are used its ``path``, ``size`` and ``sha256``. The metadata
beside it (``lxd.tar.xz``, ``incus.tar.xz``) holds LXD's templates, which are not needed; but its
item says what both files have as checksum together, and that is held against them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from virtmgr.domain.errors import ImageError, InvalidRequest
from virtmgr.domain.image import ImageType
from virtmgr.images.download import download
from virtmgr.images.files import read_document
from virtmgr.images.oci import OCI_ARCHITECTURES
from virtmgr.images.task import Task
from virtmgr.ports.images import ImageOffer

SCHEME = "simplestreams:"
_INDEX = "streams/v1/index.json"
_SEARCH_SECONDS = 20
_LARGEST_DOCUMENT = 64 * 1024**2
_MOST_DOCUMENTS = 32
_ARCHITECTURES = {
    **{oci: name for name, oci in OCI_ARCHITECTURES.items()},
    "i386": "i686",
    "armhf": "armv7l",
    "ppc64el": "ppc64le",
}
_FORMATS = {  # the best first
    ImageType.CONTAINER: ("root.tar.xz", "squashfs"),
    ImageType.DISK: ("disk-kvm.img", "uefi1.img", "disk1.img"),
}
_COMBINED = {  # members of the metadata's item, the one to prefer first
    "root.tar.xz": ("combined_rootxz_sha256", "combined_sha256"),
    "squashfs": ("combined_squashfs_sha256",),
    "disk-kvm.img": ("combined_disk-kvm-img_sha256",),
    "uefi1.img": ("combined_uefi1-img_sha256",),
    "disk1.img": ("combined_disk1-img_sha256",),
}
LARGEST_METADATA = 64 * 1024**2
SEARCHED = "image-downloads"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Entry(_Document):
    path: str = Field(max_length=1024)
    datatype: str = ""


class _Index(_Document):
    index: dict[str, _Entry]


_Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class _Item(_Document):
    ftype: str = ""
    path: str = Field("", max_length=1024)
    size: int = Field(0, ge=0)
    sha256: _Sha256 = ""
    combined: dict[str, _Sha256] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_combined(cls, item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        known = {name for names in _COMBINED.values() for name in names}
        return {**item, "combined": {name: item[name] for name in known & item.keys()}}


class _Version(_Document):
    items: dict[str, _Item] = {}


class _Product(_Document):
    aliases: str = ""
    arch: str = ""
    os: str = ""
    release: str = ""
    variant: str = ""
    versions: dict[str, _Version] = {}


class _Products(_Document):
    products: dict[str, _Product]


_T = TypeVar("_T", bound=_Document)


@dataclass(frozen=True)
class RemoteFile:
    """One file on the server; ``path`` is relative to its address."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Combined:
    """What a file's metadata, followed by the file itself, has as checksum."""

    metadata: RemoteFile
    sha256: str


@dataclass(frozen=True)
class Offer:
    """The newest version of one product as one type of image."""

    aliases: tuple[str, ...]
    architecture: str  # as uname says it
    type: ImageType
    description: str
    version: str
    file: RemoteFile
    combined: Combined | None = None


def split_source(source: str) -> tuple[str, str]:
    """Address of the server and alias of ``simplestreams:URL#ALIAS``.

    :raises InvalidRequest: it is none.
    """
    address, _, alias = source.removeprefix(SCHEME).partition("#")
    if not address.startswith(("https://", "http://")) or not alias:
        raise InvalidRequest(
            f"{source!r} names no image of an image server",
            field="source",
            hint="Write simplestreams:https://HOST#ALIAS, such as "
            "simplestreams:https://images.linuxcontainers.org#debian/12.",
        )
    return address.rstrip("/"), alias


def fetch_offers(address: str, scratch: Path, task: Task) -> tuple[Offer, ...]:
    """All that the server at ``address`` has.

    :raises ImageError: it cannot be reached, or its index cannot be read.
    """
    index = _fetch(address, _INDEX, scratch / "index.json", task)
    offers: list[Offer] = []
    for path in parse_index(index):
        offers += parse_products(_fetch(address, path, scratch / "products.json", task))
    return tuple(offers)


def file_url(address: str, file: RemoteFile) -> str:
    return f"{address}/{file.path}"


def parse_index(content: bytes) -> tuple[str, ...]:
    """Paths of the documents of products."""
    entries = _parse(_Index, content, "index").index.values()
    paths = [entry.path for entry in entries if entry.datatype == SEARCHED]
    if len(paths) > _MOST_DOCUMENTS:
        raise _refuse(f"its index names {len(paths)} documents")
    for path in paths:
        _check_path(path)
    return tuple(paths)


def parse_products(content: bytes) -> tuple[Offer, ...]:
    """What a document of products offers; products without a usable file are left out."""
    products = _parse(_Products, content, "list of products").products.values()
    found = (_offer(product, type_) for product in products for type_ in _FORMATS)
    return tuple(offer for offer in found if offer is not None)


def choose(
    offers: Sequence[Offer], alias: str, architecture: str, type_: ImageType | None
) -> Offer:
    """The offer with this alias; a container unless a disk is asked for.

    :raises ImageError: there is none.
    """
    named = [offer for offer in offers if alias in offer.aliases]
    fitting = [offer for offer in named if offer.architecture == architecture]
    wanted = type_ or ImageType.CONTAINER
    found = [offer for offer in fitting if offer.type is wanted]
    if found:
        return max(found, key=lambda offer: offer.version)
    near = [each for offer in offers for each in offer.aliases if alias in each]
    raise ImageError(
        f"the image server has no {wanted} image {alias!r} for {architecture}",
        code="image_unknown",
        hint=_hint(named, near),
    )


def search(offers: Iterable[Offer], words: Sequence[str]) -> list[Offer]:
    """Offers that have every word in an alias, their architecture, type or description."""
    texts = [(offer, _text(offer)) for offer in offers]
    return [offer for offer, text in texts if all(word.lower() in text for word in words)]


def search_server(address: str, words: Sequence[str]) -> tuple[ImageOffer, ...]:
    """What the server at ``address`` has that all words are found in, by alias.

    :raises ImageError: it cannot be reached within ``_SEARCH_SECONDS``, or its index not be read.
    """
    address = address.removeprefix(SCHEME).partition("#")[0].rstrip("/")
    until = time.monotonic() + _SEARCH_SECONDS
    task = Task(lambda *_: None, lambda: time.monotonic() > until)
    with tempfile.TemporaryDirectory(prefix="virtmgr-") as scratch:
        try:
            found = search(fetch_offers(address, Path(scratch), task), words)
        except ImageError as error:
            if error.code != "image_cancelled":
                raise
            raise ImageError(
                f"search the image server {address}: its index did not come within "
                f"{_SEARCH_SECONDS} seconds",
                code="image_unreachable",
                hint="try again, or give the alias without a search",
            ) from error
    offers = [
        ImageOffer(
            alias=offer.aliases[0],
            aliases=offer.aliases,
            type=offer.type,
            architecture=offer.architecture,
            version=offer.version,
            size=offer.file.size,
            description=offer.description,
        )
        for offer in found
        if offer.aliases
    ]
    return tuple(sorted(offers, key=lambda offer: (offer.alias, offer.architecture, offer.type)))


def _text(offer: Offer) -> str:
    return " ".join((*offer.aliases, offer.architecture, offer.type, offer.description)).lower()


def _hint(named: Sequence[Offer], near: Sequence[str]) -> str:
    if named:
        has = sorted({f"{offer.type} for {offer.architecture}" for offer in named})
        return f"It has: {', '.join(has)}. A VM's disk is asked for by --format qcow2."
    if near:
        return f"It has {', '.join(list(dict.fromkeys(near))[:5])}."
    return "virtmgr image search URL lists what it has."


def _offer(product: _Product, type_: ImageType) -> Offer | None:
    for name in sorted(product.versions, reverse=True):
        every = product.versions[name].items.values()
        items = {item.ftype: item for item in every}
        for format_ in _FORMATS[type_]:
            item = items.get(format_)
            if item is not None and item.sha256 and item.path:
                return Offer(
                    aliases=tuple(alias for alias in product.aliases.split(",") if alias),
                    architecture=_ARCHITECTURES.get(product.arch, product.arch),
                    type=type_,
                    description=" ".join(
                        filter(None, (product.os, product.release, product.variant))
                    ),
                    version=name,
                    file=_remote(item),
                    combined=_combined(every, format_),
                )
    return None


def _combined(items: Iterable[_Item], format_: str) -> Combined | None:
    for name in _COMBINED[format_]:
        for item in items:
            if item.combined.get(name) and item.path:
                return Combined(_remote(item), item.combined[name])
    return None


def _remote(item: _Item) -> RemoteFile:
    _check_path(item.path)
    return RemoteFile(item.path, item.size, item.sha256)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path.isprintable() or ".." in parts or path.startswith("/") or ":" in parts[0]:
        raise _refuse(f"it names the file {path[:80]!r}")
    if any(char in path for char in "?#\\"):
        raise _refuse(f"it names the file {path[:80]!r}")


def _fetch(address: str, path: str, target: Path, task: Task) -> bytes:
    target.unlink(missing_ok=True)
    download(f"{address}/{path}", target, limit=_LARGEST_DOCUMENT, task=task)
    return read_document(target, _LARGEST_DOCUMENT)


def _parse(model: type[_T], content: bytes, what: str) -> _T:
    try:
        return model.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise _refuse(f"its {what} cannot be read: {why[:200]}") from error


def _refuse(why: str) -> ImageError:
    return ImageError(f"the image server is refused: {why}", code="image_refused")
