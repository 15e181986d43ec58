"""What one tenant may do to the others: nothing, however it asks."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any, Final

from tests.service.live import LiveService, answered, refused

LINES: Final = [f"# {number % 100}" for number in range(60_000)]


def publish(http: Any, name: str, code: str, **other: Any) -> Any:
    response = http.put(f"/v1/functions/{name}", json={"code": code, "runtime": "python", **other})
    assert response.status_code in {200, 201}, response.text
    return response.json()


def test_c7_versions_written_to_be_hard_to_compare_are_compared_at_once(service: LiveService) -> None:
    tenant = service.tenant()
    publish(tenant.http, "hard", "\n".join(LINES))
    publish(tenant.http, "hard", "\n".join(reversed(LINES)))
    began_s = time.monotonic()
    found = answered(tenant.http.get("/v1/functions/hard/diff", params={"from": 1, "to": 2}))
    assert time.monotonic() - began_s < 20
    assert found["code"].count("\n+#") == found["code"].count("\n-#") > 1000


def test_s9_a_batch_for_thousands_of_functions_leaves_the_records_to_others(service: LiveService) -> None:
    greedy, other = service.tenant(), service.tenant()
    items = [{"id": str(at), "function": f"none-{at}"} for at in range(5000)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        batches = [pool.submit(greedy.http.post, "/v1/batch", json={"items": items}) for _ in range(2)]
        while not all(each.done() for each in batches):
            answered(other.http.get("/v1/executions"))
    for each in batches:
        found = answered(each.result())
        assert {entry["error"] for entry in found["results"]} == {
            f"Function not found: none-{at}" for at in range(5000)
        }


def test_a_key_gives_no_other_a_higher_rate_than_its_own(service: LiveService) -> None:
    tenant = service.tenant()
    slow = service.client(service.key(tenant.id, "keys:write", "executions:run", rate_per_s=5.0, burst=50))
    body = {"name": "more", "scopes": {"allow": ["executions:run"]}}
    refused(slow.post("/v1/keys", json={**body, "rate_per_s": 6.0}), 422, field="rate_per_s")
    refused(slow.post("/v1/keys", json={**body, "burst": 51}), 422, field="burst")
    made = answered(slow.post("/v1/keys", json=body), 201)
    assert (made["rate_per_s"], made["burst"]) == (5.0, 50)


def test_a_key_for_an_hour_makes_none_for_ever(service: LiveService) -> None:
    tenant = service.tenant()
    short = service.client(service.key(tenant.id, "admin", lifetime_s=3600))
    mine = answered(short.get("/v1/me"))["key_id"]
    own = next(each for each in answered(short.get("/v1/keys"))["items"] if each["id"] == mine)
    made = answered(short.post("/v1/keys", json={"name": "x", "scopes": {"allow": ["admin"]}}), 201)
    assert made["expires_at"] == own["expires_at"]
