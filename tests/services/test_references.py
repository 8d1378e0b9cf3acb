"""What a workload claims, from its spec and what it refers to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.store.inventory import Inventory
from virtmgr.domain.host import Cluster
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import ImageState, ImageType
from virtmgr.domain.workload import GIB, Kind, RootDisk, WorkloadSpec
from virtmgr.services.references import References, placement_request

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("image_type", "size", "claim"),
    [
        (ImageType.DISK, None, 10 * GIB),
        (ImageType.ISO, None, 10 * GIB),
        (ImageType.KERNEL, None, 0),
        (ImageType.KERNEL, GIB, GIB),
    ],
)
def test_a_root_disk_is_claimed_as_it_is_made(
    image_type: ImageType, size: int | None, claim: int
) -> None:
    image = Inventory().make_image(name="image", type=image_type, state=ImageState.READY)
    spec = WorkloadSpec(name="vm1", kind=Kind.VM, image="image", root_disk=RootDisk(size=size))
    references = References(
        spec=spec,
        cluster=Cluster(id=new_id(), name="default", created_at=NOW),
        host=None,
        image=image,
        cdrom=None,
        networks=(),
        volumes=(),
    )
    assert placement_request(new_id(), new_id(), references).disk == claim
