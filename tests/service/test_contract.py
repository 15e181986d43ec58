"""The service keeps what its OpenAPI document promises, whatever it is sent."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.service.live import ANSWER_TIMEOUT_S, LiveService, answered

from casemate.api.app import ROUTERS

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
"""Not that all data which fits the document is accepted: a cursor has to be one that a list has given, and the like."""

EXAMPLES: Final = 6


OPERATIONS: Final = sorted(
    (route.path_format, method.lower())
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
)


@pytest.fixture(scope="module")
def contract(service: LiveService) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.fixture(scope="module")
def operators_key(service: LiveService) -> str:
    """One that no test revokes."""
    me = answered(service.operator.get("/v1/me"))
    return service.key(me["tenant_id"], "admin")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=str)
def test_what_is_answered_is_what_is_documented(
    contract: Any, operators_key: str, path: str, method: str, mode: GenerationMode
) -> None:
    cases = contract[path][method].as_strategy(generation_mode=mode)

    @settings(max_examples=EXAMPLES, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def asked(case: schemathesis.Case[Any]) -> None:
        headers = {"Authorization": f"Bearer {operators_key}"}
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=ANSWER_TIMEOUT_S)

    with suppress(Unsatisfiable):  # nothing about it could be wrong
        asked()


def test_the_document_has_every_operation(contract: Any) -> None:
    assert sorted((path, method) for path in contract for method in contract[path]) == OPERATIONS
