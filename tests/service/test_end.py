"""The service while its parts fail, and when it is told to end: who asks is told, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.service.live import CONFIG, LiveService, answered, events, refused, serving
from tests.service.test_attacks import child, programs, soon

ENDS_WITHIN_S: Final = 20.0
BEGUN: Final = {"code": "print('begun', flush=True)\nimport time\ntime.sleep(98765)"}
STREAMED: Final = {"Accept": "text/event-stream"}


@pytest.fixture
def alone(tmp_path: Path, slowness: float) -> Iterator[LiveService]:
    config = CONFIG.replace("[service]", '[service]\ndrain = "500ms"', 1)
    with serving(tmp_path / "data", config=config, slowness=slowness) as started:
        yield started


def test_open_streams_end_with_a_result_when_the_service_is_told_to_end(alone: LiveService, slowness: float) -> None:
    with alone.operator.stream("POST", "/v1/executions", json=BEGUN, headers=STREAMED) as response:
        told = events(response.iter_lines())
        next(each for each in told if each[0] == "stdout")
        began_s = time.monotonic()
        alone.process.send_signal(signal.SIGTERM)
        *_, (kind, _, document) = told
    assert (kind, document["reason"], document["result"]["stdout"]["text"]) == ("result", "lost", "begun\n")
    assert alone.process.wait(ENDS_WITHIN_S * slowness) == 0
    assert time.monotonic() - began_s < ENDS_WITHIN_S * slowness


def test_s1_25_s2_92_readiness_turns_bad_while_the_node_is_down(alone: LiveService, slowness: float) -> None:
    assert soon(lambda: alone.operator.get("/readyz").status_code == 200, slowness)
    ready = alone.operator.get("/readyz")
    assert answered(ready)["parts"] == {"records": "ok", "objects": "ok", "node": "ok", "service": "ok"}
    alone.process.send_signal(signal.SIGSTOP)  # so the next node waits until that was seen
    try:
        os.kill(child(alone, "casemate.node"), signal.SIGKILL)
        assert soon(lambda: alone.operator.get("/readyz").status_code == 503, slowness)
    finally:
        alone.process.send_signal(signal.SIGCONT)
    assert soon(lambda: alone.operator.get("/readyz").status_code == 200, slowness)
    assert answered(alone.operator.get("/healthz"))["status"] == "ok"


def test_s1_3_a_killed_node_is_a_lost_result_and_the_next_run_succeeds(alone: LiveService, slowness: float) -> None:
    with alone.operator.stream("POST", "/v1/executions", json=BEGUN, headers=STREAMED) as response:
        told = events(response.iter_lines())
        next(each for each in told if each[0] == "stdout")
        os.kill(child(alone, "casemate.node"), signal.SIGKILL)
        *_, (_, _, document) = told
    assert (document["reason"], document["result"]["stdout"]["text"]) == ("lost", "begun\n")
    assert answered(alone.operator.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1
    assert soon(lambda: not any("98765" in each for each in programs(alone)), slowness)


def test_what_was_accepted_is_there_after_a_new_start(tmp_path: Path, slowness: float) -> None:
    data = tmp_path / "data"
    with serving(data, slowness=slowness) as first:
        tenant = first.tenant()
        done = answered(tenant.http.post("/v1/executions", json={"code": "output = 1"}))
    with serving(data, slowness=slowness) as second, second.client(tenant.key) as client:
        assert answered(client.get(f"/v1/executions/{done['id']}")) == done
        assert second.operator_key == ""
        with second.client(first.operator_key) as operator:
            refused(operator.get("/v1/executions/" + done["id"]), 404)
