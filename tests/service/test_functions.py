"""Functions and runners over HTTP: published, called one by one and in batches, by what their languages are."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.service.live import CONFIG, LiveService, Tenant, answered, refused, serving

if TYPE_CHECKING:
    import httpx2

LANGUAGES: Final = ("python", "javascript", "r")
ROOTS: Final = [{"a": {"b": [1]}}, {}, 42, None, [{"x": 1}], [{"x": 1}, {"x": 2}], [], [1, 2], {"sample": [1, 2]}]
DAY_US: Final = 24 * 3600 * 1_000_000
ECHO: Final = {
    "python": "output['seen'] = json",
    "javascript": "output.seen = json",
    "r": "output$seen <- json",
}


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


# Runners ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_s0_7_s0_8_s0_9_a0_1_every_root_passes_unchanged(tenant: Tenant, language: str) -> None:
    items = [{"id": str(number), "data": root} for number, root in enumerate(ROOTS)]
    found = results(tenant, language, ECHO[language], items)
    assert [each["id"] for each in found] == [each["id"] for each in items]
    assert [each["output"]["seen"] for each in found] == ROOTS


BOOM: Final = {
    "python": "if json['bad']: raise ValueError('boom')\noutput['ok'] = True",
    "javascript": "if (json.bad) throw new Error('boom'); output.ok = true",
    "r": "if (json$bad) stop('boom')\nreturn(list(ok = TRUE))",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_2_items_fail_alone_and_ids_may_repeat_or_be_empty(tenant: Tenant, language: str) -> None:
    items = [{"id": i, "data": {"bad": bad}} for i, bad in (("dup", False), ("dup", True), ("", False), ("dup", False))]
    found = results(tenant, language, BOOM[language], items)
    assert [each["id"] for each in found] == ["dup", "dup", "", "dup"]
    assert [each["success"] for each in found] == [True, False, True, True]
    assert "boom" in found[1]["error"]


def test_a0_3_the_sample_event_gives_its_values(tenant: Tenant) -> None:
    items = [{"id": str(n), "data": {"trace_1": [mean - 1, mean, mean + 1]}} for n, mean in enumerate((45.86, 38.86))]
    found = results(tenant, "python", "output['chlorophyll'] = MathMEAN(json['trace_1'])", items)
    assert [each["output"]["chlorophyll"] for each in found] == pytest.approx([45.86, 38.86])


@pytest.mark.parametrize(
    ("language", "event", "error"),
    [
        ("python", {}, "Missing 'script' field"),
        ("python", {"script": packed("x" * (1024 * 1024 + 1))}, "Script exceeds 1MB limit"),
        ("python", {"script": "?"}, "Invalid base64 or encoding in 'script'"),
        ("js", {"script": "?"}, "Invalid base64 in 'script'"),
        ("js", {"script": packed("1"), "items": {}}, "'items' must be an array"),
        ("r", {"script": packed("1"), "items": {}}, "'items' must be an array, not an object"),
        ("r", {"script": packed("1"), "items": [{}] * 1001}, "Exceeds 1000 item limit"),
    ],
)
def test_a0_4_limits_of_an_event_have_their_texts(
    tenant: Tenant, language: str, event: dict[str, Any], error: str
) -> None:
    found = answered(tenant.http.post(f"/v1/runners/{language}/invoke", json=event))
    assert found == {"status": "error", "results": [], "errors": [error]}


@pytest.mark.parametrize(
    ("language", "script", "error"),
    [
        ("python", "def f(:", "Failed to compile script: "),
        ("javascript", "function {", "Script compilation failed: "),
    ],
)
def test_a0_4_a_script_that_cannot_be_read_fails_the_call(
    tenant: Tenant, language: str, script: str, error: str
) -> None:
    found = envelope(tenant, language, script, [{"id": "a"}, {"id": "b"}])
    assert (found["status"], found["results"]) == ("error", [])
    assert found["errors"][0].startswith(error)


@pytest.mark.parametrize(("language", "script"), [("python", "eval('(')"), ("javascript", "JSON.parse('{')")])
def test_a0_4_a_syntax_error_of_a_scripts_own_making_is_its_items(tenant: Tenant, language: str, script: str) -> None:
    assert [each["success"] for each in results(tenant, language, script, [{"id": "a"}])] == [False]


def test_a0_4_a_script_of_r_that_cannot_be_read_fails_each_item(tenant: Tenant) -> None:
    found = results(tenant, "r", "f <- function( {", [{"id": "a"}, {"id": "b"}])
    assert [each["success"] for each in found] == [False, False]


@pytest.mark.parametrize("timeout", [0.001, 3, 1e9])
def test_a0_4_a_timeout_beyond_its_bounds_is_brought_within_them(tenant: Tenant, timeout: float) -> None:
    assert results(tenant, "python", "output['a'] = 1", [{"id": "a"}], timeout=timeout)[0]["success"]


def test_a0_5_outputs_of_two_megabytes_pass_and_twelve_fail_the_call(tenant: Tenant) -> None:
    script = "output['text'] = 'x' * json"
    sizes = [1024 * 1024, 2 * 1024 * 1024]
    found = results(tenant, "python", script, [{"id": "a", "data": size} for size in sizes])
    assert [len(each["output"]["text"]) for each in found] == sizes
    many = envelope(tenant, "python", script, [{"id": str(n), "data": 500_000} for n in range(25)])
    assert many == {"status": "error", "results": [], "errors": ["Wrapper output exceeds 10MB limit"]}


def test_a0_6_light_items_end_within_the_budget_of_their_call(tenant: Tenant) -> None:
    items = [{"id": str(number), "data": number} for number in range(25)]
    found = results(tenant, "python", "import time\ntime.sleep(0.05)\noutput['n'] = json", items, timeout=30)
    assert [each["output"]["n"] for each in found] == list(range(25))


CONTEXT: Final = {
    "python": ("output['x'] = ctx.get('up', {}).get('answer')", "ctx['up'] = 1\noutput['x'] = 1"),
    "javascript": ("output.x = ctx.up ? ctx.up.answer : null", "ctx.up = 1; output.x = ctx.up.answer"),
    "r": ("output$x <- ctx$up$answer", "ctx$up <- 1\noutput$x <- 1"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_7_the_context_is_read_and_never_written(tenant: Tenant, language: str) -> None:
    items = [
        {"id": "a", "context": {"up": {"answer": 42}}},
        {"id": "b"},
        {"id": "c", "context": {"up": {"answer": 43}}},
    ]
    reading, writing = CONTEXT[language]
    found = results(tenant, language, reading, items)
    assert [each["output"].get("x") for each in found] == [42, None, 43]
    results(tenant, language, writing, items)
    again = results(tenant, language, reading, items)
    assert [each["output"].get("x") for each in again] == [42, None, 43]


@pytest.mark.parametrize(
    ("language", "script"),
    [
        ("python", "output['x'] = {1} if json == 'bad' else 1"),
        ("python", "import os\nos._exit(3) if json == 'bad' else None"),
        ("python", "x = bytearray(10**11) if json == 'bad' else 1"),
        ("python", "while json == 'bad':\n    try:\n        pass\n    except BaseException:\n        pass"),
        (
            "python",
            "while json == 'bad':\n    try:\n        import time; time.sleep(9)\n    except BaseException: pass",
        ),
        ("python", "import os, signal\nif json == 'bad': os.kill(os.getpid(), signal.SIGKILL)"),
        ("javascript", "if (json === 'bad') { output.x = output }"),
        ("javascript", "if (json === 'bad') return { toJSON() { for (;;) {} } }"),
        ("javascript", "if (json === 'bad') return new Promise(() => {})"),
        ("javascript", "const hog = []; while (json === 'bad') hog.push(new Array(1e6).fill(1))"),
        ("r", "if (identical(json, 'bad')) quit('no', 3)"),
        ("r", "while (identical(json, 'bad')) tryCatch(Sys.sleep(9), error = function(e) NULL)"),
    ],
)
def test_a0_12_no_item_hurts_another(tenant: Tenant, language: str, script: str) -> None:
    items = [{"id": str(number), "data": data} for number, data in enumerate(("good", "bad", "good"))]
    found = results(tenant, language, script, items)
    assert [each["id"] for each in found] == ["0", "1", "2"]
    if "{1}" not in script:
        assert [each["success"] for each in found] == [True, False, True]
    assert found[0]["success"]
    assert found[2]["success"]


@pytest.mark.parametrize(
    ("language", "script"),
    [
        ("python", "import builtins, os\noutput['x'] = [hasattr(builtins, 'left'), os.path.exists('left')]\n\
builtins.left = 1; open('left', 'w').close()"),
        ("javascript", "output.x = [typeof globalThis.left, typeof Array.prototype.left]; globalThis.left = 1; \
Array.prototype.left = 1"),
        ("r", "output$x <- list(exists('left', globalenv()), file.exists('left'))\nassign('left', 1, globalenv())\n\
file.create('left')"),
    ],
)  # fmt: skip
def test_a0_12_no_item_sees_what_another_has_left(tenant: Tenant, language: str, script: str) -> None:
    found = results(tenant, language, script, [{"id": str(number)} for number in range(4)])
    assert len({json.dumps(each["output"]) for each in found}) == 1


def test_a0_12_printing_is_no_answer(tenant: Tenant) -> None:
    script = "print('{\"success\": false}')\noutput['x'] = 1"
    assert results(tenant, "python", script, [{"id": "a"}]) == [{"id": "a", "success": True, "output": {"x": 1}}]


def test_a_reply_is_packed_where_that_is_asked_for(tenant: Tenant) -> None:
    event = {"script": packed("output['x'] = 1"), "items": [{"id": "a"}]}
    found = answered(tenant.http.post("/v1/runners/python/invoke?packed=true", json=event))
    assert found["encoding"] == "gzip+base64"
    inner = json.loads(gzip.decompress(base64.b64decode(found["payload"])))
    assert inner == {"status": "success", "results": [{"id": "a", "success": True, "output": {"x": 1}}]}


def test_s0_5_s0_23_s0_46_runners_are_listed_by_language_and_called_by_name(tenant: Tenant) -> None:
    listed = {each["language"]: each for each in answered(tenant.http.get("/v1/runners"))["items"]}
    assert listed.keys() == set(LANGUAGES)
    for language, runner in listed.items():
        assert runner["name"] == f"macro-sandbox-{language}-test"
        assert runner["scope"] == f"functions:invoke:{language}"
        assert results(tenant, runner["name"], ECHO[language], [{"id": "a", "data": 1}])[0]["output"] == {"seen": 1}
    assert [listed[language]["memory_mb"] for language in LANGUAGES] == [1024, 512, 1024]
    refused(tenant.http.post("/v1/runners/cobol/invoke", json={}), 404, "not_found")


def test_s0_39_s0_40_s0_30_tags_and_environment_are_on_runners(tenant: Tenant) -> None:
    for runner in answered(tenant.http.get("/v1/runners"))["items"]:
        assert runner["tags"] == {"Environment": "test", "Project": "casemate"}
        assert runner["location"] == "here"
        assert runner["name"].endswith("-test")


def test_s0_24_s0_47_a_key_invokes_the_runners_that_its_scope_names(service: LiveService, tenant: Tenant) -> None:
    with service.client(service.key(tenant.id, "functions:invoke:r")) as client:
        assert [each["language"] for each in answered(client.get("/v1/runners"))["items"]] == ["r"]
        event = {"script": packed("output$x <- 1"), "items": [{"id": "a"}]}
        assert answered(client.post("/v1/runners/r/invoke", json=event))["status"] == "success"
        refused(client.post("/v1/runners/python/invoke", json=event), 403, "permission_denied")
        refused(client.post("/v1/executions", json={"code": "pass"}), 403, "permission_denied")


def test_s0_2_s0_42_s0_43_s0_44_a_key_of_the_configuration_adds_a_runner(tmp_path: Path, slowness: float) -> None:
    """Nothing but the configuration differs; an old key calls the new runner, and the others stay as they are."""
    data = tmp_path / "data"
    with serving(data, config=CONFIG, slowness=slowness) as before:
        tenant = before.tenant()
        key = before.key(tenant.id, "functions:invoke:*")
        refused(tenant.http.post("/v1/runners/bash/invoke", json={}), 404)
    added = CONFIG.replace("[languages.r]", "[languages.bash]\nmemory = 256\ntimeout = 30\n\n[languages.r]")
    with serving(data, config=added, slowness=slowness) as after, after.client(key) as client:
        names = [each["name"] for each in answered(client.get("/v1/runners"))["items"]]
        assert names == [f"macro-sandbox-{each}-test" for each in ("bash", "javascript", "python", "r")]
        assert "Missing" in answered(client.post("/v1/runners/bash/invoke", json={}))["errors"][0]
    fewer = CONFIG.replace("[languages.r]\nmemory = 1024\ntimeout = 65\n", "")
    with serving(data, config=fewer, slowness=slowness) as last, last.client(key) as client:
        names = [each["language"] for each in answered(client.get("/v1/runners"))["items"]]
        assert names == ["javascript", "python"]


# Languages and limits -----------------------------------------------------------------------------


def test_s0_1_a_function_sees_nothing_of_the_host(service: LiveService, tenant: Tenant) -> None:
    code = f"""
import os
def readable(path):
    try: return bool(os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))
    except OSError: return False
output = {{
    "paths": [p for p in {[str(service.data), "/etc/shadow", "/root", "/run/secrets"]!r} if readable(p)],
    "pids": [int(p) for p in os.listdir('/proc') if p.isdigit()].__len__(),
    "env": sorted(os.environ),
    "uid": os.getuid(),
}}
"""
    publish(tenant, "looks-around", code)
    found = invoke(tenant, "looks-around")["output"]
    assert found["paths"] == []
    assert found["pids"] < 10
    assert found["uid"] != 0
    assert not [name for name in found["env"] if "CASEMATE" in name or "KEY" in name]


@pytest.mark.parametrize(
    ("runtime", "code"),
    [
        ("python", "import socket\nfor kind, to in ((1, ('1.1.1.1', 80)), (2, ('1.1.1.1', 53))):\n\
    try:\n        s = socket.socket(2, kind); s.settimeout(0.3); s.connect(to); s.send(b'x'); output['x'] = 'sent'\n\
    except OSError: pass\ntry: socket.getaddrinfo('example.org', 80); output['x'] = 'resolved'\nexcept OSError: pass"),
        ("r", "found <- tryCatch({close(socketConnection('1.1.1.1', 80, timeout = 1)); 'sent'}, error = function(e) '',\
 warning = function(w) '')\nif (nzchar(found)) output$x <- found"),
        ("javascript", "if (typeof fetch !== 'undefined' || typeof require !== 'undefined') output.x = 'network'"),
    ],
)  # fmt: skip
def test_s0_17_a_macro_has_no_network(tenant: Tenant, runtime: str, code: str) -> None:
    assert results(tenant, runtime, code, [{"id": "a"}])[0]["output"] == {}


@pytest.mark.parametrize(
    ("runtime", "code", "inside", "beyond"),
    [
        ("python", "x = bytearray(input)\noutput = len(x)", 700_000_000, 1_500_000_000),
        ("js", "const x = []\nwhile (x.length < input) x.push(new Array(100).fill(1.5))\noutput = 1", 1e5, 1e8),
        ("r", "x <- numeric(input / 8); x[] <- 1; output <- 1", 200_000_000, 1_600_000_000),
    ],
)
def test_s0_10_memory_is_limited_by_language(
    tenant: Tenant, runtime: str, code: str, inside: float, beyond: float
) -> None:
    publish(tenant, f"hungry-{runtime}", code, runtime)
    found = [invoke(tenant, f"hungry-{runtime}", data) for data in (inside, beyond)]
    assert [each["success"] for each in found] == [True, False], found
    assert found[1]["reason"] == "memory"


def test_s0_11_a_function_past_its_timeout_is_ended_and_that_is_told(tenant: Tenant, slowness: float) -> None:
    publish(tenant, "sleeps", "import time\ntime.sleep(60)", limits={"timeout": "300ms"})
    found = invoke(tenant, "sleeps")
    assert (found["success"], found["reason"]) == (False, "timeout")
    assert found["usage"]["wall_s"] < 10 * slowness
    assert invoke(tenant, "sleeps", timeout=0.1)["reason"] == "timeout"


def test_s0_12_numpy_and_scipy_give_known_values(tenant: Tenant) -> None:
    code = "import numpy as np\nfrom scipy import stats\n\
output = {'mean': float(np.mean(input)), 'slope': float(stats.linregress([0, 1, 2], input).slope)}"
    publish(tenant, "science", code)
    assert invoke(tenant, "science", [1, 3, 5])["output"] == pytest.approx({"mean": 3.0, "slope": 2.0})


def test_s0_13_s0_14_samples_of_javascript_and_r_fit_their_limits(tenant: Tenant) -> None:
    data = {"trace": [float(n) for n in range(10_000)]}
    for language, script in (
        ("js", "output.mean = MathMEAN(json.trace)"),
        ("r", "output$mean <- MathMEAN(unlist(json$trace))"),
    ):
        assert results(tenant, language, script, [{"id": "a", "data": data}])[0]["output"] == {"mean": 4999.5}


def test_s0_27_s0_45_calls_and_logs_are_told_by_language_and_function(service: LiveService) -> None:
    tenant = service.tenant()
    publish(tenant, "prints", "print('said', input); output = 1 / input")
    for data in (1, 2, 0):
        invoke(tenant, "prints", data)
    assert results(tenant, "js", "output.x = 1", [{"id": "a"}])
    lines = logs(tenant, "prints", 3)
    assert {"said 0\n", "said 1\n", "said 2\n"} <= {each["text"] for each in lines}
    by_function = answered(tenant.http.get("/v1/metrics", params={"group_by": "function"}))["groups"]
    assert (by_function["prints"]["total"], by_function["prints"]["failed"]) == (3, 1)
    by_runtime = answered(tenant.http.get("/v1/metrics", params={"group_by": "runtime"}))["groups"]
    assert {name: each["total"] for name, each in by_runtime.items()} == {"python": 3, "javascript": 1}


def logs(tenant: Tenant, name: str, count: int) -> list[dict[str, Any]]:
    """What a function has printed, when so many lines of it are there: nobody waits for them to be written."""
    until_s = time.monotonic() + 10
    found: list[dict[str, Any]] = []
    while time.monotonic() < until_s:
        found = answered(tenant.http.get(f"/v1/functions/{name}/logs"))["items"]
        if len(found) >= count:
            return found
    raise AssertionError(found)


# Functions ----------------------------------------------------------------------------------------


def test_versions_never_change_and_aliases_move(tenant: Tenant) -> None:
    first = publish(tenant, "moves", "output = 'one'")
    assert publish(tenant, "moves", "output = 'one'")["version"] == first["version"] == 1
    assert publish(tenant, "moves", "output = 'two'")["version"] == 2
    assert invoke(tenant, "moves")["output"] == "two"
    assert invoke(tenant, "moves", query="?version=1")["output"] == "one"
    answered(tenant.http.post("/v1/functions/moves/aliases/live/rollback", json={}))
    assert invoke(tenant, "moves")["output"] == "one"
    answered(tenant.http.put("/v1/functions/moves/aliases/next", json={"version": 2}))
    assert invoke(tenant, "moves", query="?alias=next")["output"] == "two"
    assert answered(tenant.http.get("/v1/functions/moves/versions/1")) == {**first, "aliases": ["live"]}
    diff = answered(tenant.http.get("/v1/functions/moves/diff?from=1&to=2"))
    assert "-output = 'one'" in diff["code"]
    assert tenant.http.delete("/v1/functions/moves").status_code == 204
    refused(tenant.http.post("/v1/functions/moves/invoke", json={}), 404)


def test_s0_50_a_new_version_goes_live_without_losing_a_call(tenant: Tenant) -> None:
    publish(tenant, "live-change", "import time\ntime.sleep(0.3)\noutput = 'old'")
    items = [{"id": str(number)} for number in range(6)]
    body = {"items": items}
    headers = {"Accept": "application/x-ndjson"}
    with tenant.http.stream("POST", "/v1/functions/live-change/batch", json=body, headers=headers) as response:
        lines = response.iter_lines()
        first = json.loads(next(lines))
        publish(tenant, "live-change", "output = 'new'")
        assert invoke(tenant, "live-change")["output"] == "new"
        rest = [json.loads(line) for line in lines]
    assert [each["output"] for each in (first, *rest)] == ["old"] * 6


def test_data_and_output_are_checked_by_schemas(tenant: Tenant) -> None:
    number = {"type": "number"}
    publish(tenant, "typed", "output = 'text' if input > 9 else input", input_schema=number, output_schema=number)
    assert invoke(tenant, "typed", 3)["output"] == 3
    assert invoke(tenant, "typed", "three")["error"]["type"] == "InvalidInput"
    assert invoke(tenant, "typed", 10)["error"]["type"] == "InvalidOutput"


def test_a0_8_a_batch_comes_back_in_the_order_of_its_request(tenant: Tenant) -> None:
    publish(tenant, "doubles", "output = input * 2")
    publish(tenant, "negates", "output = -input")
    items = [
        {"id": str(number % 3), "function": ("doubles", "negates", "nobody")[number % 3], "data": number}
        for number in range(9)
    ]
    found = answered(tenant.http.post("/v1/batch", json={"items": items}))
    assert [each["id"] for each in found["results"]] == [each["id"] for each in items]
    outputs = [each.get("output") for each in found["results"]]
    assert outputs == [0, -1, None, 6, -4, None, 12, -7, None]
    assert found["errors"] == ["Function not found: nobody"]
    for wrong in ([], [items[0]] * 5001):
        refused(tenant.http.post("/v1/batch", json={"items": wrong}), 422, "invalid_input")


def test_a0_8_thousands_of_items_are_split_and_none_is_lost(tenant: Tenant) -> None:
    publish(tenant, "counts", "output = input", "javascript")
    found = batch(tenant, "counts", [{"id": "same", "data": number} for number in range(1100)])
    assert [each["output"] for each in found] == list(range(1100))


def test_a0_10_a_measurement_is_taken_out_of_its_envelope(tenant: Tenant) -> None:
    publish(tenant, "normalised", "output = input", normalise=True)
    data = [{"sample": [{"a": 1}, {"a": 2}]}, {"sample": []}, {"sample": {"a": 3}}, [1], 5, {"sample": 7}]
    found = batch(tenant, "normalised", [{"id": str(n), "data": each} for n, each in enumerate(data)])
    assert [each.get("output") for each in found] == [{"a": 1}, None, {"a": 3}, [1], 5, {"sample": 7}]
    assert found[0]["warnings"][0]["code"] == "additional-items-discarded"
    assert "empty-envelope" in found[1]["error"]["message"]


def signed(tenant: Tenant, secret: str, key_id: str, body: bytes, **changes: str) -> httpx2.Response:
    moment = changes.get("timestamp", str(int(time.time())))
    signature = hmac.new(secret.encode(), f"{moment}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/json",
        "X-Casemate-Key-Id": key_id,
        "X-Casemate-Timestamp": moment,
        "X-Casemate-Signature": changes.get("signature", signature),
    }
    dropped = changes.get("without", "")
    return tenant.http.post(
        "/v1/webhooks/batch",
        content=body,
        headers={name: value for name, value in headers.items() if name != dropped},
    )


def test_a0_9_signed_batches_count_once_and_unsigned_ones_never(service: LiveService) -> None:
    tenant = service.tenant()
    publish(tenant, "signed", "output = input['n'] + 1")
    made = service.new_key(tenant.id, "functions:invoke:*")
    secret = made["webhook_secret"]
    anonymous = tenant._replace(http=service.client())
    items = json.dumps([{"id": "a", "macro_id": "signed", "data": '{"n": 41}'}])
    body = json.dumps({"items": items}).encode()
    first = signed(anonymous, secret, made["id"], body)
    assert answered(first)["results"] == [{"id": "a", "macro_id": "signed", "success": True, "output": 42}]
    refused(signed(anonymous, secret, made["id"], body, timestamp=str(int(time.time()) - 360)), 401)
    refused(signed(anonymous, "other", made["id"], body), 401)
    refused(signed(anonymous, secret, "key_other", body), 401)
    for without in ("X-Casemate-Key-Id", "X-Casemate-Timestamp", "X-Casemate-Signature"):
        refused(signed(anonymous, secret, made["id"], body, without=without), 401)
    answered(service.operator.delete(f"/v1/keys/{made['id']}"))
    refused(signed(anonymous, secret, made["id"], body + b" "), 401)


def test_what_its_language_cannot_read_is_not_published(tenant: Tenant) -> None:
    refused(tenant.http.put("/v1/functions/bad", json={"runtime": "python", "code": "def f(:"}), 422, field="code")
    refused(tenant.http.put("/v1/functions/bad", json={"runtime": "cobol", "code": ""}), 422)


def test_s0_37_what_is_older_than_its_retention_is_gone(tmp_path: Path, slowness: float) -> None:
    """A week by default; the records are made older while nobody serves."""
    data = tmp_path / "data"
    with serving(data, slowness=slowness) as service:
        tenant = service.tenant()
        publish(tenant, "prints", "print('said')")
        old, young = (invoke(tenant, "prints")["id"] for _ in range(2))
        logs(tenant, "prints", 2)
    with closing(sqlite3.connect(data / "records.sqlite")) as records, records:
        for column in ("created_us", "started_us", "ended_us"):
            records.execute(f"UPDATE executions SET {column} = {column} - ? WHERE id = ?", (8 * DAY_US, old))
        records.execute("UPDATE function_logs SET at_us = at_us - ? WHERE execution_id = ?", (8 * DAY_US, old))
    with serving(data, slowness=slowness) as service, service.client(tenant.key) as client:
        until_s = time.monotonic() + 10 * slowness
        while client.get(f"/v1/executions/{old}").status_code == 200 and time.monotonic() < until_s:
            continue
        refused(client.get(f"/v1/executions/{old}"), 404)
        assert answered(client.get(f"/v1/executions/{young}"))["id"] == young
        kept = answered(client.get("/v1/functions/prints/logs"))["items"]
        assert [each["execution_id"] for each in kept] == [young]


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        yield json.loads(line)


def test_results_stream_one_a_line_as_they_are_known(tenant: Tenant) -> None:
    publish(tenant, "streams", "output = 1 / input")
    headers = {"Accept": "application/x-ndjson"}
    body = {"items": [{"id": "a", "data": 1}, {"id": "a", "data": 0}, {"id": "", "data": 2}]}
    response = tenant.http.post("/v1/functions/streams/batch", json=body, headers=headers)
    assert response.headers["content-type"].startswith("application/x-ndjson")
    found = list(_lines(response.text))
    assert [each["success"] for each in found] == [True, False, True]
