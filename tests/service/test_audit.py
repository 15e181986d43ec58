"""The audit log: who has done what, shown to whom it concerns, and whole or found to be broken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from tests.service.live import CONFIG, LiveService, Tenant, answered, refused, serving


def records(whose: Tenant, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answered(whose.http.get("/v1/audit", params=query))["items"]
    return found


def actions(whose: Tenant, **query: Any) -> list[tuple[str, str, str]]:
    """Oldest first, without those of reading the log itself."""
    found = [(each["action"], each["target"], each["detail"]) for each in reversed(records(whose, **query))]
    return [each for each in found if not each[0].startswith("audit.")]


def test_s2_26_every_read_and_write_of_an_object_is_recorded(service: LiveService) -> None:
    tenant = service.tenant()
    http = tenant.http
    answered(http.put("/v1/objects/shared/a b", content=b"x"), 201)
    http.get("/v1/objects/shared/a b")
    http.head("/v1/objects/shared/a b")
    http.get("/v1/objects")
    http.get("/v1/objects/shared/none")
    url = answered(http.post("/v1/objects/sign", json={"key": "shared/a b"}), 201)["url"]
    service.client().get(url)
    http.delete("/v1/objects/shared/a b")
    assert actions(tenant) == [
        ("objects.write", "objects/shared/a b", "201"),
        ("objects.read", "objects/shared/a b", "200"),
        ("objects.read", "objects/shared/a b", "200"),
        ("objects.list", "objects", "200"),
        ("objects.read", "objects/shared/none", "404"),
        ("objects.sign", "objects/sign", "201"),
        ("signed.read", "objects/shared/a b", "200 by a signed address"),
        ("objects.delete", "objects/shared/a b", "204"),
    ]
    key_id = answered(http.get("/v1/me"))["key_id"]
    assert {each["key_id"] for each in records(tenant)} == {key_id}
    assert {each["tenant_id"] for each in records(tenant)} == {tenant.id}
    assert all(each["at"] and each["request_id"] and "seq" not in each for each in records(tenant))


def test_s2_78_management_is_recorded_also_where_it_was_refused(service: LiveService) -> None:
    tenant = service.tenant()
    http = tenant.http
    made = answered(http.post("/v1/keys", json={"name": "k", "scopes": {"allow": ["objects:read"]}}), 201)
    with service.client(made["key"]) as limited:
        refused(limited.post("/v1/keys", json={"name": "more", "scopes": {"allow": []}}), 403)
    http.delete(f"/v1/keys/{made['id']}")
    http.put("/v1/secrets/TOKEN", json={"value": "very secret"})
    http.put("/v1/functions/f", json={"runtime": "python", "code": "print(1)"})
    http.delete("/v1/functions/f")
    http.post("/v1/keys", json={"nonsense": 1})
    assert actions(tenant) == [
        ("keys.create", f"keys/{made['id']}", "201"),
        ("keys.create", "keys", "403"),
        ("keys.delete", f"keys/{made['id']}", "200"),
        ("secrets.write", "secrets/TOKEN", "200"),
        ("functions.write", "functions/f", "201"),
        ("functions.delete", "functions/f", "204"),
        ("keys.create", "keys", "422"),
    ]
    assert "very secret" not in str(records(tenant))
    assert [each[0] for each in actions(tenant, action="keys.d")] == ["keys.delete"]


def test_s2_75_a_tenant_reads_its_own_records_alone(service: LiveService) -> None:
    mine, theirs = service.tenant(), service.tenant()
    answered(theirs.http.put("/v1/objects/shared/x", content=b"x"), 201)
    assert actions(mine) == actions(mine, tenant=theirs.id) == []
    refused(mine.http.get("/v1/audit/verify"), 404, "not_found")
    with service.client(service.operator_key) as operator:
        found = answered(operator.get("/v1/audit", params={"tenant": theirs.id}))["items"]
        assert [each["action"] for each in found] == ["objects.write"]
        assert found[0]["seq"] > 0


def test_executions_are_recorded_where_they_always_were(service: LiveService) -> None:
    tenant = service.tenant()
    answered(tenant.http.post("/v1/executions", json={"runtime": "bash", "code": "true"}))
    assert actions(tenant) == []


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> Iterator[LiveService]:
    with serving(tmp_path_factory.mktemp("audit") / "data", config=CONFIG, slowness=slowness) as started:
        yield started


def test_s2_78_a_record_that_was_changed_is_named(alone: LiveService) -> None:
    tenant = alone.tenant()
    for number in range(5):
        answered(tenant.http.put(f"/v1/objects/shared/{number}", content=b"x"), 201)
    with alone.client(alone.operator_key) as operator:
        whole = answered(operator.get("/v1/audit/verify"))
        assert whole["is_whole"]
        assert whole["count"] >= 5
        with sqlite3.connect(alone.data / "records.sqlite") as records:
            (seq,) = records.execute("select seq from audit where target = 'objects/shared/3'").fetchone()
            records.execute("update audit set target = 'objects/shared/other' where seq = ?", (seq,))
        records.close()
        broken = answered(operator.get("/v1/audit/verify"))
        assert not broken["is_whole"]
        assert broken["broken_seq"] == seq
