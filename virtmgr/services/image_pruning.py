"""Removing what is not needed of images: from hosts, and from the control plane's own store.

Hosts do it by themselves in time (``domain/image_keeping.py``); this asks for it now. What a host
has is what it said last, so what it really removes may differ a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from virtmgr.domain.host import Host
from virtmgr.domain.image import Image
from virtmgr.domain.values import Reference, Value
from virtmgr.services import hosts
from virtmgr.services.context import Context
from virtmgr.services.image_worker import Unused, blobs_change, collect, unused


class ImagePrune(Value):
    """Where to remove what is not needed."""

    host: Reference | None = Field(
        None, description="Only on this host, by name or id. Default: everywhere."
    )


@dataclass(frozen=True)
class Pruned:
    """What goes: images by host, and from the control plane's store unless only a host was asked
    for."""

    images: Sequence[tuple[Host, Sequence[Image]]]
    store: Unused | None


def prune(context: Context, fields: ImagePrune) -> Pruned:
    """Ask hosts to remove the images that none of their workloads needs, whatever their age, and
    remove the blobs that no image needs.

    :raises NotFound: there is no such host.
    """
    asked = None if fields.host is None else hosts.find(context, fields.host, "host")
    images = _unneeded(context, asked)
    told = {host.id for host, _ in images} if asked is None else {asked.id}
    context.uow.hosts.ask_to_prune(told)
    for host_id in sorted(told):
        context.uow.after_commit(partial(context.services.wake_host, host_id))
    for host, some in images:
        names = ", ".join(image.name for image in some)
        context.record("host.pruned", host, f"asked to remove images {names}", host_id=host.id)
    if asked is not None:
        return Pruned(images, None)
    blobs_change(context.uow, context.now)
    store = unused(context.services, context.uow, context.now)
    context.uow.after_commit(partial(collect, context.services))
    return Pruned(images, store)


def _unneeded(context: Context, host: Host | None) -> Sequence[tuple[Host, Sequence[Image]]]:
    """Images that no workload of their host needs, by host, both by name."""
    rows = context.uow.hosts.unneeded_images(None if host is None else host.id)
    by_host: dict[str, list[Image]] = {}
    for host_id, image_id in rows:
        image = context.uow.images.get(image_id)
        if image is not None:
            by_host.setdefault(host_id, []).append(image)
    found = [(each, by_host[each.id]) for id in by_host if (each := context.uow.hosts.get(id))]
    for _, images in found:
        images.sort(key=lambda image: image.name)
    return sorted(found, key=lambda pair: pair[0].name)
