"""What Prometheus reads: true, and bounded whatever callers send."""

from __future__ import annotations

from typing import Any

from casemate.api.measures import Measures
from casemate.store.executions import Execution


def ended(runtime: str, **changes: Any) -> Execution:
    values: dict[str, Any] = {"key_id": "k", "kind": "code", "created_us": 1, "epoch": 1, "reason": "exit"}
    return Execution(id="exe", tenant_id="ten", runtime=runtime, **(values | changes))


def test_names_that_callers_make_up_are_no_labels() -> None:
    measures = Measures()
    for number in range(100):
        measures.observe_end(ended(f"made-up-{number}", reason="validation", wall_us=0))
    text = measures.text().decode()
    assert "made-up" not in text
    assert 'casemate_executions_total{kind="code",reason="validation",runtime="other"} 100.0' in text


def test_a_runtime_in_which_something_has_run_is_counted_by_its_name() -> None:
    measures = Measures()
    measures.observe_end(ended("python", wall_us=2_000_000, started_us=1_000_001, memory_peak_bytes=1))
    measures.observe_end(ended("python", reason="lost", wall_us=0))
    text = measures.text().decode()
    assert 'casemate_executions_total{kind="code",reason="exit",runtime="python"} 1.0' in text
    assert 'casemate_executions_total{kind="code",reason="lost",runtime="python"} 1.0' in text
    assert 'casemate_execution_wait_seconds_sum{kind="code"} 1.0' in text
