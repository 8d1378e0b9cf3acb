"""Images: the inventory's side of importing, building, naming and deleting them.

The work itself is done by ``image_worker`` in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr

from virtmgr.domain.errors import Conflict, InvalidRequest, NotFound
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Digest, Image, ImageState, ImageType
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.registry import SCHEME, credentials_document, parse_reference
from virtmgr.domain.values import ImageName, Labels, Value
from virtmgr.domain.workload import Init, Kind
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import partial_uploads
from virtmgr.services.context import Context
from virtmgr.services.image_worker import (
    ImageWorker,
    blobs_change,
    private_files,
    remove_unused,
)
from virtmgr.services.in_use import refuse_in_use
from virtmgr.services.operation_end import end

__all__ = ["ImageWorker"]

_SCHEMES: Final = (
    "docker://",
    "http://",
    "https://",
    "simplestreams:https://",
    "simplestreams:http://",
)
_UPLOAD: Final = "upload:"
_TYPE_OF_FORMAT: Final = {
    "qcow2": ImageType.DISK,
    "raw": ImageType.DISK,
    "iso": ImageType.ISO,
    "tar": ImageType.CONTAINER,
    "oci": ImageType.CONTAINER,
    "docker-archive": ImageType.CONTAINER,
}
Format = Annotated[
    str,
    Field(
        pattern="^(" + "|".join(_TYPE_OF_FORMAT) + ")$",
        description="What it must be: qcow2, raw, iso, tar, oci or docker-archive. Default: what "
        "its content says.",
    ),
]


class ImageFields(Value):
    """What can be changed of an image."""

    name: ImageName = Field(description="Unique among all images' names and aliases.")
    aliases: tuple[ImageName, ...] = Field((), max_length=64, description="Further names.")
    labels: Labels = Field(default_factory=dict, description="Key and value pairs to select by.")
    description: str = Field("", max_length=1024, description="Free text.")
    protected: bool = Field(False, description="It is not deleted until this is false again.")


class RegistryAuth(Value):
    """Who asks the registry; kept in no row, no log and no argument, and only until the end."""

    username: str = Field(min_length=1, max_length=256, pattern="^[^:\x00-\x1f]+$")
    password: SecretStr = Field(description="A password or a token.", max_length=8192)


class ImageImport(ImageFields):
    """An image to import from a registry or a URL."""

    source: str = Field(
        min_length=1,
        max_length=2048,
        description="docker://HOST/NAME:TAG, an http(s) URL of a disk, ISO or archive, or "
        "simplestreams:https://HOST#ALIAS for an image server of LXD or Incus, or upload:ID for "
        "what came by /images/uploads.",
    )
    format: Format | None = None
    checksum: Digest | None = Field(None, description="sha256:… of a URL's content.")
    init: Init | None = Field(None, description="Containers: app or system. Default: by content.")
    architecture: str | None = Field(
        None, max_length=32, pattern=r"^[a-z0-9_]+$", description="Default: the control plane's."
    )
    insecure_registry: bool = Field(
        False, description="Allow plain HTTP, or a certificate that nobody vouches for."
    )
    registry_auth: RegistryAuth | None = Field(
        None, description="Default: what the control plane's registry-auth.json has."
    )


class ImageBuild(ImageFields):
    """An image to build from a distribution's packages."""

    distribution: str = Field(
        max_length=32, pattern=r"^[a-z0-9-]+$", description="debian, or busybox (tiny)."
    )
    suite: str = Field(
        "bookworm", max_length=32, pattern=r"^[a-z0-9-]+$", description="The release."
    )
    kind: Kind = Field(Kind.CONTAINER, description="For vm or container.")
    init: Init | None = Field(None, description="Containers: app or system.")
    mirror: str | None = Field(
        None, max_length=512, pattern=r"^https?://[^\s]+$", description="Default: the host's own."
    )


def list_(context: Context, query: ListQuery) -> Page[Image]:
    """All images."""
    return context.uow.images.list(query)


def find(context: Context, reference: str) -> Image:
    """The image with this id, name or alias.

    :raises NotFound: there is none.
    """
    image = context.uow.images.find(reference)
    if image is None:
        raise NotFound(f"image {reference!r} does not exist")
    return image


def lock(context: Context, reference: str) -> Image:
    """The same, to be changed."""
    found = context.uow.images.find(reference)
    return context.for_change(context.uow.images, found, f"image {reference!r}")


def begin_import(context: Context, fields: ImageImport) -> Operation:
    """An image that the worker is to import.

    :raises NameTaken: another image has the name or alias.
    """
    if fields.source.startswith(_UPLOAD):
        return _begin_uploaded(context, fields)
    if not fields.source.startswith(_SCHEMES):
        raise InvalidRequest(
            f"{fields.source!r} cannot be imported: it is neither docker:// nor http(s):// nor "
            "simplestreams:https://",
            field="source",
            hint="upload files with POST /images/upload or /images/uploads",
        )
    hidden = {*ImageFields.model_fields, "registry_auth"}
    asked = fields.model_dump(mode="json", exclude=hidden)
    if fields.registry_auth is not None:
        asked["credentials"] = _keep_credentials(context, fields.source, fields.registry_auth)
    return begin(context, fields, fields.source, "import", {**asked, "type": _type(fields.format)})


def _begin_uploaded(context: Context, fields: ImageImport) -> Operation:
    """An upload in parts is the worker's once the request is committed."""
    part = partial_uploads.require_whole(context.services, fields.source.removeprefix(_UPLOAD))
    blobs, id = context.services.blobs, new_id()

    def take() -> None:
        with suppress(FileNotFoundError):  # imported by another request already
            blobs.upload_path(part.id).rename(blobs.upload_path(id))

    context.uow.after_commit(take)
    names = {"format", "checksum", "init", "architecture"}
    asked = fields.model_dump(mode="json", include=names)
    return begin_upload(context, fields, id, asked)


def _keep_credentials(context: Context, source: str, auth: RegistryAuth) -> str:
    """Hand them to the worker in a private file; its id."""
    if not source.startswith(SCHEME):
        raise InvalidRequest(
            "only registries (docker://) take registry_auth", field="registry_auth"
        )
    host = parse_reference(source).host
    content = credentials_document(host, auth.username, auth.password.get_secret_value())
    id = new_id()
    context.uow.after_commit(lambda: context.services.blobs.keep_private(id, content))
    return id


def begin_build(context: Context, fields: ImageBuild) -> Operation:
    """An image that the worker is to build."""
    asked = fields.model_dump(mode="json", exclude=set(ImageFields.model_fields))
    source = f"build:{fields.distribution}/{fields.suite}/{fields.kind.value}"
    return begin(context, fields, source, "build", asked)


def begin_upload(
    context: Context, fields: ImageFields, upload_id: str, asked: Mapping[str, Any]
) -> Operation:
    """An image that the worker is to import from an uploaded file."""
    parameters = {**asked, "type": _type(asked.get("format")), "upload": upload_id}
    return begin(context, fields, f"upload:{fields.name}", "import", parameters)


def _type(format: str | None) -> str | None:
    return None if format is None else _TYPE_OF_FORMAT[format].value


def begin(
    context: Context, fields: ImageFields, source: str, verb: str, parameters: Mapping[str, Any]
) -> Operation:
    """An image that the worker is to make by ``verb``.

    :raises NameTaken: another image has the name or alias.
    """
    _replace_failed(context, (fields.name, *fields.aliases))
    image = Image(
        id=new_id(),
        name=fields.name,
        type=None,
        state=ImageState.IMPORTING,
        source=source,
        manifest=None,
        digest=None,
        size=0,
        aliases=list(dict.fromkeys(fields.aliases)),
        labels=dict(fields.labels),
        description=fields.description,
        protected=fields.protected,
        created_at=context.now,
    )
    context.uow.images.add(image)
    operation = context.begin(verb, "image", image, parameters=parameters)
    message = f"{verb} of image {image.name} was requested"
    context.record("image.created", image, message, operation_id=operation.id)
    return operation


def _replace_failed(context: Context, names: Iterable[str]) -> None:
    """An image that was never made keeps no name from one that is: it goes, id and all."""
    for name in names:
        found = context.uow.images.find(name)
        if found is None or found.state is not ImageState.FAILED or name == found.id:
            continue
        failed = context.uow.images.lock(found.id)
        if failed is not None and failed.state is ImageState.FAILED:
            message = f"image {failed.name}, which had failed, is replaced by a new one"
            context.record("image.deleted", failed, message)
            context.uow.images.remove(failed)
            context.uow.flush()


def update(context: Context, image: Image, fields: ImageFields) -> Image:
    """Set the fields of a locked image.

    :raises NameTaken: another image has the name or alias.
    """
    image.name, image.labels = fields.name, dict(fields.labels)
    image.description, image.protected = fields.description, fields.protected
    context.uow.images.set_aliases(image, fields.aliases)
    context.record("image.updated", image, f"image {image.name} was changed")
    context.uow.flush()
    return image


def delete(context: Context, reference: str) -> Image:
    """Delete an image that no workload uses, with the blobs that no other image needs.

    One that is being imported is cancelled.

    :raises Conflict: workloads use it; they are named. Or (protected) it is protected.
    """
    blobs_change(context.uow, context.now)  # before the image, as who finishes one does
    image = lock(context, reference)
    if image.protected:
        raise Conflict(
            f"image {image.name!r} is protected: it is not deleted",
            code="protected",
            hint="set protected to false first",
        )
    users = ListQuery(filters={"image": image.id}, limit=10)
    cdroms = ListQuery(filters={"cdrom": image.id}, limit=10)
    pages = [context.uow.workloads.list(query) for query in (users, cdroms)]
    names = [workload.name for page in pages for workload in page.items]
    refuse_in_use(f"image {image.name!r}", workload=names)
    for operation in context.uow.operations.open_for(image.id):
        for path in private_files(context.services, operation):
            context.uow.after_commit(partial(path.unlink, missing_ok=True))
        end(operation, OperationState.CANCELLED, context.now, "the image was deleted")
    context.record("image.deleted", image, f"image {image.name} was deleted")
    blobs = () if image.manifest is None else image.manifest.blobs()
    context.uow.images.remove(image)
    context.uow.flush()
    digests = [blob.digest for blob in blobs]
    context.uow.after_commit(lambda: remove_unused(context.services, digests))
    return image
