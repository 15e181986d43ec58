"""Calls of functions and runners, as tests make them."""

from __future__ import annotations

import base64
from typing import Any

from tests.service.live import Tenant, answered


def packed(script: str) -> str:
    return base64.b64encode(script.encode()).decode()


def envelope(tenant: Tenant, language: str, script: str, items: list[Any], **event: Any) -> dict[str, Any]:
    """What a runner answers."""
    body = {"script": packed(script), "items": items, **event}
    found: dict[str, Any] = answered(tenant.http.post(f"/v1/runners/{language}/invoke", json=body))
    return found


def results(tenant: Tenant, language: str, script: str, items: list[Any], **event: Any) -> list[dict[str, Any]]:
    found = envelope(tenant, language, script, items, **event)
    assert found["status"] == "success", found
    assert "errors" not in found
    given: list[dict[str, Any]] = found["results"]
    return given


def publish(tenant: Tenant, name: str, code: str, runtime: str = "python", **values: Any) -> dict[str, Any]:
    response = tenant.http.put(f"/v1/functions/{name}", json={"runtime": runtime, "code": code, **values})
    assert response.status_code in {200, 201}, response.text
    found: dict[str, Any] = response.json()
    return found


def invoke(tenant: Tenant, name: str, data: Any = None, query: str = "", **values: Any) -> dict[str, Any]:
    body = {"data": data, **values}
    found: dict[str, Any] = answered(tenant.http.post(f"/v1/functions/{name}/invoke{query}", json=body))
    return found


def batch(tenant: Tenant, name: str, items: list[Any], **values: Any) -> list[dict[str, Any]]:
    found = answered(tenant.http.post(f"/v1/functions/{name}/batch", json={"items": items, **values}))
    given: list[dict[str, Any]] = found["results"]
    assert found["succeeded"] == sum(each["success"] for each in given)
    assert found["failed"] == len(given) - found["succeeded"]
    return given
