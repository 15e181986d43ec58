"""Functions over HTTP: published, called one by one and in batches, within the limits of their languages."""

from __future__ import annotations

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
from tests.service.calling import batch, invoke, publish, results
from tests.service.live import LiveService, Tenant, answered, refused, serving

if TYPE_CHECKING:
    import httpx2

DAY_US: Final = 24 * 3600 * 1_000_000
SETTLE_S: Final = 60.0


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
    until_s = time.monotonic() + SETTLE_S
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
    assert tenant.http.delete("/v1/functions/moves/aliases/next").status_code == 204
    refused(tenant.http.post("/v1/functions/moves/invoke?alias=next", json={}), 404)
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
        "Idempotency-Key": "of-a-sender-that-always-has-one",
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
        until_s = time.monotonic() + SETTLE_S * slowness
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
