"""Routes of uploads in parts, after the IETF's draft-ietf-httpbis-resumable-upload."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response
from pydantic import Field

from virtmgr.api.answers import View
from virtmgr.api.dispatch import RawRequest, answer_view
from virtmgr.api.parsing import bad_request
from virtmgr.api.routing import Route, raw
from virtmgr.domain.access import Action
from virtmgr.domain.values import Value
from virtmgr.services import partial_uploads
from virtmgr.services.partial_uploads import LARGEST, PartialUpload

_PIECE = 64 * 1024  # the most that is lost of what came before a connection broke
MEDIA_TYPE = "application/partial-upload"


class UploadBegin(Value):
    """A file that is going to come."""

    key: str = Field(
        min_length=1, max_length=256, description="Stands for the file; the same finds it again."
    )
    size: int = Field(gt=0, le=LARGEST, description="Bytes of the whole file.")


class PartHeaders(Value):
    """Where a part belongs."""

    upload_offset: int = Field(
        ge=0, le=LARGEST, alias="Upload-Offset", description="The byte of the file to go on at."
    )


class UploadView(View):
    """How far an upload is. Once all has come, import it: source upload:ID."""

    id: str
    size: int = Field(description="Bytes of the whole file.")
    offset: int = Field(description="Bytes that have come; go on there.")


def _answer(upload: PartialUpload) -> Response:
    response = answer_view(UploadView(id=upload.id, size=upload.size, offset=upload.offset))
    response.headers["Upload-Offset"] = str(upload.offset)
    response.headers["Location"] = f"/api/v1/images/uploads/{upload.id}"
    return response


def begin(request: RawRequest, *, body: UploadBegin) -> Response:
    """Begin an upload, or find how far it is"""
    assert request.principal is not None
    user_id = request.principal.user_id
    return _answer(partial_uploads.begin(request.services, user_id, body.key, body.size))


def show(request: RawRequest, *, upload: str) -> Response:
    """How far an upload is, also in the header Upload-Offset"""
    return _answer(partial_uploads.find(request.services, upload))


def append(request: RawRequest, *, upload: str) -> Response:
    """Add to an upload from the byte that the header Upload-Offset says"""
    offset = request.request.headers.get("Upload-Offset", "")
    if not (offset.isascii() and offset.isdigit()):
        raise bad_request("the header Upload-Offset is missing", hint="send it with the body")
    return _answer(partial_uploads.append(request.services, upload, int(offset), _pieces(request)))


def discard(request: RawRequest, *, upload: str) -> Response:
    """Forget an upload, and what has come of it"""
    partial_uploads.discard(request.services, upload)
    return Response(status=204)


def _pieces(request: RawRequest) -> Iterator[bytes]:
    while piece := request.request.stream.read(_PIECE):
        yield piece


_ONE = "/images/uploads/{upload}"
_ANSWERS = {200: {"application/json": UploadView}}

ROUTES: tuple[Route, ...] = (
    raw("POST", "/images/uploads", begin, Action.IMAGES_CREATE, answers=_ANSWERS),
    raw("GET", _ONE, show, Action.IMAGES_CREATE, answers=_ANSWERS),
    raw("DELETE", _ONE, discard, Action.IMAGES_CREATE, status=204),
    raw(
        "PATCH",
        _ONE,
        append,
        Action.IMAGES_CREATE,
        headers=PartHeaders,
        body_media_type=MEDIA_TYPE,
        answers=_ANSWERS,
    ),
)
