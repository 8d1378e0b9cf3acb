from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drivers.oci.kit import RUNTIMES, OciKit, oci_kit


@pytest.fixture
def kit() -> Iterator[OciKit]:
    with oci_kit() as made:
        yield made


@pytest.fixture(params=RUNTIMES)
def each_runtime(request: pytest.FixtureRequest) -> Iterator[OciKit]:
    """A kit for what depends on the OCI runtime."""
    with oci_kit(runtime=request.param) as made:
        yield made
