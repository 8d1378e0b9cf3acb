"""Routes of a workload that the control plane relays itself: logs and files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response
from pydantic import Field

from virtmgr.api.conventions import Query
from virtmgr.api.dispatch import RawRequest
from virtmgr.api.routing import Route, raw
from virtmgr.domain.access import Action
from virtmgr.domain.streaming import Channel
from virtmgr.domain.workload import AbsolutePath
from virtmgr.ports.streams import AgentStream
from virtmgr.services import streams, workloads

_CHUNK = 65536


class LogsQuery(Query):
    """Which output."""

    follow: bool = Field(False, description="Go on as more comes.")
    tail: int | None = Field(None, ge=0, le=1_000_000, description="Only the last lines.")


class FilesQuery(Query):
    """Where in the workload."""

    path: AbsolutePath = Field(description="GET: file or directory. PUT: directory to unpack in.")


def logs(request: RawRequest, *, workload: str) -> Response:
    """Output of a workload, as text"""
    parameters = {"follow": request.query.follow, "tail": request.query.tail}
    stream = _open(request, workload, "logs", parameters)
    return Response(_content(stream), mimetype="text/plain")


def pull(request: RawRequest, *, workload: str) -> Response:
    """A file or directory of a workload, as a tar archive"""
    stream = _open(request, workload, "pull", {"path": request.query.path})
    return Response(_content(stream), mimetype="application/x-tar")


def push(request: RawRequest, *, workload: str) -> Response:
    """Unpack a tar archive in a directory of a workload"""
    stream = _open(request, workload, "push", {"path": request.query.path})
    try:
        while content := request.request.stream.read(_CHUNK):
            stream.send(Channel.STDIN, content)
        stream.send(Channel.CLOSE, bytes((Channel.STDIN,)))
        while (message := stream.receive()) is not None:
            _check_end(*message)
    finally:
        stream.close()
    return Response(status=204)


def _open(
    request: RawRequest, reference: str, action: str, parameters: dict[str, Any]
) -> AgentStream:
    assert request.project_id is not None  # the path has {project}
    with request.services.units(read_only=True) as uow:
        workload = uow.workloads.find(request.project_id, reference)
        if workload is None:
            raise workloads.unknown(reference)
        route = streams.direct(uow, workload, action, parameters)
    return request.services.dial(route.agent_url, route.host_id, route.request)


def _content(stream: AgentStream) -> Iterator[bytes]:
    """What comes, once the first message shows that there was no error."""
    first = stream.receive()
    if first is not None:
        _check_end(*first)

    def generate() -> Iterator[bytes]:
        message = first
        try:
            while message is not None and message[0] is Channel.STDOUT:
                yield message[1]
                message = stream.receive()
        finally:
            stream.close()

    return generate()


def _check_end(channel: Channel, content: bytes) -> None:
    if channel is Channel.END:
        streams.raise_problem(content)


_ONE = "/projects/{project}/workloads/{workload}"
_TAR = "application/x-tar"

ROUTES: tuple[Route, ...] = (
    raw(
        "GET",
        _ONE + "/logs",
        logs,
        Action.WORKLOADS_LOGS,
        query=LogsQuery,
        answers={200: "text/plain"},
    ),
    raw(
        "GET",
        _ONE + "/files",
        pull,
        Action.WORKLOADS_FILES,
        query=FilesQuery,
        answers={200: _TAR},
    ),
    raw(
        "PUT",
        _ONE + "/files",
        push,
        Action.WORKLOADS_FILES,
        query=FilesQuery,
        status=204,
        body_media_type=_TAR,
    ),
)
