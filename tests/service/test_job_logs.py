"""Logs of jobs that a real node carries out: told while they run, whole after the API was killed, in the job's area."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.live import LiveService, Tenant, answered, events, refused, serving
from tests.service.test_attacks import child
from tests.service.test_jobs import ended, run, submitted

import casemate
from casemate.model.job_log import LogEntry

COUNTING = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.05; done"


@pytest.fixture
def alone(tmp_path: Path, slowness: float) -> Iterator[LiveService]:
    """A service of the test's own."""
    with serving(tmp_path / "data", slowness=slowness) as started:
        yield started


def client_of(service: LiveService, tenant: Tenant) -> casemate.Client:
    return casemate.Client(service.url, tenant.key)


def test_s2_6_s2_64_lines_arrive_while_the_job_runs(tenant: Tenant) -> None:
    job = submitted(tenant, command="echo begun; sleep 600", shell=True)
    headers = {"Accept": "text/event-stream"}
    with tenant.http.stream("GET", f"/v1/jobs/{job['id']}/logs", headers=headers) as stream:
        told = events(stream.iter_lines())
        kind, identity, line = next(told)
        assert (kind, identity, line["text"], line["stream"]) == ("log", "1", "begun", "stdout")
        tenant.http.post(f"/v1/jobs/{job['id']}/cancel", json={})
        *_, (kind, _, document) = told
    assert kind == "end"
    assert document["state"] == "cancelled"


def test_a2_7_both_streams_come_in_the_order_of_their_lines(service: LiveService, tenant: Tenant) -> None:
    job = run(tenant, command="for i in 1 2 3; do echo out $i; echo err $i >&2; done", shell=True)
    with client_of(service, tenant) as client:
        lines = list(client.logs.read(job["id"]))
    assert [line.text for line in lines if line.stream == "stdout"] == ["out 1", "out 2", "out 3"]
    assert [line.text for line in lines if line.stream == "stderr"] == ["err 1", "err 2", "err 3"]


def test_s2_64_a_log_is_followed_over_attempts_while_the_api_is_killed(alone: LiveService) -> None:
    tenant = alone.tenant()
    told: list[LogEntry] = []
    killed = 0
    with client_of(alone, tenant) as client:
        job = submitted(tenant, command=COUNTING, shell=True)
        for entry in client.logs.follow(job["id"]):
            told.append(entry)
            if entry.attempt > killed and killed < 2 and len([each for each in told if each.attempt > killed]) > 10:
                killed += 1
                os.kill(child(alone, "casemate.api"), signal.SIGKILL)
        assert ended(tenant, job)["state"] == "succeeded"
        assert killed == 2
        assert told == list(client.logs.read(job["id"]))
    assert [entry.seq for entry in told] == list(range(1, len(told) + 1))
    last = [entry.text for entry in told if entry.attempt == told[-1].attempt and entry.stream == "stdout"]
    assert last == [f"line {number}" for number in range(1, 61)]


def test_s2_63_s2_65_a_log_is_found_and_every_line_of_the_services_own_is_json(alone: LiveService) -> None:
    tenant = alone.tenant()
    other = alone.tenant()
    job = run(tenant, command="printf 'needle in a haystack\\n{ \" \\\\ \\033[1m'", shell=True)
    run(tenant, command="exit 3", shell=True)
    refused(tenant.http.get("/v1/jobs/none/logs"), 404)
    refused(other.http.get(f"/v1/jobs/{job['id']}/logs"), 404)
    found = answered(tenant.http.get("/v1/logs", params={"text": "HAYSTACK need"}))["items"]
    assert [(line["job_id"], line["text"]) for line in found] == [(job["id"], "needle in a haystack")]
    assert answered(other.http.get("/v1/logs", params={"text": "needle"}))["items"] == []
    assert {"level", "message", "time"} <= set.intersection(*(set(line) for line in alone.log()))
