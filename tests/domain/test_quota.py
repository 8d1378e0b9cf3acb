"""Quotas: what a workload takes, and which limit it would pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.image import ImageType
from virtmgr.domain.project import Quota
from virtmgr.domain.quota import RESOURCES, amounts_of, check
from virtmgr.domain.workload import GIB, MIB, Kind, RootDisk, WorkloadSpec


def test_what_a_workload_takes() -> None:
    spec = WorkloadSpec.model_validate(
        {
            "name": "web1",
            "kind": "container",
            "init": "app",
            "image": "nginx",
            "resources": {"vcpus": 0.5, "memory": "256MiB"},
        }
    )
    assert amounts_of(spec, ImageType.CONTAINER, addresses=2) == {
        "workloads": 1,
        "vcpus": 0.5,
        "memory": 256 * MIB,
        "disk": 2 * GIB,
        "addresses": 2,
    }


def test_a_kernel_image_takes_a_disk_only_where_one_is_asked_for() -> None:
    spec = WorkloadSpec(name="vm1", kind=Kind.VM, image="busybox")
    disks = {image: amounts_of(spec, image, addresses=1)["disk"] for image in (None, *ImageType)}
    assert disks.pop(ImageType.KERNEL) == 0
    assert set(disks.values()) == {10 * GIB}
    sized = spec.model_copy(update={"root_disk": RootDisk(size=GIB)})
    assert amounts_of(sized, ImageType.KERNEL, addresses=1)["disk"] == GIB


def test_the_first_limit_that_would_be_passed_is_told_in_numbers() -> None:
    quota = Quota(project_id="p", limit_memory=4 * GIB, used_memory=3 * GIB, limit_disk=0)
    excess = check(quota, {"disk": GIB, "memory": 2 * GIB})
    assert excess is not None
    error = excess.error("shop")
    assert error.message == (
        "the quota of project 'shop' is exceeded: memory: 3GiB of 4GiB used, 2GiB asked"
    )
    assert error.detail == {
        "resource": "memory",
        "used": 3 * GIB,
        "asked": 2 * GIB,
        "limit": 4 * GIB,
    }


def test_fractions_fill_a_limit_exactly() -> None:
    quota = Quota(project_id="p", limit_vcpus=0.3, used_vcpus=0.1 + 0.1)
    assert check(quota, {"vcpus": 0.1}) is None
    assert check(quota, {"vcpus": 0.11}) is not None


def test_giving_back_passes_even_over_the_limit() -> None:
    quota = Quota(project_id="p", limit_volumes=1, used_volumes=3)
    assert check(quota, {"volumes": -1}) is None
    assert check(quota, {"volumes": 0}) is None
    assert check(quota, {"volumes": 1}) is not None


def test_what_no_quota_limits_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="gpus"):
        check(Quota(project_id="p"), {"gpus": 1})


@given(
    st.dictionaries(
        st.sampled_from(RESOURCES),
        st.tuples(st.none() | st.integers(0, 9), st.integers(0, 9), st.integers(-3, 5)),
    )
)
def test_it_passes_exactly_when_no_growing_sum_is_over_its_limit(
    given: dict[str, tuple[int | None, int, int]],
) -> None:
    quota = Quota(project_id="p")
    for resource, (limit, used, _) in given.items():
        setattr(quota, f"limit_{resource}", limit)
        setattr(quota, f"used_{resource}", used)
    over = [
        resource
        for resource in RESOURCES
        if resource in given
        for limit, used, asked in [given[resource]]
        if limit is not None and asked > 0 and used + asked > limit
    ]
    excess = check(quota, {resource: asked for resource, (_, _, asked) in given.items()})
    assert (excess.resource if excess else None) == (over[0] if over else None)
