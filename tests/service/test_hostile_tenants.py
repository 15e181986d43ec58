"""What one tenant may do to the others: nothing, however it asks."""

from __future__ import annotations

import concurrent.futures
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest
from tests.service.live import LiveService, Tenant, answered, refused
from tests.service.test_attacks import soon, states

from casemate import service_limits as limits

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


def test_s9_a_body_that_nobody_has_signed_is_not_read(service: LiveService) -> None:
    anybody = service.client()
    unread = b'{"items":' + b"[" * 7_000_000
    headers = {"X-Casemate-Key-Id": "key_" + 26 * "a", "X-Casemate-Timestamp": str(int(time.time()))}
    signed = {**headers, "X-Casemate-Signature": "0" * 64, "Content-Type": "application/json"}
    refused(anybody.post("/v1/webhooks/batch", content=unread, headers=signed), 401)


def test_s9_a_tenant_holds_no_more_connections_than_its_share(service: LiveService) -> None:
    greedy, other = service.tenant(), service.tenant()
    run = answered(
        greedy.http.post(
            "/v1/executions", json={"code": "import time; time.sleep(25)"}, headers={"Prefer": "respond-async"}
        ),
        202,
    )
    place = (f"/v1/executions/{run['id']}/events", greedy.key)
    with ExitStack() as held:
        for _ in range(limits.REQUESTS_A_TENANT_MAX):
            held.enter_context(following(service, *place))
        refused(greedy.http.get("/v1/me"), 429, "too_many_requests")
        answered(other.http.get("/v1/me"))
        answered(other.http.post("/v1/executions", json={"code": "print(1)"}))
    assert soon(lambda: greedy.http.get("/v1/me").status_code == 200)
    answered(greedy.http.delete(f"/v1/executions/{run['id']}"))


@contextmanager
def following(service: LiveService, path: str, key: str) -> Iterator[None]:
    """A stream of events that nobody reads."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        request = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield


def test_s9_what_waits_to_be_run_takes_no_more_memory_than_its_share(service: LiveService) -> None:
    greedy, other = service.tenant(), service.tenant()
    body = {"code": "import time; time.sleep(25)", "files": {"large": "x" * (7 << 20)}}
    statuses, runs = [], []
    for _ in range(60):
        response = greedy.http.post("/v1/executions", json=body, headers={"Prefer": "respond-async"})
        statuses.append(response.status_code)
        if response.status_code == 429:
            break
        runs.append(response.json()["id"])
    try:
        assert statuses[-1] == 429
        assert 30 <= len(runs) <= 40
        answered(other.http.post("/v1/executions", json={"code": "print(1)"}))
    finally:
        for each in runs:
            greedy.http.delete(f"/v1/executions/{each}")
    answered(greedy.http.post("/v1/executions", json={**body, "code": "print(1)"}))


HALF: Final = '"\\ud800"'
ZERO: Final = '"a\\u0000b"'


@pytest.mark.parametrize(
    "body",
    [
        f'{{"code": {HALF}}}',
        f'{{"code": "1", "args": [{HALF}]}}',
        f'{{"code": "1", "env": {{"x": {HALF}}}}}',
        f'{{"code": "1", "files": {{{HALF}: "x"}}}}',
        f'{{"code": "1", "labels": {{{HALF}: "x"}}}}',
        f'{{"code": "1", "input": [1e3, {"9" * 30}, {{"x": {HALF}}}]}}',
        f'{{"code": "1", "labels": {{"x": {ZERO}}}}}',
    ],
)
def test_o4_what_is_no_text_is_refused_and_nothing_waits_for_ever(tenant: Tenant, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    refused(tenant.http.post("/v1/executions", content=body.encode(), headers=headers), 422, "invalid_input")


def test_o4_both_halves_of_a_character_are_one(tenant: Tenant) -> None:
    body = b'{"code": "output = input", "input": "\\ud83d\\ude00"}'
    found = answered(tenant.http.post("/v1/executions", content=body, headers={"Content-Type": "application/json"}))
    assert found["result"]["output"] == "\N{GRINNING FACE}"


@pytest.mark.parametrize("path", ["/v1/functions/%00", "/v1/executions?runtime=a%00", "/v1/executions?label=a%00=b"])
def test_o4_no_address_has_a_zero(tenant: Tenant, path: str) -> None:
    assert tenant.http.get(path).status_code in {404, 422}


def test_an_alias_that_is_published_is_one_that_can_be_moved(tenant: Tenant) -> None:
    for alias in ("", "../x", "a/b"):
        body = {"code": "output = 1", "runtime": "python", "alias": alias}
        refused(tenant.http.put("/v1/functions/aliased", json=body), 422, field="alias")


@pytest.mark.parametrize("is_deleted", [False, True])
def test_x10_what_a_tenant_has_running_ends_with_its_right_to_run(service: LiveService, is_deleted: bool) -> None:
    tenant = service.tenant()
    publish(tenant.http, "slow", "import time\ntime.sleep(25)")
    body = {"code": "import time; time.sleep(25)"}
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [
            pool.submit(tenant.http.post, "/v1/executions", json=body),
            pool.submit(tenant.http.post, "/v1/functions/slow/invoke", json={"data": 1}),
        ]
        assert soon(lambda: states(tenant) == ["running", "running"])
        if is_deleted:
            assert service.operator.delete(f"/v1/tenants/{tenant.id}").status_code == 204
        else:
            answered(service.operator.patch(f"/v1/tenants/{tenant.id}", json={"state": "suspended"}))
        ends = [each.result() for each in waiting]
    assert ends[0].json()["result"]["reason"] == "cancelled"
    assert ends[1].json()["reason"] == "lost"


def test_the_dashboards_cookie_is_no_key(service: LiveService, tenant: Tenant) -> None:
    browser = service.client()
    entered = browser.post("/login", data={"key": tenant.key}, headers={"Origin": service.url})
    assert entered.status_code == 303
    refused(browser.get("/v1/me"), 401, "unauthenticated")
    assert browser.get("/executions").status_code == 200


def test_a_key_counts_in_its_one_place_alone(service: LiveService, tenant: Tenant) -> None:
    anybody, good = service.client(), f"Bearer {tenant.key}"
    for headers in (
        [("Authorization", "Bearer x"), ("Authorization", good)],
        [("Authorization", f"Bearer\t{tenant.key}")],
        [("Authorization", good.swapcase())],
        [("Proxy-Authorization", good)],
        [("X-Api-Key", tenant.key)],
    ):
        refused(anybody.get("/v1/me", headers=headers), 401, "unauthenticated")


def test_o15_a_parameter_that_is_given_twice_is_refused(tenant: Tenant) -> None:
    refused(tenant.http.get("/v1/executions?function=a&function=b"), 422, field="function")
    answered(tenant.http.get("/v1/executions?label=a=1&label=b=2"))
