"""Executions of code over HTTP: what only the way through the service can add, keep or lose."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.service.live import LiveService, Tenant, answered, events, refused

if TYPE_CHECKING:
    import httpx2

LATER: Final = {"Prefer": "respond-async"}
STREAMED: Final = {"Accept": "text/event-stream"}
LONG: Final = "print('begun', flush=True)\nimport time\ntime.sleep(1000)"


def run(tenant: Tenant, code: str, *, headers: dict[str, str] | None = None, **values: Any) -> dict[str, Any]:
    """An execution that has ended."""
    response = tenant.http.post("/v1/executions", json={"code": code, **values}, headers=headers)
    found: dict[str, Any] = answered(response)
    assert found["state"] == "ended"
    return found


def result_of(tenant: Tenant, code: str, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = run(tenant, code, **values)["result"]
    return found


def accepted(tenant: Tenant, code: str, **values: Any) -> dict[str, Any]:
    """One that goes on without us."""
    found: dict[str, Any] = answered(
        tenant.http.post("/v1/executions", json={"code": code, **values}, headers=LATER), 202
    )
    return found


def look(tenant: Tenant, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = answered(tenant.http.get(f"/v1/executions/{identity}"))
    return found


def ended(tenant: Tenant, identity: str) -> dict[str, Any]:
    """It, when it has ended: its events are followed to the last."""
    with tenant.http.stream("GET", f"/v1/executions/{identity}/events") as response:
        *_, (kind, _, document) = events(response.iter_lines())
    assert kind == "result"
    found: dict[str, Any] = document
    return found


@contextmanager
def running(tenant: Tenant, code: str = LONG, **values: Any) -> Iterator[dict[str, Any]]:
    """An execution whose program has printed something, and that is cancelled at the end of the block."""
    started = accepted(tenant, code, **values)
    with tenant.http.stream("GET", f"/v1/executions/{started['id']}/events") as response:
        next(each for each in events(response.iter_lines()) if each[0] == "stdout")
    try:
        yield started
    finally:
        tenant.http.delete(f"/v1/executions/{started['id']}")


# Values and results -------------------------------------------------------------------------------


def test_s1_49_a_success_has_its_output_time_and_memory(tenant: Tenant) -> None:
    code = "output = [input, sum(range(100_000))]; sum(range(10**7))"  # which takes many ticks of the kernel
    found = run(tenant, code, input={"text": "é✓", "n": 2**60})
    result = found["result"]
    assert (found["status"], found["reason"]) == (result["status"], result["reason"]) == ("succeeded", "exit")
    assert result["output"] == [{"text": "é✓", "n": 2**60}, 4999950000]
    assert 0 < result["usage"]["wall_s"] < 30
    assert result["usage"]["cpu_user_s"] + result["usage"]["cpu_system_s"] > 0
    assert found["created_at"] <= found["started_at"] <= found["ended_at"]
    assert look(tenant, found["id"]) == found


def test_s1_44_s1_49_s1_50_an_answer_can_be_brief(tenant: Tenant) -> None:
    def brief(code: str, **more: Any) -> dict[str, Any]:
        answer = tenant.http.post("/v1/executions?brief=true", json={"code": code, "runtime": "javascript", **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    good = brief("return input + 1", input=41)
    assert (good["success"], good["output"]) == (True, 42)
    assert good["executionTime"] > 0
    assert good["memoryUsed"] > 0
    bad = brief("throw new Error('no')")
    assert (bad["success"], bad["error"], "stack" in bad) == (False, "no", False)
    assert "main.js" in brief("throw new Error('no')", debug={"stack": True})["stack"]
    assert brief("for (;;);")["error"] == "Execution timeout"


@pytest.mark.parametrize("stack", [False, True])
def test_s1_50_a_failure_has_its_error_and_the_record_of_its_stack_if_asked_for(tenant: Tenant, *, stack: bool) -> None:
    code = "def deep():\n    raise ValueError('wrong')\ndeep()"
    result = result_of(tenant, code, debug={"stack": stack})
    assert (result["status"], result["reason"]) == ("failed", "exception")
    assert (result["error"]["type"], result["error"]["message"]) == ("ValueError", "wrong")
    assert (result["debug"] is not None and "deep" in result["debug"]["stack"]) is stack


def test_s1_48_an_output_that_is_no_value_is_an_error(tenant: Tenant) -> None:
    result = result_of(tenant, "function f() { return () => 1 }", runtime="javascript", function="f")
    assert (result["reason"], result["error"]["type"]) == ("validation", "InvalidOutput")


def test_s1_64_records_are_mapped(tenant: Tenant) -> None:
    code = "function map(items) { return items.map((each) => ({id: each.id, name: each.name.toUpperCase(), \
total: each.price * each.quantity})) }"
    items = [{"id": 1, "name": "a", "price": 2.5, "quantity": 2}, {"id": 2, "name": "b", "price": 1.5, "quantity": 3}]
    result = result_of(tenant, code, runtime="javascript", function="map", input=items)
    assert [(each["name"], each["total"]) for each in result["output"]] == [("A", 5), ("B", 4.5)]


def test_s1_65_records_are_validated(tenant: Tenant) -> None:
    code = "function check(r) { const errors = []; if (!r.email) errors.push('email'); \
if (r.age < 18) errors.push('age'); return {valid: !errors.length, errors} }"
    result = result_of(tenant, code, runtime="javascript", function="check", input={"age": 17})
    assert result["output"] == {"valid": False, "errors": ["email", "age"]}


def test_s1_66_an_expression_is_calculated(tenant: Tenant) -> None:
    code = "output = Math.sqrt(input.x ** 2 + input.y ** 2 + input.z ** 2)"
    assert result_of(tenant, code, runtime="javascript", input={"x": 1, "y": 2, "z": 2})["output"] == 3


def test_s1_9_scripts_functions_and_transformations_run(tenant: Tenant) -> None:
    assert result_of(tenant, "echo out; cat", runtime="bash", stdin="words")["stdout"]["text"] == "out\nwords"
    added = result_of(tenant, "def add(a, b):\n    return a + b", function="add", spread=True, input=[2, 3])
    assert added["output"] == 5
    later = result_of(tenant, "async function f(x) { return x + 1 }", runtime="javascript", function="*", input=1)
    assert later["output"] == 2


def test_s1_37_the_globals_of_a_program_are_chosen(tenant: Tenant) -> None:
    code = "return [typeof Math, typeof console, typeof Date]"
    assert result_of(tenant, code, runtime="javascript", globals=["Math"])["output"] == ["object", *["undefined"] * 2]
    assert result_of(tenant, code, runtime="javascript", globals=[])["output"] == ["undefined"] * 3


def test_bytes_cross_as_they_are(tenant: Tenant) -> None:
    code = "import sys\nsys.stdout.buffer.write(open('in.bin', 'rb').read() + sys.stdin.buffer.read())\n\
open('out.bin', 'wb').write(bytes(range(256)))"
    found = result_of(tenant, code, files={"in.bin": {"base64": "/wA="}}, stdin={"base64": "gA=="}, collect=["out.bin"])
    assert found["stdout"]["base64"] == "/wCA"
    assert [each["path"] for each in found["files"]] == ["out.bin"]


# Before it runs -----------------------------------------------------------------------------------


def test_s1_13_bad_syntax_is_refused_and_nothing_is_run(tenant: Tenant) -> None:
    problem = refused(tenant.http.post("/v1/executions", json={"code": "def f(:", "check": True}), 422, field="code")
    assert "Syntax error: " in problem["message"]
    found = answered(tenant.http.post("/v1/validate", json={"code": "open('x', 'w')\ndef f(:"}))
    assert found["error"].startswith("Syntax error: ")


def test_s1_14_forbidden_patterns_are_refused_and_named(tenant: Tenant) -> None:
    body: dict[str, Any] = {"runtime": "javascript", "code": "output = 1;\neval('2')", "patterns": True}
    problem = refused(tenant.http.post("/v1/executions", json=body), 422, field="code")
    assert "Forbidden pattern: eval(" in problem["message"]
    assert result_of(tenant, **{**body, "patterns": False})["status"] == "succeeded"


def test_s1_15_code_over_the_size_limit_is_refused(tenant: Tenant) -> None:
    body = {"code": "#" * (1024 * 1024 + 1)}
    assert "Code exceeds size limit" in refused(tenant.http.post("/v1/executions", json=body), 422)["message"]
    assert answered(tenant.http.post("/v1/validate", json=body))["error"] == "Code exceeds size limit"


def test_s1_16_s1_17_s1_18_what_the_sanitizer_changes_is_told(tenant: Tenant) -> None:
    body: dict[str, Any] = {"runtime": "javascript", "code": "\ufeffconst x = 1;\r\noutput = x", "sanitize": True}
    found = answered(tenant.http.post("/v1/validate", json=body))
    assert found["valid"]
    assert {each["kind"] for each in found["changes"]} == {"removed", "transformed", "injected"}
    assert "\r" not in found["code"]
    executed = run(tenant, **body)
    assert executed["result"]["output"] == 1
    assert executed["changes"] == found["changes"]
    assert look(tenant, executed["id"])["changes"] == found["changes"]


def test_s1_35_s1_44_looking_at_code_says_what_is_wrong_and_runs_nothing(tenant: Tenant) -> None:
    before = len(answered(tenant.http.get("/v1/executions"))["items"])
    bad = answered(tenant.http.post("/v1/validate", json={"code": "1 +"}))
    assert (bad["valid"], bad["errors"][0]["kind"]) == (False, "syntax")
    assert bad["error"] == bad["errors"][0]["message"]
    good = answered(tenant.http.post("/v1/validate", json={"code": "while True: pass"}))
    assert (good["valid"], good["error"], good["errors"]) == (True, None, [])
    assert len(answered(tenant.http.get("/v1/executions"))["items"]) == before


# Limits -------------------------------------------------------------------------------------------


def test_s1_46_an_endless_program_ends_at_its_limit(tenant: Tenant, slowness: float) -> None:
    result = result_of(tenant, "while (true) {}", runtime="javascript")
    assert (result["reason"], result["status"]) == ("timeout", "failed")
    assert result["usage"]["wall_s"] < 5 * slowness


def test_s1_47_limits_of_a_job_count_up_to_a_maximum(tenant: Tenant, slowness: float) -> None:
    result = result_of(tenant, "import time; time.sleep(1000)", limits={"timeout": "200ms"})
    assert result["reason"] == "timeout"
    assert 0.2 <= result["usage"]["wall_s"] < 5 * slowness
    assert result_of(tenant, "x = bytearray(200_000_000)", limits={"memory": "64Mi"})["reason"] == "memory"
    assert result_of(tenant, "x = bytearray(200_000_000)", limits={"memory": "512Mi"})["reason"] == "exit"
    for limits, field in (({"timeout": "1h"}, "limits.timeout"), ({"memory": "2Gi"}, "limits.memory")):
        body = {"code": "pass", "limits": limits}
        refused(tenant.http.post("/v1/executions", json=body), 422, "invalid_input", field)


# The queue ----------------------------------------------------------------------------------------


def in_order_of_start(tenant: Tenant, identities: list[str]) -> list[str]:
    found = [ended(tenant, each) for each in identities]
    return [each["id"] for each in sorted(found, key=lambda each: str(each["started_at"]))]


@pytest.fixture
def narrow(service: LiveService) -> Tenant:
    """A tenant that has one turn at a time."""
    return service.tenant(concurrency_max=1, queue_max=8)


def test_s1_10_s1_45_s1_54_who_waits_has_its_turn_in_order_of_arrival(narrow: Tenant) -> None:
    with running(narrow):
        waiting = [accepted(narrow, "pass")["id"] for _ in range(5)]
        assert {look(narrow, each)["state"] for each in waiting} == {"queued"}
    assert in_order_of_start(narrow, waiting) == waiting


def test_s1_12_priority_overtakes_who_waits_and_nobody_who_runs(narrow: Tenant) -> None:
    with running(narrow) as first:
        low = [accepted(narrow, "pass", priority=1)["id"] for _ in range(2)]
        high = accepted(narrow, "pass", priority=9)["id"]
        assert look(narrow, first["id"])["state"] == "running"
    assert in_order_of_start(narrow, [*low, high]) == [high, *low]


def test_s1_78_a_job_from_the_queue_ends_as_one_that_is_waited_for(narrow: Tenant) -> None:
    code = "print(input); output = {'twice': input * 2}"
    with running(narrow):
        queued = accepted(narrow, code, input=21)
    waited, direct = ended(narrow, queued["id"]), run(narrow, code, input=21)
    for each in (waited, direct):
        for field in ("usage",):
            del each["result"][field]
    assert waited["result"] == direct["result"]


def test_s1_51_failing_jobs_take_no_worker_away(service: LiveService, tenant: Tenant) -> None:
    for code in ("throw new Error('no')", "while (true) {}", "output = 1"):
        result_of(tenant, code, runtime="javascript")
    for _ in range(10):
        assert result_of(tenant, "throw new Error('no')", runtime="javascript")["reason"] == "exception"
    group = next(each for each in answered(service.operator.get("/v1/workers"))["groups"] if each["kind"] == "isolate")
    assert group["busy"] == 0
    assert group["idle"] >= 1


def test_s1_2_runs_of_two_tenants_see_nothing_of_each_other(service: LiveService) -> None:
    first, second = service.tenant(), service.tenant()
    leave = "import os, builtins\nbuiltins.secret = 1\nos.environ['SECRET'] = '1'\n\
for path in ('secret', '/tmp/secret', '/dev/shm/secret'):\n    open(path, 'w').write('secret')\noutput = os.getcwd()"
    find = (
        "import os, builtins\nfound = [p for p in ('secret', '/tmp/secret', '/dev/shm/secret') if os.path.exists(p)]\n\
output = [hasattr(builtins, 'secret'), 'SECRET' in os.environ, found]"
    )
    assert result_of(first, leave)["status"] == "succeeded"
    assert result_of(second, find)["output"] == [False, False, []]
    shared = "output = typeof globalThis.secret; globalThis.secret = 1; Array.prototype.secret = 1"
    seen = [result_of(each, shared, runtime="javascript")["output"] for each in (first, first, second)]
    assert seen == ["undefined"] * 3


def test_s1_11_a_key_over_its_rate_is_told_when_to_ask_again_and_no_other_is(service: LiveService) -> None:
    tenant = service.tenant()
    slow = service.client(service.key(tenant.id, "admin", rate_per_s=0.1, burst=2))
    assert [slow.get("/v1/me").status_code for _ in range(2)] == [200, 200]
    response = slow.get("/v1/me")
    refused(response, 429, "too_many_requests")
    assert 1 <= int(response.headers["retry-after"]) <= 10
    answered(tenant.http.get("/v1/me"))


# Following, cancelling, looking up ----------------------------------------------------------------


def test_output_comes_while_it_is_made_and_can_be_resumed(tenant: Tenant) -> None:
    code = "import time\nfor n in range(3):\n    print(n, 'é', flush=True)\n    time.sleep(0.05)\noutput = 'done'"
    with tenant.http.stream("POST", "/v1/executions", json={"code": code}, headers=STREAMED) as response:
        found = list(events(response.iter_lines()))
        location = response.headers["location"]
    assert [kind for kind, _, _ in found][:2] == ["accepted", "started"]
    assert found[-1][0] == "result"
    text = "".join(data["text"] for kind, _, data in found if kind == "stdout")
    assert text == found[-1][2]["result"]["stdout"]["text"] == "0 é\n1 é\n2 é\n"
    middle = next(number for number, each in enumerate(found) if each[0] == "stdout")
    with tenant.http.stream("GET", location, headers={"Last-Event-ID": found[middle][1]}) as response:
        rest = list(events(response.iter_lines()))
    joined = "".join(data["text"] for kind, _, data in [*found[: middle + 1], *rest] if kind == "stdout")
    assert joined == text
    assert rest[-1] == found[-1]


def test_a_cancelled_execution_ends_with_its_result(tenant: Tenant) -> None:
    with running(tenant) as started:
        cancelled = answered(tenant.http.delete(f"/v1/executions/{started['id']}"))
        assert (cancelled["reason"], cancelled["result"]["stdout"]["text"]) == ("cancelled", "begun\n")
        assert answered(tenant.http.delete(f"/v1/executions/{started['id']}")) == cancelled


def test_one_that_waits_can_be_cancelled_and_never_runs(narrow: Tenant) -> None:
    with running(narrow):
        waiting = accepted(narrow, "print('never')")
        cancelled = answered(narrow.http.delete(f"/v1/executions/{waiting['id']}"))
    assert (cancelled["reason"], cancelled["started_at"]) == ("cancelled", None)


def test_executions_are_listed_by_what_they_are(tenant: Tenant) -> None:
    ids = [run(tenant, code, labels={"of": "this-test"})["id"] for code in ("pass", "1/0", "pass")]

    def listed(**query: Any) -> list[str]:
        page = answered(tenant.http.get("/v1/executions", params={"label": "of=this-test", **query}))
        return [each["id"] for each in page["items"]]

    assert listed() == ids[::-1]
    assert listed(status="failed", reason="exception") == [ids[1]]
    assert listed(runtime="bash") == []
    assert listed(state="ended", kind="code", runtime="python") == ids[::-1]
    assert listed(until=look(tenant, ids[1])["created_at"]) == ids[:1]
    page = answered(tenant.http.get("/v1/executions", params={"label": "of=this-test", "limit": 2}))
    rest = answered(tenant.http.get("/v1/executions", params={"cursor": page["next_cursor"], "limit": 1}))
    assert [each["id"] for each in rest["items"]] == ids[:1]


def test_a_request_that_is_sent_twice_is_done_once(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "sent-twice"}
    first = tenant.http.post("/v1/executions", json={"code": "output = 1"}, headers=headers)
    again = tenant.http.post("/v1/executions", json={"code": "output = 1"}, headers=headers)
    assert answered(again) == answered(first)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = tenant.http.post("/v1/executions", json={"code": "output = 2"}, headers=headers)
    refused(other, 409, "conflict")


def test_the_same_request_at_the_same_time_is_done_once(tenant: Tenant) -> None:
    def ask(_: int) -> httpx2.Response:
        headers = {"Idempotency-Key": "at-the-same-time"}
        return tenant.http.post("/v1/executions", json={"code": "import time; time.sleep(0.2)"}, headers=headers)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert {each.status_code for each in found} <= {200, 409}
    assert len({answered(each)["id"] for each in found if each.status_code == 200}) == 1


def test_a_request_id_goes_through_all_parts(service: LiveService, tenant: Tenant) -> None:
    response = tenant.http.post("/v1/executions", json={"code": "pass"}, headers={"X-Request-Id": "a-name.of_mine"})
    assert response.headers["x-request-id"] == answered(response)["request_id"] == "a-name.of_mine"
    assert service.logged(request_id="a-name.of_mine")["status"] == 200


# Debugging and measuring --------------------------------------------------------------------------

DEBUGGED: Final = {
    "python": "def double(x):\n    print('seen', x)\n    return x * 2\noutput = double(input)",
    "javascript": "function double(x) {\n    console.log('seen', x)\n    return x * 2\n}\noutput = double(input)",
}


@pytest.mark.parametrize("runtime", DEBUGGED)
def test_s1_72_s1_74_s1_75_s1_76_what_is_recorded_changes_no_output(tenant: Tenant, runtime: str) -> None:
    plain = result_of(tenant, DEBUGGED[runtime], runtime=runtime, input=4)
    everything = {"console": True, "stack": True, "profile": True, "steps": True}
    found = result_of(tenant, DEBUGGED[runtime], runtime=runtime, input=4, debug=everything)
    assert (found["output"], found["stdout"], found["reason"]) == (plain["output"], plain["stdout"], plain["reason"])
    assert plain.get("debug") is None
    assert [each["text"] for each in found["debug"]["console"]] == ["seen 4"]
    assert any(each["function"] == "double" and each["calls"] == 1 for each in found["debug"]["profile"])
    assert {2, 3} <= {each["line"] for each in found["debug"]["steps"]}
    only = result_of(tenant, DEBUGGED[runtime], runtime=runtime, input=4, debug={"console": True})["debug"]
    assert (only["profile"], only["steps"]) == (None, [])


def test_s1_67_s1_70_s1_71_metrics_count_what_has_run_in_their_time(service: LiveService) -> None:
    tenant = service.tenant()
    programs: list[dict[str, Any]] = [
        {"code": "pass"},
        {"code": "pass"},
        {"code": "1/0"},
        {"code": "while True: pass", "limits": {"timeout": "100ms"}},
        {"code": "x = bytearray(10**9)", "limits": {"memory": "32Mi"}},
    ]
    found = [run(tenant, **each) for each in programs]
    total = answered(tenant.http.get("/v1/metrics"))["total"]
    assert (total["total"], total["successful"], total["failed"]) == (5, 2, 3)
    assert {name: total["errors"][name] for name in ("timeout", "memory", "runtime")} == {
        "timeout": 1,
        "memory": 1,
        "runtime": 1,
    }
    assert len(total["memory"]) == 10
    assert sum(each["count"] for each in total["memory"]) + total["memory_unknown"] == 5
    assert 0 < total["p50_wall_us"] <= total["p95_wall_us"] <= total["p99_wall_us"]
    until = found[2]["created_at"]
    assert answered(tenant.http.get("/v1/metrics", params={"until": until}))["total"]["total"] == 2
    grouped = answered(tenant.http.get("/v1/metrics", params={"group_by": "runtime"}))["groups"]
    assert grouped["python"]["total"] == 5


def test_s1_25_s1_77_health_workers_and_executions_are_shown(service: LiveService, tenant: Tenant) -> None:
    result_of(tenant, "output = 1", runtime="javascript")
    assert set(answered(service.operator.get("/readyz"))["parts"].values()) == {"ok"}
    workers = answered(service.operator.get("/v1/workers"))
    assert {"id", "kind", "state", "runs", "memory_bytes"} <= workers["workers"][0].keys()
    text = service.operator.get("/metrics").text
    for name in ("casemate_executions_total", "casemate_execution_seconds_bucket", "casemate_node_up 1.0"):
        assert name in text


def test_s1_20_s1_59_what_a_worker_held_is_stored(service: LiveService, tenant: Tenant) -> None:
    worker = result_of(tenant, "output = 1", runtime="javascript")["worker"]
    assert min(worker[name] for name in ("heap_used_bytes", "heap_total_bytes", "resident_bytes")) > 0
    items: list[dict[str, Any]] = []
    noted = threading.Event()
    for _ in range(1000):
        items = answered(service.operator.get(f"/v1/workers/{worker['worker']}/samples"))["items"]
        if any(each["heap_used_bytes"] == worker["heap_used_bytes"] for each in items):
            return
        noted.wait(0.02)
    raise AssertionError(items)


def test_s1_52_a_worker_is_used_again_with_nothing_of_the_run_before(tenant: Tenant) -> None:
    found = [result_of(tenant, "output = typeof x; x = 1", runtime="javascript") for _ in range(8)]
    assert {each["output"] for each in found} == {"undefined"}
    assert len({each["worker"]["worker"] for each in found}) < len(found)
