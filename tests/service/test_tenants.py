"""Attacks of one tenant on another, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.service.live import LiveService, answered, events, refused

LATER: Final = {"Prefer": "respond-async"}


def test_x10_another_tenants_kill_switch_kills_nothing(service: LiveService) -> None:
    first, second = service.tenant(), service.tenant()
    body = {"code": "print('begun', flush=True)\nimport time\ntime.sleep(1000)"}
    started = answered(first.http.post("/v1/executions", json=body, headers=LATER), 202)
    url = f"/v1/executions/{started['id']}"
    with first.http.stream("GET", f"{url}/events") as response:
        next(each for each in events(response.iter_lines()) if each[0] == "stdout")
    refused(second.http.delete(url), 404, "not_found")
    refused(second.http.get(f"{url}/events"), 404, "not_found")
    assert answered(first.http.get(url))["state"] == "running"
    assert answered(first.http.delete(url))["reason"] == "cancelled"


def test_x11_streams_show_their_own_runs_alone(service: LiveService) -> None:
    tenants = [service.tenant() for _ in range(3)]

    def follow(number: int) -> None:
        tenant, word = tenants[number % 3], f"word-{number}-of-{number % 3}"
        code = f"import time\nfor n in range(5):\n    print({word!r}, n, flush=True)\n    time.sleep(0.005)"
        headers = {"Accept": "text/event-stream"}
        with tenant.http.stream("POST", "/v1/executions", json={"code": code}, headers=headers) as response:
            found = list(events(response.iter_lines()))
        text = "".join(data["text"] for kind, _, data in found if kind == "stdout")
        assert text == "".join(f"{word} {n}\n" for n in range(5))
        assert len({data["id"] for kind, _, data in found if kind in {"accepted", "result"}}) == 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(follow, range(24)))


def test_x12_the_same_code_under_other_flags_is_other_code(service: LiveService) -> None:
    first, second = service.tenant(), service.tenant()
    code = "def f(x):\n    return 'f'\ndef g(x):\n    return 'g'\noutput = 'program'"
    flags: list[tuple[dict[str, Any], str]] = [({}, "program"), ({"function": "f"}, "f"), ({"function": "g"}, "g")]
    for tenant in (first, second):
        for number, (options, output) in enumerate(flags):
            answered(
                tenant.http.put(f"/v1/functions/f{number}", json={"runtime": "python", "code": code, **options}), 201
            )
            for _ in range(2):
                called = answered(tenant.http.post(f"/v1/functions/f{number}/invoke", json={"data": 1}))
                assert called["output"] == output


def test_x12_a_runner_that_is_kept_knows_its_tenant_and_its_limits(service: LiveService) -> None:
    code = "import os, tempfile\npath = '/tmp/kept'\noutput = os.path.exists(path)\nopen(path, 'w').close()"
    tenants = [service.tenant(), service.tenant()]
    for _ in range(2):
        for tenant in tenants:
            answered_or_made = tenant.http.put("/v1/functions/kept", json={"runtime": "python", "code": code})
            assert answered_or_made.status_code in {200, 201}
            called = answered(tenant.http.post("/v1/functions/kept/invoke", json={}))
            assert (called["success"], called.get("output")) == (True, False)
    hungry = "output = len(bytearray(300_000_000))"
    for name, memory, success in (("large", "512Mi", True), ("small", "64Mi", False), ("large", "512Mi", True)):
        body = {"runtime": "python", "code": hungry, "limits": {"memory": memory}}
        assert tenants[0].http.put(f"/v1/functions/{name}", json=body).status_code in {200, 201}
        assert answered(tenants[0].http.post(f"/v1/functions/{name}/invoke", json={}))["success"] is success
