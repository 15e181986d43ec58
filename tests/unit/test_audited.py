"""What of requests is recorded, and as what."""

from __future__ import annotations

from typing import Final

import pytest
from fastapi.routing import APIRoute

from casemate.api.app import ROUTERS
from casemate.api.audited import UNNOTED, action_of

ROUTES: Final = sorted(
    {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
)


@pytest.mark.parametrize(
    ("method", "pattern", "action"),
    [
        ("POST", "/v1/jobs", "jobs.submit"),
        ("GET", "/v1/jobs", ""),
        ("GET", "/v1/jobs/{job_id}", "jobs.read"),
        ("DELETE", "/v1/jobs/{job_id}", "jobs.delete"),
        ("POST", "/v1/jobs/{job_id}/cancel", "jobs.cancel"),
        ("GET", "/v1/jobs/{job_id}/files/{area}/{path:path}", "jobs.files.read"),
        ("PUT", "/v1/objects/{key:path}", "objects.write"),
        ("POST", "/v1/objects/sign", "objects.sign"),
        ("PUT", "/v1/uploads/{upload_id}/parts/{number}", "uploads.parts.write"),
        ("POST", "/v1/uploads/{upload_id}/complete", "uploads.complete"),
        ("GET", "/v1/signed/{token}", "signed.read"),
        ("POST", "/v1/keys", "keys.create"),
        ("POST", "/v1/keys/{key_id}/rotate", "keys.rotate"),
        ("PATCH", "/v1/tenants/{tenant_id}", "tenants.change"),
        ("PUT", "/v1/functions/{name}", "functions.write"),
        ("GET", "/v1/audit/verify", "audit.verify.read"),
        ("POST", "/v1/executions", ""),
        ("GET", "/v1/executions", ""),
        ("GET", "/healthz", ""),
        ("GET", "/metrics", ""),
    ],
)
def test_s2_78_an_action_is_named_by_what_is_asked(method: str, pattern: str, action: str) -> None:
    assert action_of(method, pattern) == action


@pytest.mark.parametrize(("method", "pattern"), [each for each in ROUTES if each[0] not in {"GET", "HEAD"}])
def test_s2_78_everything_that_changes_something_is_recorded(method: str, pattern: str) -> None:
    """Or runs something, which has a record of its own."""
    if not action_of(method, pattern):
        assert any(pattern.split("/")[2] in name for name in UNNOTED), pattern
