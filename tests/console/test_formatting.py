"""Values as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.console.browser import Viewer
from virtmgr.console import formatting
from virtmgr.console.rest import Refusal

SPANS = {
    0.4: "0 s",
    59: "59 s",
    61: "1 min",
    3_700: "1 h 1 min",
    90_000: "1 d 1 h",
    364 * 86_400: "364 d",
    3_650 * 86_400: "10 y",
    -400 * 86_400: "1 y 35 d",
}


@pytest.mark.parametrize(("seconds", "words"), SPANS.items())
def test_a_span_has_at_most_two_units(seconds: float, words: str) -> None:
    assert formatting.span(seconds) == words


def test_scripts_say_spans_as_pages_do(viewer: Viewer) -> None:
    viewer.open("/")
    script = "document.querySelector('script[src*=\"/console.js\"]').src"
    found = viewer.page.evaluate(
        f"""async (all) => {{
          const {{ span }} = await import({script}.replace("console.js", "format.js"));
          return all.map(span);
        }}""",
        list(SPANS),
    )
    assert found == list(SPANS.values())


def test_an_age_says_when_for_scripts() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    told = formatting.age(now - timedelta(minutes=3), now)
    assert 'datetime="2026-01-01T11:57:00+00:00"' in told
    assert "data-age>3 min ago<" in told
    assert ">in 3 min<" in formatting.age(now + timedelta(minutes=3), now)
    assert ">now<" in formatting.age(now, now)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot stop workload 'a'", "Cannot stop workload 'a'"),
        ("web1: it is protected", "web1: it is protected"),
        ("'lots' is no size", "'lots' is no size"),
        ("10.0.0.0/8 overlaps", "10.0.0.0/8 overlaps"),
        ("", ""),
    ],
)
def test_sentences_begin_as_such(text: str, shown: str) -> None:
    assert formatting.sentence(text) == shown


def test_where_fields_are_wrong_they_say_it_themselves() -> None:
    wrong = {"field": "size", "code": "x", "message": "is no size"}
    problem = {"detail": "the request is not valid: size: is no size", "hint": "h"}
    refusal = Refusal(422, {**problem, "errors": [wrong]})
    assert (str(refusal), refusal.hint) == ("size: is no size", None)
    assert dict(refusal.fields) == {"size": "is no size"}
    assert Refusal(409, problem).hint == "h"


def test_numbers_are_whole_however_large() -> None:
    assert formatting.number(106_161_654) == "106161654"
    assert [formatting.number(value) for value in (2.0, 0.5, None)] == ["2", "0.5", "–"]
