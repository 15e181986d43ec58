"""Runners over HTTP: each language's, with the events, envelopes and texts that such runners have always had."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any, Final

import pytest
from tests.service.calling import envelope, packed, results
from tests.service.live import CONFIG, LiveService, Tenant, answered, refused, serving

LANGUAGES: Final = ("python", "javascript", "r")
ROOTS: Final = [{"a": {"b": [1]}}, {}, 42, None, [{"x": 1}], [{"x": 1}, {"x": 2}], [], [1, 2], {"sample": [1, 2]}]
ECHO: Final = {
    "python": "output['seen'] = json",
    "javascript": "output.seen = json",
    "r": "output$seen <- json",
}


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
