"""`casemate usage`, `budget` and `webhook` against a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from tests.service.live import LiveService, Tenant, answered


@pytest.fixture(scope="module")
def tenant(service: LiveService) -> Tenant:
    found = service.tenant()
    answered(found.http.post("/v1/executions", json={"code": "pass", "labels": {"project": "lab"}}))
    return found


def casemate(service: LiveService, tenant: Tenant, *words: str, status: int = 0) -> str:
    """What a command prints."""
    environment = {**os.environ, "CASEMATE_URL": service.url, "CASEMATE_KEY": tenant.key, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "casemate", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def documents(service: LiveService, tenant: Tenant, *words: str) -> Any:
    return json.loads(casemate(service, tenant, *words, "--json"))


def test_usage_is_shown_as_a_table_with_its_total(service: LiveService, tenant: Tenant) -> None:
    shown = casemate(service, tenant, "usage", "show", "--by", "label:project")
    assert casemate(service, tenant, "usage", "--by", "label:project") == shown
    head, first, total = shown.splitlines()
    assert head.split()[:3] == ["BY", "RUNS", "FAILED"]
    assert first.split()[:3] == ["lab", "1", "0"]
    assert total.split()[:2] == ["total", "1"]
    narrowed = documents(
        service, tenant, "usage", "show", "--kind", "job", "--since", "2030-01-01", "--until", "2030-01-02"
    )
    assert narrowed["total"]["runs"] == 0


def test_usage_of_a_job_is_shown(service: LiveService, tenant: Tenant) -> None:
    made = answered(tenant.http.post("/v1/jobs", json={"command": "true"}), 202)
    answered(tenant.http.get(f"/v1/jobs/{made['id']}", params={"wait": 60}))
    facts = dict(line.split() for line in casemate(service, tenant, "usage", "job", made["id"]).splitlines())
    assert (facts["runs"], facts["failed"], facts["cost"]) == ("1", "0", "0")
    assert documents(service, tenant, "usage", "job", made["id"])["runs"] == 1


def test_budgets_are_set_listed_and_removed(service: LiveService, tenant: Tenant) -> None:
    line = casemate(service, tenant, "budget", "set", "lab", "--soft", "0.5", "--hard", "2", "--unit", "cpu_s")
    assert line.startswith("lab: 0.")
    assert line.endswith("cpu_s a month spent; soft 0.5, hard 2\n")
    [found] = documents(service, tenant, "budget", "list")
    assert (found["name"], found["soft"], found["hard"], found["is_imposed"]) == ("lab", "0.5", "2", False)
    assert "tenant" in casemate(service, tenant, "budget", "list")
    assert casemate(service, tenant, "budget", "delete", "lab") == "lab is removed\n"
    assert documents(service, tenant, "budget", "list") == []
    refusal = casemate(service, tenant, "budget", "set", "lab", "--hard", "much", status=125)
    assert "hard: 'much' is no number" in refusal


def test_webhooks_are_made_tried_and_removed(service: LiveService, tenant: Tenant) -> None:
    address = "https://casemate.invalid/hook"
    secret = casemate(service, tenant, "webhook", "create", address, "--event", "job.*").strip()
    assert len(secret) == 64
    [found] = documents(service, tenant, "webhook", "list")
    assert (found["url"], found["events"], found["secret"]) == (address, ["job.*"], None)
    event_id = casemate(service, tenant, "webhook", "test", found["id"]).strip()
    [notice] = documents(service, tenant, "webhook", "notices", found["id"])
    assert (notice["event_id"], notice["kind"], notice["event"]["data"]) == (event_id, "test", {})
    assert event_id in casemate(service, tenant, "webhook", "notices", found["id"], "--limit", "1")
    casemate(service, tenant, "webhook", "delete", found["id"])
    assert documents(service, tenant, "webhook", "list") == []
    assert "must begin with https" in casemate(service, tenant, "webhook", "create", "http://x.example", status=125)
