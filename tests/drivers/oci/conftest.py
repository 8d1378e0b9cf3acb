from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drivers.oci.kit import OciKit, oci_kit


@pytest.fixture
def kit() -> Iterator[OciKit]:
    with oci_kit() as made:
        yield made
