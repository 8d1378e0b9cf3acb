"""Version, health, the documentation, and that it keeps its word."""

from __future__ import annotations

import re

import jsonschema
import pytest
from flask import Flask

from tests.api.contract import PREFIX, Api, Contract
from virtmgr import __version__
from virtmgr.api.problems import STATUS, status_of
from virtmgr.api.routes import ROUTES
from virtmgr.domain import errors


def test_version_and_health_need_no_token(anonymous: Api) -> None:
    assert anonymous.get("/version").body == {"version": __version__, "api": "v1"}
    assert anonymous.get("/health").body["status"] == "ok"


def test_the_schema_of_a_workload_documents_every_field(api: Api) -> None:
    schema = api.get("/schema/workload").body
    assert schema["title"] == "WorkloadSpec"
    assert schema["properties"]["name"]["description"]


def test_every_operation_is_documented(contract: Contract) -> None:
    document = contract.document
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert "401" in operation["responses"], where
            assert "application/problem+json" in operation["responses"]["422"]["content"], where
            assert any(status.startswith("2") for status in operation["responses"]), where
    assert sum(len(item) for item in document["paths"].values()) == len(ROUTES)


def test_every_reference_of_the_document_leads_somewhere(contract: Contract) -> None:
    text = str(contract.document)
    names = set(re.findall(r"'#/components/schemas/([^']+)'", text))
    schemas = contract.document["components"]["schemas"]
    assert names <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_documentation_needs_no_network(app: Flask) -> None:
    client = app.test_client()
    page = client.get(PREFIX + "/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "http" not in page.text
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        with client.get(f"{PREFIX}/{link}") as asset:
            assert asset.status_code == 200, link
    assert client.get(PREFIX + "/docs/assets/../plugins.py").status_code == 404


def _all_errors(base: type[errors.VirtmgrError]) -> list[type[errors.VirtmgrError]]:
    return [base, *(error for sub in base.__subclasses__() for error in _all_errors(sub))]


@pytest.mark.parametrize("kind", _all_errors(errors.VirtmgrError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[errors.VirtmgrError]) -> None:
    if "__init__" in vars(kind) and kind is not errors.VirtmgrError:
        pytest.skip("made of its own arguments")
    status = status_of(kind("it failed"))
    assert status in STATUS.values()
    assert (status == 500) == (kind is errors.VirtmgrError)
