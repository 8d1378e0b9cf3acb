"""Copying what a workload needs from its host to another: the control plane relays, keeps nothing.

Both agents talk to the control plane only, over the streams that they offer it (mutual TLS), so
hosts need no way to each other and no trust in each other. Neither is trusted: the target refuses
more than is expected, and what does not end with the right checksum.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from virtmgr.domain.errors import NotFound, Unavailable
from virtmgr.domain.host import Host
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.migration import Migration
from virtmgr.domain.streaming import Channel, StreamRequest
from virtmgr.domain.workload import GIB
from virtmgr.ports.streams import AgentStream
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import streams
from virtmgr.services.container import Services

_SLACK = GIB  # bytes: what formats add to what disks hold


class Cancelled(Exception):
    """The copy is not wanted any more."""


@dataclass(frozen=True)
class Copied:
    bytes: int


def carry(
    services: Services,
    migration: Migration,
    progress: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> Copied:
    """Copy everything; the target has it on its disk, checked, when this returns.

    May be repeated: the target starts again from nothing.

    :param progress: called with the bytes that have gone so far.
    :raises Cancelled: it was.
    :raises Unavailable: one of the hosts does not answer.
    :raises HostError: one of them refuses, or fails.
    """
    with services.units(read_only=True) as uow:
        workload = uow.workloads.get(migration.workload_id)
        if workload is None:
            raise NotFound("the workload that is to be moved is gone")
        source = _there(uow, migration.source_host_id)
        target = _there(uow, migration.target_host_id)
        volumes = uow.volumes.of_workload(workload.id)
        limit = 2 * workload.claim_disk + sum(volume.size for volume in volumes) + _SLACK
    about = {"arrival": migration.id, "limit": limit}
    give = StreamRequest(
        workload_id=workload.id, workload_name=workload.name, action="leave", parameters={}
    )
    take = StreamRequest(workload_id=workload.id, action="arrive", parameters=about)
    with (
        closing(services.dial(streams.stream_url(source), source.id, give)) as giving,
        closing(services.dial(streams.stream_url(target), target.id, take)) as taking,
    ):
        return Copied(_relay(giving, taking, progress, cancelled))


def _relay(
    giving: AgentStream,
    taking: AgentStream,
    progress: Callable[[int], None],
    cancelled: Callable[[], bool],
) -> int:
    copied = 0
    while True:
        if cancelled():
            raise Cancelled
        message = giving.receive()
        if message is None:
            raise Unavailable("the source's agent ended before all had come", code="copy_broke")
        channel, content = message
        if channel is Channel.END:
            streams.raise_problem(content)
            break
        try:
            taking.send(Channel.STDIN, content)
        except Unavailable:
            _raise_its_reason(taking)
            raise
        copied += len(content)
        progress(copied)
    taking.send(Channel.CLOSE, bytes((Channel.STDIN,)))
    _raise_its_reason(taking)
    return copied


def _raise_its_reason(taking: AgentStream) -> None:
    """Wait for what the target says at the end.

    :raises HostError: it refused.
    :raises Unavailable: it went away without a word.
    """
    message = taking.receive()
    if message is None or message[0] is not Channel.END:
        raise Unavailable("the target's agent ended before it had all", code="copy_broke")
    streams.raise_problem(message[1])
    if json.loads(message[1]).get("exit_code") != 0:
        raise Unavailable("the target's agent did not take all in", code="copy_broke")


def _there(uow: UnitOfWork, host_id: str | None) -> Host:
    host = uow.hosts.get(host_id) if host_id is not None else None
    if host is None or host.state in SILENT:
        raise Unavailable(
            f"host {host.name if host else host_id!r} does not answer",
            code="host_unreachable",
            hint="bring the host back, or move the workload elsewhere",
        )
    return host
