"""What skopeo says, in words that help."""

from __future__ import annotations

import pytest

from virtmgr.domain.errors import ImageError
from virtmgr.images.skopeo import explained

SOURCE = "docker://127.0.0.1:5000/demo:v1"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("pinging container registry: dial tcp: connect: connection refused", "unreachable"),
        ("dial tcp: lookup registry.invalid: no such host", "unreachable"),
        ("http: server gave HTTP response to HTTPS client", "not_trusted"),
        ("tls: failed to verify certificate: x509: unknown authority", "not_trusted"),
        ("reading manifest v2 in 127.0.0.1:5000/demo: manifest unknown", "image_not_found"),
        ("requested access to the resource is denied", "denied"),
    ],
)
def test_causes_have_a_code_and_a_hint(said: str, code: str) -> None:
    line = f'time="2026-01-01T00:00:00Z" level=fatal msg="Error: \\"{SOURCE}\\": {said}"'
    error = explained(SOURCE, ImageError(f"skopeo failed (1) while copying:\n{line}"))
    assert error.code == f"registry_{code}"
    assert error.hint
    assert error.message == f'cannot copy {SOURCE}: Error: "{SOURCE}": {said}'


def test_what_is_not_understood_stays_as_it_is() -> None:
    unknown = ImageError("skopeo failed (2) while copying: panic")
    assert explained(SOURCE, unknown) is unknown
    other = explained(SOURCE, ImageError('level=fatal msg="something else"'))
    assert (other.code, other.message) == ("image_error", f"cannot copy {SOURCE}: something else")
