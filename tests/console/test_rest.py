"""The API asked in the same process: what is a name stays one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from virtmgr.console.rest import Refusal, Rest


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An API that answers with what it was asked."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [f'"{environ["REQUEST_METHOD"]} {environ["PATH_INFO"]}"'.encode()]


@pytest.mark.parametrize("name", [".", "..", "a b", "%2e", "a?b", "a#b"])
def test_a_name_is_one_segment_of_the_path(name: str) -> None:
    found = Rest(echo, None).get("/hosts/{host}/pools", host=name)
    assert found.document == f"GET /api/v1/hosts/{name}/pools"


@pytest.mark.parametrize("name", ["", "a/b", "../users", "x/cordon", "é", "日本"])
def test_what_would_be_another_path_is_not_there(name: str) -> None:
    with pytest.raises(Refusal) as refused:
        Rest(echo, None).ask("POST", "/hosts/{host}/drain", host=name)
    assert refused.value.status == 404
