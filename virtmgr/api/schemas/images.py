"""Images as the API shows them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.domain.image import Image, ImageManifest, ImageState, ImageType


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
    created_at: datetime
    version: int


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
        created_at=image.created_at,
        version=image.version,
    )
