"""Which images of a host go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtmgr.domain.image import ContainerConfig, ImageManifest, ImageType
from virtmgr.domain.image_keeping import KeptImage, is_nearly_full, to_remove
from virtmgr.domain.sync import ObservedPool

NOW = datetime(2026, 5, 4, tzinfo=UTC)
DAY = timedelta(hours=24)
MANIFEST = ImageManifest(type=ImageType.CONTAINER, config=ContainerConfig.model_validate({}))
IDS = st.frozensets(st.sampled_from("abcde"))


@given(
    ages=st.dictionaries(st.sampled_from("abcde"), st.floats(-1, 100)),
    needed=IDS,
    unknown=IDS,
    at_once=st.booleans(),
)
def test_the_rule(
    ages: dict[str, float], needed: frozenset[str], unknown: frozenset[str], at_once: bool
) -> None:
    images = {
        id: KeptImage(MANIFEST, NOW - timedelta(hours=age), whole=True) for id, age in ages.items()
    }
    gone = to_remove(images, needed=needed, unknown=unknown, now=NOW, keep_for=DAY, at_once=at_once)
    assert not gone & needed
    assert gone <= set(images)
    for id in set(images) - needed:
        assert (id in gone) == (at_once or id in unknown or ages[id] >= 24)


def test_a_pool_is_nearly_full_from_a_share_on() -> None:
    def pool(used: int) -> ObservedPool:
        return ObservedPool(name="default", path="/pool", capacity=100, used=used)

    assert not is_nearly_full([])
    assert not is_nearly_full([pool(89)])
    assert is_nearly_full([pool(10), pool(90)])
