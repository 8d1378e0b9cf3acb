"""Images as the API shows them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.schemas.common import ReferenceView
from virtmgr.domain.host import Host
from virtmgr.domain.image import Image, ImageManifest, ImageState, ImageType
from virtmgr.ports.images import ImageOffer
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.image_pruning import Pruned
from virtmgr.services.image_worker import Unused


class ImageView(View):
    """What a workload starts from."""

    id: str
    name: str
    aliases: list[str]
    type: ImageType | None = Field(description="null: not known yet.")
    state: ImageState
    failure: str | None = Field(description="Why its import or build failed.")
    source: str
    architecture: str | None
    digest: str | None = Field(description="Identifies the content as a whole.")
    size: int = Field(description="Bytes of all blobs together.")
    manifest: ImageManifest | None
    labels: dict[str, str]
    description: str
    protected: bool = Field(description="It is not deleted.")
    created_at: datetime
    version: int


class ListedImageView(ImageView):
    """An image, and on how many hosts it is."""

    at_hand: int = Field(description="How many hosts have it at hand.")


class ShownImageView(ImageView):
    """An image with the hosts that it is on."""

    hosts: list[ReferenceView] = Field(description="Those that have it at hand, by name.")


class HeldImageView(ReferenceView):
    """An image on a host."""

    size: int = Field(description="Bytes of all blobs together.")


class PrunedHostView(View):
    """What a host is to remove."""

    host: ReferenceView
    images: list[HeldImageView]


class PrunedStoreView(View):
    """What is removed from the control plane's store."""

    blobs: int = Field(description="That no image needs.")
    leftovers: int = Field(description="Of uploads and imports that were cut off.")
    size: int = Field(description="Bytes of both.")
    busy: bool = Field(description="Images are being made: nothing is removed now.")


class PrunedView(View):
    """What is removed, as far as the inventory knows."""

    hosts: list[PrunedHostView]
    store: PrunedStoreView | None = Field(description="null: only a host was asked for.")
    size: int = Field(description="Bytes in all, at most: images may share blobs.")


class OfferView(View):
    """An image that a server has; import it as simplestreams:SERVER#ALIAS."""

    alias: str
    aliases: list[str] = Field(description="All of them; any will do.")
    type: ImageType = Field(description="container, or disk: import that with format qcow2.")
    architecture: str
    version: str
    size: int = Field(description="Bytes.")
    description: str


class OffersView(View):
    """What was found on an image server, by alias."""

    items: list[OfferView]
    total: int = Field(description="How many were found, whatever the limit.")


def present_offers(offers: Sequence[ImageOffer], limit: int) -> OffersView:
    """The first of the offers."""
    shown = [OfferView(**dataclasses.asdict(offer)) for offer in offers[:limit]]
    return OffersView(items=shown, total=len(offers))


def present(image: Image) -> ImageView:
    return ImageView(
        id=image.id,
        name=image.name,
        aliases=list(image.aliases),
        type=image.type,
        state=image.state,
        failure=image.failure,
        source=image.source,
        architecture=None if image.manifest is None else image.manifest.architecture,
        digest=image.digest,
        size=image.size,
        manifest=image.manifest,
        labels=image.labels,
        description=image.description,
        protected=image.protected,
        created_at=image.created_at,
        version=image.version,
    )


def image_presenter(uow: UnitOfWork, images: Sequence[Image]) -> Callable[[Image], ListedImageView]:
    """How to present these images; one query for all of them."""
    by_host = uow.hosts.images_at_hand([image.id for image in images])
    counts = Counter(id for held in by_host.values() for id in held)

    def present_listed(image: Image) -> ListedImageView:
        return ListedImageView(**dict(present(image)), at_hand=counts[image.id])

    return present_listed


def present_fully(image: Image, hosts: Sequence[Host]) -> ShownImageView:
    shown = [ReferenceView(id=host.id, name=host.name) for host in hosts]
    return ShownImageView(**dict(present(image)), hosts=shown)


def present_pruned(pruned: Pruned) -> PrunedView:
    hosts = [
        PrunedHostView(
            host=ReferenceView(id=host.id, name=host.name),
            images=[HeldImageView(id=one.id, name=one.name, size=one.size) for one in images],
        )
        for host, images in pruned.images
    ]
    store = None if pruned.store is None else _present_store(pruned.store)
    sizes = [image.size for each in hosts for image in each.images]
    return PrunedView(hosts=hosts, store=store, size=sum(sizes) + (store.size if store else 0))


def _present_store(store: Unused) -> PrunedStoreView:
    return PrunedStoreView(
        blobs=len(store.blobs),
        leftovers=len(store.leftovers),
        size=sum(b.size for b in store.blobs) + sum(left.size for left in store.leftovers),
        busy=store.busy,
    )
