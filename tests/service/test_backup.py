"""A service is copied while it works, and goes on elsewhere with all that it had."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.service.calling import invoke, publish
from tests.service.live import CONFIG, LiveService, Tenant, answered, serving


def casemate(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "casemate", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def listed(client: Any, path: str) -> list[dict[str, Any]]:
    found, cursor = [], None
    while True:
        page = answered(client.get(path, params={"limit": 200} | ({"cursor": cursor} if cursor else {})))
        found += page["items"]
        if not (cursor := page.get("next_cursor")):
            return found


def told(service: LiveService, tenant: Tenant) -> dict[str, Any]:
    """Everything that a tenant can look up."""
    with service.client(tenant.key) as client:
        runs = listed(client, "/v1/executions")
        return {
            "runs": [answered(client.get(f"/v1/executions/{each['id']}")) for each in runs],
            "keys": [{**each, "last_used_at": None} for each in listed(client, "/v1/keys")],
            "functions": listed(client, "/v1/functions"),
            "webhooks": listed(client, "/v1/webhooks"),
            "budgets": answered(client.get("/v1/budgets"))["items"],
            "jobs": [answered(client.get(f"/v1/jobs/{each['id']}")) for each in listed(client, "/v1/jobs")],
            "logs": [listed(client, f"/v1/jobs/{each['id']}/logs") for each in listed(client, "/v1/jobs")],
            "objects": {
                each["key"]: client.get(f"/v1/objects/{each['key']}").content
                for each in listed(client, "/v1/objects")
                if "/logs/" not in each["key"]  # to which a log is moved at some time, and reads the same there
            },
            "secrets": answered(client.get("/v1/secrets")),
            "usage": answered(client.get("/v1/usage", params={"group_by": "label:n"})),
        }


def run_job(tenant: Tenant) -> dict[str, Any]:
    """A job with an input, a secret, a log and an output."""
    body = {
        "command": "test \"$TOKEN\" = 'of the tenant' && cat data.txt && cp data.txt output/",
        "shell": True,
        "secrets": ["TOKEN"],
        "files": [{"path": "data.txt", "content": "some data\n"}],
    }
    made = answered(tenant.http.post("/v1/jobs", json=body), 202)
    found: dict[str, Any] = answered(tenant.http.get(f"/v1/jobs/{made['id']}", params={"wait": 60}))
    assert found["state"] == "succeeded", found
    return found


def test_s2_93_a_service_goes_on_elsewhere_with_all_that_it_had(tmp_path: Path, slowness: float) -> None:
    backup, elsewhere = str(tmp_path / "backup.tar"), tmp_path / "elsewhere"
    with serving(tmp_path / "data", slowness=slowness) as service:
        tenant, busy, operator_key = service.tenant(), service.tenant(), service.operator_key
        for number in range(5):
            body = {"code": f"print({number}); output = {number}", "labels": {"n": str(number)}}
            answered(tenant.http.post("/v1/executions", json=body))
        publish(tenant, "double", "output = input * 2")
        answered(tenant.http.put("/v1/budgets/much", json={"unit": "runs", "hard": 1000}))
        answered(tenant.http.post("/v1/webhooks", json={"url": "https://example.com/"}), 201)
        content = {f"/v1/objects/shared/{number}": os.urandom(number * 100_000) for number in range(4)}
        for path, data in content.items():
            answered(tenant.http.put(path, content=data), 201)
        answered(tenant.http.put("/v1/secrets/TOKEN", json={"value": "of the tenant"}))
        run_job(tenant)
        before = told(service, tenant)
        done = listed(tenant.http, "/v1/audit")
        stop, worked = threading.Event(), threading.Event()

        def work() -> None:
            while not stop.is_set():
                answered(busy.http.post("/v1/executions", json={"code": "output = 1"}))
                worked.set()

        worker = threading.Thread(target=work)
        worker.start()
        try:
            assert worked.wait(60)
            casemate("backup", backup, "--data", str(service.data))
        finally:
            stop.set()
            worker.join()
    casemate("restore", backup, "--data", str(elsewhere))
    with serving(elsewhere, slowness=slowness, config=CONFIG) as restored:
        assert restored.operator_key == ""  # it is known already, and not told again
        assert told(restored, tenant) == before
        with restored.client(tenant.key) as client:
            assert listed(client, "/v1/audit")[-len(done) :] == done  # looking at objects is noted, too
            again = tenant._replace(http=client)
            assert invoke(again, "double", 4)["output"] == 8
            assert run_job(again)["state"] == "succeeded"
        assert answered(restored.client(operator_key).get("/v1/audit/verify"))["is_whole"]
