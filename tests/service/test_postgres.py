"""The service with its records in a PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.service.live import CONFIG, answered, serving

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
