"""A service is copied while it works, and goes on elsewhere with all that it had."""

from __future__ import annotations

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
            "usage": answered(client.get("/v1/usage", params={"group_by": "label:n"})),
        }


def test_s2_93_a_service_goes_on_elsewhere_with_all_that_it_had(tmp_path: Path, slowness: float) -> None:
    backup, elsewhere = str(tmp_path / "backup.tar"), tmp_path / "elsewhere"
    with serving(tmp_path / "data", slowness=slowness) as service:
        tenant, busy = service.tenant(), service.tenant()
        for number in range(5):
            body = {"code": f"print({number}); output = {number}", "labels": {"n": str(number)}}
            answered(tenant.http.post("/v1/executions", json=body))
        publish(tenant, "double", "output = input * 2")
        answered(tenant.http.put("/v1/budgets/much", json={"unit": "runs", "hard": 1000}))
        answered(tenant.http.post("/v1/webhooks", json={"url": "https://example.com/"}), 201)
        before = told(service, tenant)
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
            assert invoke(tenant._replace(http=client), "double", 4)["output"] == 8
