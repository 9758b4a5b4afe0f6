"""Property-based test of the API against its OpenAPI document (schemathesis)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fer_stream.store.protocol import CameraState

if TYPE_CHECKING:
    from tests.web.conftest import Web

CSRF_HEADERS = {"X-Requested-With": "pytest"}
# Streams never end; test_events.py tests them.
STREAMS = re.compile(r"/live$")
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


def test_openapi_document_is_valid(web: Web) -> None:
    document = web.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            problem = operation["responses"]["default"]["content"]
            assert list(problem) == ["application/problem+json"], (method, path)


def test_responses_conform_to_the_openapi_document(web: Web) -> None:
    web.store.set_state("door", CameraState(True, 0.0))
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", web.app, headers={"Host": "localhost"})
    tested: set[str] = set()
    for result in schema.exclude(path_regex=STREAMS.pattern).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        tested.add(operation.label)

        @given(case=operation.as_strategy())
        @settings(
            max_examples=10,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def send(case: Any) -> None:
            if "/sources/" in case.path:  # unknown names are tested in test_sources.py
                case.path_parameters["name"] = "door"
            case.call_and_validate(headers={**CSRF_HEADERS, "Host": "localhost"}, checks=CHECKS)

        send()
    assert len(tested) >= 14


def test_unusual_paths_are_not_found(web: Web) -> None:
    for path in ("/api/v1/sources/%00/days", "/api/v1/sources/%ff", "/%2e%2e/%2e%2e/etc/passwd"):
        assert web.client.get(path).status_code == 404, path
