"""What is used is counted over HTTP, budgets are held to, and whoever has subscribed is told."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import pytest
from tests.service.calling import batch, invoke, publish
from tests.service.live import CONFIG, LiveService, Tenant, answered, events, refused, serving

from casemate.kernel.processes import process_tree
from casemate.model.signature import sign

PRICES: Final = """
[accounting.prices]
currency = "EUR"
run = "0.01"
cpu_s = "0.000011244"
memory_gib_s = "0.000001235"
"""
SLEEPING: Final = "print('begun', flush=True)\nimport time\ntime.sleep(1000)"
LATER: Final = {"Prefer": "respond-async"}
WAIT_S: Final = 60


class Receiver(ThreadingHTTPServer):
    """Takes what it is sent, and answers with the statuses that it was told, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses: list[int] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?x=1"

    def wait_for(self, count: int) -> list[tuple[dict[str, str], bytes]]:
        """What it has taken, once there is so much of it."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= count, WAIT_S), self.taken
            return list(self.taken)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.changed:
            status = self.server.statuses.pop(0) if self.server.statuses else 200
            self.server.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.server.changed.notify_all()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver(service: LiveService) -> Iterator[Receiver]:
    """On a port that the configuration of `service` allows."""
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> Iterator[LiveService]:
    place = tmp_path_factory.mktemp("accounts")
    config = CONFIG + PRICES
    with serving(place / "data", config=config, slowness=slowness) as started:
        yield started


def run(tenant: Tenant, code: str = "pass", **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = answered(tenant.http.post("/v1/executions", json={"code": code, **body}))
    return found


def usage(tenant: Tenant, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = answered(tenant.http.get("/v1/usage", params=query))
    return found


def put_budget(tenant: Tenant, name: str = "b", **terms: Any) -> dict[str, Any]:
    found: dict[str, Any] = answered(tenant.http.put(f"/v1/budgets/{name}", json=terms))
    return found


# Usage --------------------------------------------------------------------------------------------


def test_s2_94_what_a_tenant_uses_adds_up_to_the_use_of_its_runs(service: LiveService) -> None:
    tenant = service.tenant()
    labels = [{"project": "a"}, {"project": "a"}, {"project": "b"}]
    runs = [run(tenant, "sum(range(300_000))", labels=each)["result"]["usage"] for each in labels]
    assert run(tenant, "raise SystemExit(3)")["status"] == "failed"
    found = usage(tenant, group_by="label:project")
    by = {each["by"]: each for each in found["groups"]}
    assert {name: each["runs"] for name, each in by.items()} == {"": 1, "a": 2, "b": 1}
    assert (found["total"]["runs"], found["total"]["failed"], found["currency"]) == (4, 1, "EUR")
    cpu_s = sum(each["cpu_user_s"] + each["cpu_system_s"] for each in runs[:2])
    assert by["a"]["cpu_s"] == pytest.approx(cpu_s, abs=1e-5)
    assert by["a"]["wall_s"] == pytest.approx(sum(each["wall_s"] for each in runs[:2]), abs=1e-5)
    gib_s = sum((each["memory_peak_bytes"] or 0) / 2**30 * each["wall_s"] for each in runs[:2])
    assert by["a"]["memory_gib_s"] == pytest.approx(gib_s, rel=0.01, abs=1e-6)
    cost = 0.02 + 0.000011244 * by["a"]["cpu_s"] + 0.000001235 * by["a"]["memory_gib_s"]
    assert float(by["a"]["cost"]) == pytest.approx(cost, abs=2e-9)


def test_s2_94_functions_and_batches_are_counted_like_code(service: LiveService) -> None:
    tenant = service.tenant()
    publish(tenant, "double", "output = input * 2")
    assert invoke(tenant, "double", 2)["output"] == 4
    batch(tenant, "double", [{"id": str(n), "data": n} for n in range(5)])
    run(tenant)
    by = {each["by"]: each for each in usage(tenant, group_by="kind")["groups"]}
    assert {name: each["runs"] for name, each in by.items()} == {"batch": 1, "code": 1, "function": 1}
    assert all(each["wall_s"] > 0 for each in by.values())


def test_usage_is_told_by_key_and_by_day(service: LiveService) -> None:
    tenant = service.tenant()
    other = service.new_key(tenant.id, "executions:run")
    run(tenant)
    with service.client(other["key"]) as client:
        answered(client.post("/v1/executions", json={"code": "pass"}))
    by_key = {each["by"]: each["runs"] for each in usage(tenant, group_by="key")["groups"]}
    assert by_key[other["id"]] == 1
    assert sum(by_key.values()) == 2
    assert usage(tenant, key=other["id"])["total"]["runs"] == 1
    days = usage(tenant, group_by="day")
    assert sum(each["runs"] for each in days["groups"]) == 2
    assert usage(tenant, since="2020-01-01", until="2020-01-31")["total"]["runs"] == 0


def test_x6_the_operator_sees_all_usage_and_a_tenant_its_own(service: LiveService) -> None:
    one, other = service.tenant(), service.tenant()
    run(one)
    by = {each["by"]: each["runs"] for each in usage(one, group_by="tenant")["groups"]}
    assert by == {one.id: 1}
    refused(one.http.get("/v1/usage", params={"tenant": other.id}), 404, "not_found")
    found = answered(service.operator.get("/v1/usage", params={"group_by": "tenant"}))
    assert one.id in {each["by"] for each in found["groups"]}
    named = answered(service.operator.get("/v1/usage", params={"tenant": one.id}))
    assert named["total"]["runs"] == 1
    refused(one.http.get("/v1/budgets", params={"tenant": other.id}), 404, "not_found")


def test_s2_94_whatever_is_killed_nothing_is_counted_twice_or_left_out(tmp_path: Path, slowness: float) -> None:
    with serving(tmp_path / "data", slowness=slowness) as service:
        tenant = service.tenant()

        def ask(number: int) -> None:
            with service.client(tenant.key) as client, suppress(httpx2.HTTPError):
                client.post("/v1/executions", json={"code": "pass", "labels": {"n": str(number)}})

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, number) for number in range(60)]
            for at in (20, 40):
                asked[at].result(WAIT_S)
                os.kill(child_of(service, "casemate.api"), signal.SIGKILL)
            for each in asked:
                each.result(WAIT_S)
        rows = list_all(tenant, "/v1/executions")
        counted = {each["by"]: each["runs"] for each in usage(tenant, group_by="label:n")["groups"]}
    ended = [each["labels"]["n"] for each in rows if each["state"] == "ended" and each["reason"] != "lost"]
    assert len(ended) > 30
    assert counted == dict.fromkeys(ended, 1)


def list_all(tenant: Tenant, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = answered(tenant.http.get(path, params=query))
        found += page["items"]
        if not page["next_cursor"]:
            return found
        query["cursor"] = page["next_cursor"]


def child_of(service: LiveService, module: str) -> int:
    for pid in process_tree(service.process.pid):
        with suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise AssertionError(f"there is no {module}")


@pytest.mark.parametrize(
    "query", [{"since": "yesterday"}, {"group_by": "mood"}, {"since": "2030-02-01", "until": "2030-01-01"}]
)
def test_a_question_that_makes_no_sense_is_refused(service: LiveService, query: dict[str, str]) -> None:
    refused(service.operator.get("/v1/usage", params=query), 422, "invalid_input")


# Budgets ------------------------------------------------------------------------------------------


def test_s2_94_a_hard_budget_ends_what_runs_and_refuses_what_comes(service: LiveService) -> None:
    tenant = service.tenant()
    put_budget(tenant, "few", unit="runs", period="total", hard=1)
    started = answered(tenant.http.post("/v1/executions", json={"code": SLEEPING}, headers=LATER), 202)
    url = f"/v1/executions/{started['id']}"
    with tenant.http.stream("GET", f"{url}/events") as response:
        told = events(response.iter_lines())
        next(each for each in told if each[0] == "stdout")
        run(tenant)
        _, _, ended = next(each for each in told if each[0] == "result")
    assert (ended["status"], ended["reason"]) == ("failed", "denied")
    assert any("few" in each["detail"] for each in ended["result"]["events"])
    problem = refused(tenant.http.post("/v1/executions", json={"code": "pass"}), 402, "budget_exceeded")
    assert "'few' of 1 runs in all" in problem["message"]
    publish(tenant, "f", "output = 1")
    refused(tenant.http.post("/v1/functions/f/invoke", json={"data": 1}), 402, "budget_exceeded")
    put_budget(tenant, "few", unit="runs", period="total", hard=100)
    assert run(tenant)["status"] == "succeeded"


def test_a_hard_budget_ends_calls_of_functions(service: LiveService) -> None:
    tenant = service.tenant()
    publish(tenant, "slow", "import time\nprint('begun', flush=True)\ntime.sleep(1000)")
    put_budget(tenant, "few", unit="runs", period="day", hard=1)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(invoke, tenant, "slow", 1)
        while service.running_count() == 0:
            assert not calling.done()
        run(tenant)
        found = calling.result(WAIT_S)
    assert (found["success"], found["reason"]) == (False, "denied")
    assert "few" in found["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/executions", "/v1/jobs"])
def test_s2_94_what_runs_for_long_is_ended_by_a_hard_budget_that_it_uses_up_itself(
    service: LiveService, path: str
) -> None:
    tenant = service.tenant()
    put_budget(tenant, "short", unit="wall_s", period="total", hard="0.5")
    body = {"code": SLEEPING, "runtime": "python"} | ({"limits": {"timeout": "25s"}} if "exec" in path else {})
    started = answered(tenant.http.post(path, json=body, headers=LATER), 202)
    with tenant.http.stream("GET", f"{path}/{started['id']}/events") as response:
        _, _, ended = next(each for each in events(response.iter_lines()) if each[0] == "result")
    assert ended["reason"] == "denied", ended
    assert any("short" in each["detail"] for each in ended["result"]["events"])
    refused(tenant.http.post(path, json=body), 402, "budget_exceeded")


def job(tenant: Tenant, command: str, **body: Any) -> dict[str, Any]:
    """A job that has ended."""
    made = answered(tenant.http.post("/v1/jobs", json={"command": command, **body}), 202)
    found: dict[str, Any] = answered(tenant.http.get(f"/v1/jobs/{made['id']}", params={"wait": 60}))
    return found


def test_s2_94_each_attempt_at_a_job_is_counted(service: LiveService) -> None:
    tenant = service.tenant()
    ended = job(tenant, "sh -c 'exit 3'", labels={"n": "1"}, retries={"max": 1, "backoff": 0.01})
    assert (ended["state"], ended["attempt"]) == ("dead", 2)
    assert job(tenant, "true", labels={"n": "2"})["state"] == "succeeded"
    own = answered(tenant.http.get(f"/v1/jobs/{ended['id']}/usage"))
    assert (own["runs"], own["failed"], own["currency"]) == (2, 2, "EUR")
    assert own["wall_s"] > 0
    assert float(own["cost"]) >= 0.02
    refused(service.tenant().http.get(f"/v1/jobs/{ended['id']}/usage"), 404, "not_found")
    by = {each["by"]: (each["runs"], each["failed"]) for each in usage(tenant, group_by="label:n")["groups"]}
    assert by == {"1": (2, 2), "2": (1, 0)}
    kinds = usage(tenant, group_by="kind")["groups"]
    assert [each["by"] for each in kinds] == ["job"]
    assert kinds[0]["wall_s"] > 0


def test_what_the_operator_has_set_is_not_the_tenants_to_change(service: LiveService) -> None:
    tenant = service.tenant()
    imposed = answered(
        service.operator.put("/v1/budgets/month", params={"tenant": tenant.id}, json={"hard": "12.50", "soft": 10})
    )
    assert (imposed["hard"], imposed["soft"], imposed["is_imposed"]) == ("12.5", "10", True)
    refused(tenant.http.put("/v1/budgets/month", json={"hard": 1000}), 409, "conflict")
    refused(tenant.http.delete("/v1/budgets/month"), 409, "conflict")
    put_budget(tenant, "own", hard=3)
    assert [each["name"] for each in answered(tenant.http.get("/v1/budgets"))["items"]] == ["month", "own"]
    assert tenant.http.delete("/v1/budgets/own").status_code == 204
    assert service.operator.delete("/v1/budgets/month", params={"tenant": tenant.id}).status_code == 204
    assert answered(tenant.http.get("/v1/budgets"))["items"] == []


@pytest.mark.parametrize(
    ("terms", "field"), [({}, "hard"), ({"soft": 2, "hard": 1}, "soft"), ({"hard": 0}, "hard"), ({"hard": "x"}, "hard")]
)
def test_a_budget_that_bounds_nothing_is_refused(service: LiveService, terms: dict[str, Any], field: str) -> None:
    refused(service.operator.put("/v1/budgets/b", json=terms), 422, "invalid_input", field)


# Webhooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "https://127.0.0.1/", "https://10.0.0.1/", "http://example.com/", "https://[::1]:8443/"],
)
def test_a_webhook_leads_to_no_address_of_ours(service: LiveService, url: str) -> None:
    refused(service.operator.post("/v1/webhooks", json={"url": url}), 422, "invalid_input", "url")


def test_x6_webhooks_are_each_tenants_own_and_their_secret_is_shown_once(service: LiveService) -> None:
    one, other = service.tenant(), service.tenant()
    body = {"url": "https://hooks.example.com/", "events": ["budget.*"]}
    response = one.http.post("/v1/webhooks", json=body)
    made = answered(response, 201)
    assert response.headers["cache-control"] == "no-store"
    assert len(made["secret"]) == 64
    assert made["secret"] not in one.http.get(f"/v1/webhooks/{made['id']}").text
    assert answered(other.http.get("/v1/webhooks"))["items"] == []
    refused(other.http.delete(f"/v1/webhooks/{made['id']}"), 404, "not_found")
    assert one.http.delete(f"/v1/webhooks/{made['id']}").status_code == 204
    refused(one.http.get(f"/v1/webhooks/{made['id']}"), 404, "not_found")


def test_budgets_tell_a_receiver_by_signed_notices(tmp_path: Path, slowness: float, receiver: Receiver) -> None:
    hosts = f'[accounting]\nwebhook_hosts = ["127.0.0.1:{receiver.server_address[1]}"]\n'
    with serving(tmp_path / "data", config=CONFIG + hosts, slowness=slowness) as service:
        tenant = service.tenant()
        made = answered(tenant.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["budget.*"]}), 201)
        put_budget(tenant, "few", unit="runs", soft=1, hard=2)
        run(tenant)
        run(tenant)
        taken = receiver.wait_for(2)
        sent = {each["kind"]: each for each in (msgspec.json.decode(body) for _, body in taken)}
        assert sent.keys() == {"budget.soft", "budget.hard"}
        assert sent["budget.hard"]["data"]["spent"] == "2"
        for headers, body in taken:
            code = sign(made["secret"].encode(), headers["x-casemate-timestamp"], body)
            assert headers["x-casemate-signature"] == code
            assert headers["x-casemate-event-id"] == msgspec.json.decode(body)["id"]
        answered(tenant.http.post(f"/v1/webhooks/{made['id']}/test", json={}), 202)
        assert msgspec.json.decode(receiver.wait_for(3)[2][1])["kind"] == "test"
        notices = answered(tenant.http.get(f"/v1/webhooks/{made['id']}/notices"))["items"]
        assert [each["kind"] for each in notices] == ["test", "budget.hard", "budget.soft"]


def test_jobs_tell_a_receiver_how_they_go(tmp_path: Path, slowness: float, receiver: Receiver) -> None:
    hosts = f'[accounting]\nwebhook_hosts = ["127.0.0.1:{receiver.server_address[1]}"]\n'
    with serving(tmp_path / "data", config=CONFIG + hosts, slowness=slowness) as service:
        tenant = service.tenant()
        answered(tenant.http.post("/v1/webhooks", json={"url": receiver.url, "events": ["job.*"]}), 201)
        good, bad = job(tenant, "true"), job(tenant, "false")
        told = [msgspec.json.decode(body) for _, body in receiver.wait_for(6)]
    by = {each: [one["kind"] for one in told if one["data"]["id"] == each] for each in (good["id"], bad["id"])}
    assert sorted(by[good["id"]]) == ["job.queued", "job.running", "job.succeeded"]
    assert sorted(by[bad["id"]])[1:] == ["job.queued", "job.running"]
