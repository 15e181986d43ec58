"""The service with its records in a PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from tests.service.live import CONFIG, LiveService, answered, serving
from tests.service.test_attacks import child, soon
from tests.service.test_jobs import ended, submitted, until_running

from casemate.kernel.processes import process_tree

if TYPE_CHECKING:
    from tests.postgres import Server


def test_s2_80_what_was_done_before_a_restart_is_there_after_it(
    tmp_path: Path, postgres: Server, slowness: float
) -> None:
    environment = {"SANDBOX_REDIS_URL": postgres.new()}
    data = tmp_path / "data"
    with serving(data, config=CONFIG, environment=environment, slowness=slowness) as service:
        key = service.operator_key
        ran = answered(service.operator.post("/v1/executions", json={"code": "output = 6 * 7"}))
        assert ran["result"]["output"] == 42
        tenant = service.tenant("kept")
        assert answered(service.operator.get("/readyz"))["parts"]["records"] == "ok"
    assert not [path for path in data.rglob("*") if "sqlite" in path.name]
    with serving(data, config=CONFIG, environment=environment, slowness=slowness) as service:
        again = service.client(key)
        assert answered(again.get(f"/v1/executions/{ran['id']}"))["result"]["output"] == 42
        assert answered(service.client(tenant.key).get("/v1/executions"))["items"] == []
        assert service.operator_key == "", "the operator has its key already"


def test_s2_71_s2_90_jobs_outlive_the_process_that_has_their_leases(
    tmp_path: Path, postgres: Server, slowness: float
) -> None:
    environment = {"CASEMATE_SERVICE_DATABASE": postgres.new()}
    with serving(tmp_path / "data", config=CONFIG, environment=environment, slowness=slowness) as service:
        tenant = service.tenant()
        seconds = (5, 1, 1, 1, 1, 1)  # the first is still there when it is told that it runs
        jobs = [submitted(tenant, command=f"sleep {each}; echo done", shell=True) for each in seconds]
        until_running(tenant, jobs[0])
        os.kill(child(service, "casemate.api"), signal.SIGKILL)
        assert soon(lambda: is_up(service), slowness)
        found = [ended(tenant, job) for job in jobs]
        assert {job["state"] for job in found} == {"succeeded"}
        assert {job["result"]["stdout"]["text"] for job in found} == {"done\n"}
        assert found[0]["lost"] == 1


def test_a_second_service_on_the_same_database_is_refused_by_name(
    tmp_path: Path, postgres: Server, slowness: float
) -> None:
    environment = {"CASEMATE_SERVICE_DATABASE": postgres.new()}
    with serving(tmp_path / "first", config=CONFIG, environment=environment, slowness=slowness) as service:
        tenant = service.tenant()
        words = ["serve", "--data", str(tmp_path / "second"), "--port", "0", "--config", str(tmp_path / "first.toml")]
        second = subprocess.run(
            [sys.executable, "-m", "casemate", *words],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )
        told = [line for line in second.stderr.splitlines() if not line.startswith("{")]
        assert second.returncode == 125
        assert "in use by another `casemate serve`" in told[-2]
        assert f"{tmp_path / 'first'}"[-30:] in told[-2]
        assert told[-1].startswith("hint: end that one")
        assert not [line for line in told if "started again" in line], "it is told once"
        assert ended(tenant, submitted(tenant, command="true"))["state"] == "succeeded"
        for pid in process_tree(service.process.pid):  # all at once: nobody lets go of anything
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        service.process.wait()
        with serving(tmp_path / "second", config=CONFIG, environment=environment, slowness=slowness) as next_one:
            again = next_one.client(tenant.key)
            assert [each["state"] for each in answered(again.get("/v1/jobs"))["items"]] == ["succeeded"]


def is_up(service: LiveService) -> bool:
    try:
        return service.operator.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False
