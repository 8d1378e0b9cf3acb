"""Every parser of what is not trusted refuses or reads; nothing else ever comes out of it.

A few seconds here; more with ``HYPOTHESIS_EXAMPLES=100000``, and guided by ``scripts/fuzz``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, found, run

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "100"))
BOUNDED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
_INTERESTING = [b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8), b"\x80" + bytes(7), b"7" * 11, b".."]


@st.composite
def mutations(draw: st.DrawFn, seed: bytes) -> bytes:
    """A sound input with some bytes replaced, put in, taken out, or said again."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.one_of(st.binary(min_size=1, max_size=12), st.sampled_from(_INTERESTING)))
        match draw(st.sampled_from(("replace", "insert", "delete", "repeat", "cut"))):
            case "replace":
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = piece
            case "delete":
                del data[at : at + draw(st.integers(1, 600))]
            case "repeat":
                data[at:at] = data[at : at + 512]
            case _:
                del data[at:]
    return bytes(data)


def with_sums(data: bytes) -> bytes:
    """Tar headers' checksums made right, so that what is in them is looked at."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - 511, 512):
        block = fixed[at : at + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 0x20
            fixed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(fixed)


@pytest.mark.parametrize("name", TARGETS)
@BOUNDED
@given(data=st.data())
def test_mutations(name: str, data: st.DataObject) -> None:
    changed = data.draw(mutations(data.draw(st.sampled_from(TARGETS[name].seeds))))
    run(name, changed)
    run(name, with_sums(changed))


_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\0", "../../etc/passwd", "sha256:" + "0" * 64, "\ud800", 10**400]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn, seed: Any) -> Any:
    """A sound document with one or more of its parts replaced by any other value."""
    if draw(st.integers(0, 5)) == 0:
        return draw(_VALUES)
    if isinstance(seed, dict) and seed:
        key = draw(st.sampled_from(sorted(seed)))
        return {**seed, key: draw(documents(seed[key]))}
    if isinstance(seed, list) and seed:
        at = draw(st.integers(0, len(seed) - 1))
        return [*seed[:at], draw(documents(seed[at])), *seed[at + 1 :]]
    return draw(_VALUES)


JSON_TARGETS = ("layout", "simplestreams")


@pytest.mark.parametrize("name", JSON_TARGETS)
@BOUNDED
@given(data=st.data())
def test_documents(name: str, data: st.DataObject) -> None:
    seed = json.loads(data.draw(st.sampled_from(TARGETS[name].seeds)))
    run(name, json.dumps(data.draw(documents(seed))).encode())


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name in TARGETS for path in found(name)]
)
def test_what_was_found_once(name: str, path: Path) -> None:
    run(name, path.read_bytes())
