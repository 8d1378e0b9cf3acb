"""Routes of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response
from pydantic import Field

from virtmgr.api.answers import Answer, Listing, Started, listing
from virtmgr.api.conventions import ListParameters, StartQuery
from virtmgr.api.dispatch import RawRequest, answer_view
from virtmgr.api.merge_patch import Patch
from virtmgr.api.routing import Route, change, delete, raw, read, start, upload
from virtmgr.api.schemas.images import (
    ImageView,
    ListedImageView,
    OffersView,
    PrunedView,
    ShownImageView,
    image_presenter,
    present,
    present_fully,
    present_offers,
    present_pruned,
)
from virtmgr.api.uploads import Upload
from virtmgr.domain.access import Action
from virtmgr.domain.image import Digest, Image, ImageState, ImageType
from virtmgr.domain.operation import Operation
from virtmgr.domain.values import ImageName, Value
from virtmgr.domain.workload import Init
from virtmgr.services import image_pruning, images
from virtmgr.services.context import Context
from virtmgr.services.image_pruning import ImagePrune
from virtmgr.services.images import Format, ImageBuild, ImageFields, ImageImport


class ImageParameters(ListParameters):
    """Filters of the list."""

    type: ImageType | None = Field(None, description="container, disk, iso or kernel.")
    state: ImageState | None = Field(None, description="importing, ready or failed.")


class UploadQuery(StartQuery):
    """What the uploaded file is to become."""

    name: ImageName = Field(description="Unique among all images' names and aliases.")
    format: Format | None = None
    checksum: Digest | None = Field(None, description="sha256:… of the file.")
    init: Init | None = Field(None, description="Containers: app or system. Default: by content.")


class SearchBody(Value):
    """What to look for on an image server."""

    server: str = Field(
        max_length=512, pattern=r"^https?://[^\s#]+$", description="Its address, http(s)://HOST."
    )
    words: tuple[str, ...] = Field(
        (), max_length=8, description="All must be in an alias, architecture, type or description."
    )
    limit: int = Field(100, ge=1, le=500, description="At most so many are told.")


def _answer(image: Image) -> Answer[ImageView]:
    return Answer(present(image), image.version, f"/images/{image.id}")


def _started(context: Context, operation: Operation) -> Started:
    def would() -> Mapping[str, Any]:
        image = images.find(context, operation.target_id)
        return {"image": present(image).model_dump(mode="json")}

    return Started([operation], would=would)


def list_(context: Context, query: ImageParameters) -> Answer[Listing[ListedImageView]]:
    """List images"""
    page = images.list_(context, query.query())
    return listing(page, image_presenter(context.uow, page.items))


def show(context: Context, image: str) -> Answer[ShownImageView]:
    """Show an image, and which hosts have it at hand"""
    found = images.find(context, image)
    hosts = context.uow.hosts.with_image(found.id)
    return Answer(present_fully(found, hosts), found.version, f"/images/{found.id}")


def patch(context: Context, image: str, patch: Patch[ImageFields]) -> Answer[ImageView]:
    """Change an image's name, aliases, labels, description or protection (JSON merge patch)"""
    found = images.lock(context, image)
    current = ImageFields.model_validate(found, from_attributes=True)
    return _answer(images.update(context, found, patch.apply(current)))


def remove(context: Context, image: str) -> Answer[ImageView]:
    """Delete an image that no workload uses; one that is being made is cancelled"""
    return _answer(images.delete(context, image))


def import_(context: Context, body: ImageImport) -> Started:
    """Import an image from a registry or a URL"""
    return _started(context, images.begin_import(context, body))


def build(context: Context, body: ImageBuild) -> Started:
    """Build an image from a distribution's packages"""
    return _started(context, images.begin_build(context, body))


def take_upload(context: Context, query: UploadQuery, upload: Upload) -> Started:
    """Import an image from the file that is the request's body"""
    asked = query.model_dump(mode="json", include={"format", "checksum", "init"})
    fields = ImageFields(name=query.name)
    return _started(context, images.begin_upload(context, fields, upload.id, asked))


def prune(context: Context, body: ImagePrune) -> Answer[PrunedView]:
    """Let hosts remove the images that none of their workloads needs, and remove unused blobs"""
    return Answer(present_pruned(image_pruning.prune(context, body)))


def search(call: RawRequest, body: SearchBody) -> Response:
    """Ask an image server of LXD or Incus what it has"""
    offers = call.services.search_images(body.server, body.words)
    return answer_view(present_offers(offers, body.limit))


_ONE = "/images/{image}"

ROUTES: tuple[Route, ...] = (
    read("/images", list_, Action.IMAGES_VIEW),
    start("POST", "/images/import", import_, Action.IMAGES_CREATE),
    start("POST", "/images/build", build, Action.IMAGES_CREATE),
    upload("/images/upload", take_upload, Action.IMAGES_CREATE),
    change("POST", "/images/prune", prune, Action.IMAGES_DELETE),
    raw("POST", "/images/search", search, Action.IMAGES_CREATE, answers={200: OffersView}),
    read(_ONE, show, Action.IMAGES_VIEW),
    change("PATCH", _ONE, patch, Action.IMAGES_UPDATE),
    delete(_ONE, remove, Action.IMAGES_DELETE),
)
