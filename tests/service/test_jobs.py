"""Jobs over HTTP, carried out by a real node: from a request to the end of a process tree."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.service.live import CONFIG, LiveService, Tenant, answered, events, refused, serving

import casemate

LONG = "sleep 600"


def submitted(tenant: Tenant, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = answered(tenant.http.post("/v1/jobs", json=body), 202)
    return made


def ended(tenant: Tenant, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended."""
    while True:
        found: dict[str, Any] = answered(tenant.http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
        if found["state"] in {"succeeded", "failed", "cancelled", "dead"}:
            return found


def run(tenant: Tenant, **body: Any) -> dict[str, Any]:
    return ended(tenant, submitted(tenant, **body))


def told(tenant: Tenant, job: dict[str, Any], **headers: str) -> list[tuple[str, str, Any]]:
    with tenant.http.stream("GET", f"/v1/jobs/{job['id']}/events", headers=headers) as stream:
        return list(events(stream.iter_lines()))


def until_running(tenant: Tenant, job: dict[str, Any]) -> None:
    with tenant.http.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        for kind, _, data in events(stream.iter_lines()):
            if kind == "state" and data["state"] == "running":
                return
    raise AssertionError("it never ran")


def sleepers(seconds: str) -> list[int]:
    """Processes of this machine that sleep for so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_s2_1_s2_2_s2_41_a_job_runs_from_a_request_to_its_result(tenant: Tenant) -> None:
    job = run(tenant, command="cat input/a.txt", files=[{"path": "a.txt", "content": "hello"}], labels={"a": "b"})
    assert (job["state"], job["status"], job["reason"], job["exit_code"]) == ("succeeded", "succeeded", "exit", 0)
    assert job["result"]["stdout"]["text"] == "hello"
    assert job["result"]["isolation"]["layers"]
    listed = answered(tenant.http.get("/v1/jobs", params={"label": "a=b"}))["items"]
    assert [each["id"] for each in listed] == [job["id"]]


def test_s2_42_an_exit_code_that_is_not_zero_is_a_failure(tenant: Tenant) -> None:
    job = run(tenant, command=["sh", "-c", "exit 3"])
    assert (job["state"], job["status"], job["exit_code"]) == ("failed", "failed", 3)


def test_s2_11_a_timeout_ends_the_whole_tree(tenant: Tenant) -> None:
    job = run(tenant, command="setsid sleep 61.25 & sleep 61.25 & wait", shell=True, timeout=0.5)
    assert (job["state"], job["reason"]) == ("failed", "timeout")
    assert sleepers("61.25") == []


def test_s2_11_and_s2_38_a_cancelled_job_has_no_process_any_more(tenant: Tenant) -> None:
    job = submitted(tenant, command="sleep 62.25 & sleep 62.25", shell=True, retries={"max": 3})
    until_running(tenant, job)
    found = answered(tenant.http.post(f"/v1/jobs/{job['id']}/cancel", json={}))
    assert (found["state"], found["reason"], found["attempt"]) == ("cancelled", "cancelled", 1)
    assert sleepers("62.25") == []
    assert answered(tenant.http.post(f"/v1/jobs/{job['id']}/cancel", json={}))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("printf '%s\\n' 'two words' x", "two words\nx\n"),
        (["printf", "%s\n", "two words", "a'b\"c", "*"], "two words\na'b\"c\n*\n"),
        ("echo $HOME; id | cat", "$HOME; id | cat\n"),
    ],
)
def test_s2_9_s2_45_words_arrive_as_they_are_and_signs_of_a_shell_do_nothing(
    tenant: Tenant, command: str | list[str], expected: str
) -> None:
    assert run(tenant, command=command)["result"]["stdout"]["text"] == expected


def test_s2_10_a_job_sees_its_own_variables_and_a_fixed_few(tenant: Tenant) -> None:
    text = run(tenant, command="env", environment={"MINE": "1"})["result"]["stdout"]["text"]
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert "MINE" in names
    assert names <= {"MINE", "PATH", "HOME", "USER", "LOGNAME", "LANG", "PWD", "TMPDIR", "SHLVL", "_"}


def test_s2_91_two_retries_are_three_attempts_with_growing_delays(tenant: Tenant) -> None:
    job = run(tenant, command="false", retries={"max": 2, "backoff": 0.2})
    assert (job["state"], job["attempt"], job["exit_code"]) == ("dead", 3, 1)
    details = [each["detail"] for each in job["transitions"] if each["state"] == "queued"]
    assert details == ["", "exit code 1; again in 0.2 s", "exit code 1; again in 0.4 s"]
    dead = answered(tenant.http.get("/v1/jobs/dead"))["items"]
    assert job["id"] in [each["id"] for each in dead]
    answered(tenant.http.post(f"/v1/jobs/{job['id']}/retry", json={}), 202)
    again = ended(tenant, job)
    assert (again["state"], again["attempt"]) == ("dead", 3)


def test_s2_34_s2_35_s2_37_s2_38_every_step_is_told_in_order(tenant: Tenant) -> None:
    job = submitted(tenant, command="true")
    found = told(tenant, job)
    states = [(data["state"], data["detail"]) for kind, _, data in found if kind == "state"]
    assert [state for state, _ in states] == ["queued", "preparing", "running", "collecting", "cleaned", "succeeded"]
    assert states[-2] == ("cleaned", "")
    assert found[-1][0] == "result"
    assert found[-1][2]["state"] == "succeeded"
    again = told(tenant, job, **{"Last-Event-ID": "4"})
    assert [data["state"] for _, _, data in again] == ["cleaned", "succeeded", "succeeded"]
    assert [data.get("detail") for _, _, data in again] == ["", "exit code 0", None]


def test_s2_77_what_a_job_uses_is_told_while_it_runs(tenant: Tenant) -> None:
    job = submitted(tenant, command="while :; do :; done", shell=True)
    with tenant.http.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        usage = next(data for kind, _, data in events(stream.iter_lines()) if kind == "usage")
    assert usage["processes"] >= 1
    assert answered(tenant.http.get(f"/v1/jobs/{job['id']}"))["usage"]["memory_bytes"] > 0
    answered(tenant.http.post(f"/v1/jobs/{job['id']}/cancel", json={}))


def test_s2_12_s2_47_half_a_processor_is_half_a_processor(tenant: Tenant, slowness: float) -> None:
    usage = run(tenant, command="while :; do :; done", shell=True, timeout=2 * slowness, resources={"cpu": "0.5"})[
        "result"
    ]["usage"]
    assert (usage["cpu_user_s"] + usage["cpu_system_s"]) / usage["wall_s"] <= 0.65


def test_s2_4_s2_48_too_much_memory_is_named(tenant: Tenant) -> None:
    job = run(
        tenant, command=["python3", "-c", "print(len(bytearray(200 << 20)))"], resources={"memory": "64Mi", "cpu": 1}
    )
    assert (job["state"], job["reason"]) == ("failed", "memory")


def test_s2_13_s2_49_a_full_disk_is_named(tenant: Tenant) -> None:
    job = run(tenant, command="head -c 100M /dev/zero > x", shell=True, resources={"disk": "1Mi"})
    assert (job["state"], job["reason"]) == ("failed", "disk")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"command": "ls", "resources": {"cpu": "half"}}, "limits.cpu"),
        ({"command": "ls", "resources": {"memory": "64Gi"}}, "limits.memory"),
        ({"command": "ls 'open"}, "command"),
        ({}, "command"),
        ({"command": "ls", "id": "a/b"}, "id"),
        ({"command": "ls", "image": "other"}, "image"),
        ({"command": "ls", "files": [{"path": "../x", "content": ""}]}, "files[0].path"),
        ({"command": "ls", "files": [{"path": "x", "content": "", "mode": "rw"}]}, "files[0].mode"),
        ({"command": "ls", "files": [{"path": "x", "object": "shared/none"}]}, "files[0]"),
        ({"command": "ls", "schedule": "61 * * * *"}, "schedule.cron"),
        ({"command": "ls", "schedule": {"cron": "* * * * *", "zone": "Nowhere/At"}}, "schedule.zone"),
        ({"command": "ls", "template": "none"}, "template"),
    ],
)
def test_s2_3_a_bad_job_is_refused_by_its_field_before_anything_starts(
    tenant: Tenant, body: dict[str, Any], field: str
) -> None:
    refused(tenant.http.post("/v1/jobs", json=body), 422, field=field)


def test_s2_8_ids_may_be_chosen_and_mean_one_job(service: LiveService, tenant: Tenant) -> None:
    submitted(tenant, command="true", id="nightly.1")
    ended(tenant, {"id": "nightly.1"})
    again = answered(tenant.http.post("/v1/jobs", json={"command": "true", "id": "nightly.1"}), 200)
    assert again["state"] == "succeeded"
    refused(tenant.http.post("/v1/jobs", json={"command": "false", "id": "nightly.1"}), 409, "conflict")
    run(service.tenant(), command="false", id="nightly.1")


def test_one_idempotency_key_is_one_job(tenant: Tenant) -> None:
    headers = {"Idempotency-Key": "job-once"}
    one = answered(tenant.http.post("/v1/jobs", json={"command": "true"}, headers=headers), 202)
    other = answered(tenant.http.post("/v1/jobs", json={"command": "true"}, headers=headers), 202)
    assert one["id"] == other["id"]
    ended(tenant, one)


def test_s2_8_of_another_tenants_job_nothing_can_be_known_or_done(service: LiveService, tenant: Tenant) -> None:
    job = run(tenant, command="true")
    other = service.tenant()
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/rerun"),
        ("POST", "/retry"),
        ("DELETE", ""),
    ):
        body: dict[str, Any] = {"json": {}} if method == "POST" else {}
        refused(other.http.request(method, f"/v1/jobs/{job['id']}{path}", **body), 404, "not_found")
    assert job["id"] not in [each["id"] for each in answered(other.http.get("/v1/jobs"))["items"]]


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        ("jobs:submit", "POST", "/v1/jobs"),
        ("jobs:read", "GET", "/v1/jobs"),
        ("jobs:read", "GET", "/v1/queue"),
        ("jobs:cancel", "POST", "/v1/jobs/x/cancel"),
        ("jobs:manage", "DELETE", "/v1/jobs/x"),
        ("jobs:manage", "POST", "/v1/queue/pause"),
        ("schedules:manage", "DELETE", "/v1/schedules/x"),
    ],
)
def test_each_route_needs_its_scope(service: LiveService, tenant: Tenant, scope: str, method: str, path: str) -> None:
    http = service.client(service.key(tenant.id, "*", deny=(scope,)))
    body: dict[str, Any] = {"json": {"command": "true"} if path == "/v1/jobs" else {}} if method == "POST" else {}
    assert scope in refused(http.request(method, path, **body), 403, "permission_denied")["message"]


def test_a_job_is_run_again_and_deleted(tenant: Tenant) -> None:
    job = run(tenant, command="cat input/x", files=[{"path": "x", "content": "kept"}])
    again = answered(tenant.http.post(f"/v1/jobs/{job['id']}/rerun", json={}), 202)
    assert again["id"] != job["id"]
    assert ended(tenant, again)["result"]["stdout"]["text"] == "kept"
    assert tenant.http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    refused(tenant.http.get(f"/v1/jobs/{job['id']}"), 404)


def test_a_paused_queue_begins_nothing_and_has_a_bound(service: LiveService) -> None:
    tenant = service.tenant(queue_max=2)
    assert answered(tenant.http.post("/v1/queue/pause", json={}))["paused"]
    jobs = [submitted(tenant, command="true") for _ in range(2)]
    found = refused(tenant.http.post("/v1/jobs", json={"command": "true"}), 429, "too_many_requests")
    assert "2" in found["message"]
    queue = answered(tenant.http.get("/v1/queue"))
    assert (queue["waiting"], queue["active"], queue["paused"]) == (2, 0, True)
    refused(tenant.http.post("/v1/queue/pause", params={"all": "true"}, json={}), 422)
    answered(tenant.http.post("/v1/queue/resume", json={}))
    assert [ended(tenant, job)["state"] for job in jobs] == ["succeeded", "succeeded"]


def test_s2_67_s2_68_s2_69_s2_70_jobs_are_counted(service: LiveService, tenant: Tenant) -> None:
    def count(line: str) -> float:
        lines = service.operator.get("/metrics").text.splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(line))

    before = {name: count(name) for name in COUNTED}
    run(tenant, command="head -c 1G /dev/zero | wc -c", shell=True)  # for many ticks of the kernel
    run(tenant, command="false")
    refused(tenant.http.post("/v1/jobs", json={"command": "sudo true"}), 403, "not_allowed", "command")
    assert {name: count(name) - before[name] for name in COUNTED} == dict.fromkeys(COUNTED, 1.0)
    assert count("casemate_job_slots ") >= 2
    assert count("casemate_job_cpu_seconds_total ") > 0
    assert count("casemate_job_memory_bytes_sum ") > 0
    assert count("casemate_job_wait_seconds_count ") > 0


COUNTED = (
    'casemate_jobs_total{reason="exit",state="succeeded"}',
    'casemate_jobs_total{reason="exit",state="failed"}',
    'casemate_security_incidents_total{kind="command"}',
)


TRACES = "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)"


def test_s2_62_s2_69_a_forbidden_system_call_is_told_and_counted(service: LiveService, tenant: Tenant) -> None:
    def count() -> float:
        lines = service.operator.get("/metrics").text.splitlines()
        counted = 'casemate_security_incidents_total{kind="syscall"} '
        return sum(float(each.removeprefix(counted)) for each in lines if each.startswith(counted))

    before = count()
    job = run(tenant, command=["python3", "-c", TRACES])
    if "watched-calls" not in job["result"]["isolation"]["layers"]:
        pytest.skip("layer watched-calls: this kernel has no notifier of seccomp")
    told = [(each["kind"], each["detail"]) for each in job["result"]["events"]]
    assert told == [("syscall", "ptrace: 1 refused")]
    assert count() - before == 1


REACHES = """
import socket
with socket.create_connection(("192.0.2.7", 80), 20) as connection:
    connection.sendall(b"GET / HTTP/1.1\\r\\nHost: 192.0.2.7\\r\\n\\r\\n")
    connection.recv(1)
"""


def test_s2_5_a_job_reaches_nothing_that_it_was_not_allowed(tenant: Tenant) -> None:
    job = run(tenant, command=["python3", "-c", REACHES], resources={"cpu": 1})
    assert job["state"] == "failed"
    assert "unreachable" in job["result"]["stderr"]["text"].lower()
    network = {"outbound": True, "allowed_hosts": ["allowed.invalid"]}
    job = run(tenant, command=["python3", "-c", REACHES], resources={"cpu": 1}, network=network)
    assert job["state"] == "failed"
    assert "network-refused" in [each["kind"] for each in job["result"]["events"]]


def test_s2_7_s2_38_s2_95_of_jobs_that_have_ended_nothing_is_left_and_nothing_runs_for_none(
    tmp_path: Path, slowness: float
) -> None:
    data = tmp_path / "data"
    with serving(data, slowness=slowness) as service:
        tenant = service.tenant()
        run(tenant, command="true")
        for command in ("true", "false"):
            run(tenant, command=command, files=[{"path": "a", "content": "x"}])
        run(tenant, command="sleep 64.25 & sleep 64.25", shell=True, timeout=0.3)
        assert sleepers("64.25") == []
        assert list((data / "run/spool").iterdir()) == []
        queue = answered(tenant.http.get("/v1/queue"))
        assert (queue["waiting"], queue["active"]) == (0, 0)
        assert service.gauge("casemate_job_slots_taken") == 0.0


def test_jobs_and_schedules_from_python(service: LiveService, tenant: Tenant) -> None:
    with casemate.Client(service.url, tenant.key) as client:
        job = client.jobs.submit(["cat", "input/a"], id="from-python", files={"a": b"\xff"}, labels={"from": "python"})
        ended_job = client.jobs.wait(job.id)
        assert (ended_job.ok, ended_job.exit_code, ended_job.has_ended) == (True, 0, True)
        assert [each.id for each in client.jobs.list(label="from=python")] == ["from-python"]
        assert client.jobs.rerun(job.id, id="again").id == "again"
        assert client.jobs.wait("again").ok
        client.jobs.delete("again")
        waits = client.jobs.submit(LONG, retries=1)
        assert client.jobs.cancel(waits.id).state == "cancelled"
        failed = client.jobs.submit("false", retries={"max": 1, "backoff": 0.01})
        assert client.jobs.wait(failed.id).state == "dead"
        assert failed.id in [each.id for each in client.jobs.dead()]
        assert client.jobs.retry(failed.id).state == "queued"
        assert client.jobs.pause().paused
        assert not client.jobs.resume().paused
        made = client.schedules.create("@daily", {"command": "true"}, zone="Asia/Tokyo", name="daily")
        assert client.schedules.change(made.id, paused=True).paused
        assert [each.name for each in client.schedules.list() if each.id == made.id] == ["daily"]
        client.schedules.delete(made.id)


def test_jobs_from_asynchronous_python(service: LiveService, tenant: Tenant) -> None:
    async def test() -> None:
        async with casemate.AsyncClient(service.url, tenant.key) as client:
            job = await client.jobs.submit("echo hello", timeout="20s", resources={"memory": "64Mi"})
            assert (await client.jobs.wait(job.id)).ok
            assert [line.data async for line in client.logs.read(job.id)] == [b"hello\n"]
            with pytest.raises(casemate.NotAllowed):
                await client.jobs.submit("sudo true")

    asyncio.run(test())


def test_schedules_are_made_changed_listed_and_deleted(tenant: Tenant) -> None:
    wanted = {"cron": "30 2 * * 1-5", "zone": "Europe/Berlin", "missed": "once"}
    made = answered(tenant.http.post("/v1/jobs", json={"command": "true", "id": "backup", "schedule": wanted}), 201)
    assert (made["name"], made["cron"], made["zone"], made["missed"]) == ("backup", *wanted.values())
    assert made["next_at"] is not None
    path = f"/v1/schedules/{made['id']}"
    assert answered(tenant.http.patch(path, json={"paused": True}))["paused"]
    assert [each["id"] for each in answered(tenant.http.get("/v1/schedules"))["items"]] == [made["id"]]
    refused(tenant.http.patch(path, json={"cron": "never"}), 422, field="schedule.cron")
    assert tenant.http.delete(path).status_code == 204
    refused(tenant.http.get(path), 404)


POLICY = (
    CONFIG
    + """
[jobs]
concurrency = 2
allowed_commands = ["ls", "cat", "grep", "curl", "wget", "sleep"]
allowed_hosts = ["api.github.com"]
"""
)


def test_s2_39_s2_71_s2_84_an_operators_policy_is_kept_and_what_is_queued_survives_a_kill(
    tmp_path: Path, slowness: float
) -> None:
    data = tmp_path / "data"
    with serving(data, config=POLICY, environment={"SANDBOX_DEFAULT_TIMEOUT": "77"}, slowness=slowness) as service:
        tenant = service.tenant()
        for command in ("rm x", "ls; rm x", "ls $(rm x)", "ls | rm"):
            refused(tenant.http.post("/v1/jobs", json={"command": command}), 403, "not_allowed", "command")
        network = {"outbound": True, "allowed_hosts": ["example.org"]}
        found = refused(
            tenant.http.post("/v1/jobs", json={"command": "curl http://example.org/", "network": network}), 403
        )
        assert "'example.org'" in found["message"]
        job = run(tenant, command="ls input", files=[{"path": "seen", "content": ""}])
        assert job["result"]["stdout"]["text"] == "seen\n"
        assert job["spec"]["limits"]["timeout"] == "77"
        running = [submitted(tenant, command="sleep 63.25") for _ in range(2)]
        for each in running:
            until_running(tenant, each)
        waiting = [submitted(tenant, command="ls") for _ in range(5)]
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
    with serving(data, config=POLICY, slowness=slowness) as service:
        http = service.client(tenant.key)
        again = Tenant(tenant.id, tenant.name, tenant.key, http)
        for each in running:
            answered(http.post(f"/v1/jobs/{each['id']}/cancel", json={}))
            assert ended(again, each)["state"] == "cancelled"
        assert [ended(again, each)["state"] for each in waiting] == ["succeeded"] * 5
    assert sleepers("63.25") == []


def test_s2_22_a_job_is_made_from_a_template(tenant: Tenant) -> None:
    template = {"command": "printenv GREETING", "environment": {"GREETING": "hello"}, "labels": {"from": "template"}}
    put = tenant.http.put("/v1/objects/templates/greet", content=json.dumps(template).encode())
    assert put.status_code in {200, 201}, put.text
    job = run(tenant, template="greet")
    assert job["result"]["stdout"]["text"] == "hello\n"
    assert (job["template"], job["labels"]) == ("greet", {"from": "template"})
    other = run(tenant, template="greet", environment={"GREETING": "bye"})
    assert other["result"]["stdout"]["text"] == "bye\n"
