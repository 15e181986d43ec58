"""Who may ask what: of every operation that the OpenAPI document has, so that a new one cannot be forgotten."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import pytest
from tests.service.live import LiveService, Tenant, answered, refused

from casemate.limits import MIB
from casemate.tenancy.scopes import SCOPES

OPEN: Final = {("GET", "/healthz"), ("GET", "/readyz")}
SIGNED: Final = {("POST", "/v1/webhooks/batch")}
BY_ADDRESS: Final = {(method, "/v1/signed/{token}") for method in ("GET", "HEAD", "PUT")}
"""Whoever has one needs no key."""

ANY_KEY: Final = {("GET", "/v1/me"), ("GET", "/v1/runtimes"), ("GET", "/v1/runners"), ("POST", "/v1/batch")}
"""These tell every key about itself, and what it may have; each item of a batch is asked for on its own."""

READING: Final = {"GET", "HEAD", "DELETE"}
WITHOUT_SCOPE: Final = OPEN | BY_ADDRESS | SIGNED | ANY_KEY

OPERATORS: Final = {
    ("GET", "/v1/signing"),
    ("POST", "/v1/signing/rotate"),
    ("POST", "/v1/tenants"),
    ("PATCH", "/v1/tenants/{tenant_id}"),
    ("DELETE", "/v1/tenants/{tenant_id}"),
    ("GET", "/v1/workers"),
    ("GET", "/v1/workers/{worker_id}/samples"),
    ("GET", "/metrics"),
    ("GET", "/v1/signing"),
    ("POST", "/v1/signing/rotate"),
}
NOTHING: Final = {
    "job_id": "job_" + 26 * "a",
    "schedule_id": "sch_" + 26 * "a",
    "upload_id": "upl_" + 26 * "a",
    "key": "shared/no-such-object",
    "webhook_id": "whk_" + 26 * "a",
    "execution_id": "exe_" + 26 * "a",
    "name": "no-such-function",
    "key_id": "key_" + 26 * "a",
    "tenant_id": "ten_" + 26 * "a",
}
UNUSED_SCOPE: Final = "images:push"


class Operation(NamedTuple):
    """A method and an address with names in braces."""

    method: str
    path: str

    @property
    def names(self) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", self.path))

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class World(NamedTuple):
    """Two tenants, and what the first one has, by the names in addresses."""

    service: LiveService
    first: Tenant
    second: Tenant
    things: dict[str, str]

    def ask(self, operation: Operation, key: str | None, /, **other: str) -> Any:
        """The answer to an operation on the first tenant's things, or on others."""
        url = operation.path.format(**{**self.things, **other})
        body = None if operation.method in READING else BODIES[operation]
        query = {"from": 1, "to": 1} if url.endswith("/diff") else {}
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with self.service.client() as client:
            return client.request(operation.method, url, json=body, params=query, headers=headers)


BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("POST", "/v1/jobs"): {"command": "true"},
    ("POST", "/v1/jobs/{job_id}/cancel"): {},
    ("POST", "/v1/jobs/{job_id}/rerun"): {},
    ("POST", "/v1/jobs/{job_id}/retry"): {},
    ("POST", "/v1/queue/pause"): {},
    ("POST", "/v1/queue/resume"): {},
    ("PATCH", "/v1/schedules/{schedule_id}"): {"paused": True},
    ("PUT", "/v1/objects/{key}"): {},
    ("POST", "/v1/objects/sign"): {"key": "shared/its-own", "method": "GET"},
    ("PUT", "/v1/signed/{token}"): {},
    ("PUT", "/v1/jobs/{job_id}/files/{area}/{path}"): {},
    ("POST", "/v1/uploads"): {"key": "shared/its-own"},
    ("PUT", "/v1/uploads/{upload_id}/parts/{number}"): {},
    ("POST", "/v1/uploads/{upload_id}/complete"): {},
    ("PUT", "/v1/secrets/{name}"): {"value": "a-secret"},
    ("PUT", "/v1/budgets/{budget}"): {"unit": "cost", "hard": 1000},
    ("POST", "/v1/webhooks"): {"url": "https://example.com/"},
    ("POST", "/v1/webhooks/{webhook_id}/test"): {},
    ("POST", "/v1/executions"): {"code": "pass"},
    ("POST", "/v1/validate"): {"code": "pass"},
    ("PUT", "/v1/functions/{name}"): {"runtime": "python", "code": "output = 1", "check": False},
    ("PUT", "/v1/functions/{name}/aliases/{alias}"): {"version": 1},
    ("POST", "/v1/functions/{name}/aliases/{alias}/rollback"): {},
    ("POST", "/v1/functions/{name}/invoke"): {"data": 1},
    ("POST", "/v1/functions/{name}/batch"): {"items": [{"data": 1}]},
    ("POST", "/v1/runners/{language}/invoke"): {"script": "b3V0cHV0"},
    ("POST", "/v1/batch"): {"items": [{"id": "a", "function": "its-own", "data": 1}]},
    ("POST", "/v1/webhooks/batch"): {"items": [{"id": "a", "function": "its-own", "data": 1}]},
    ("POST", "/v1/signing/rotate"): {"generation": "no-such"},
    ("POST", "/v1/tenants"): {"name": "another"},
    ("PATCH", "/v1/tenants/{tenant_id}"): {"queue_max": 5},
    ("POST", "/v1/keys"): {"name": "another", "scopes": {"allow": []}},
    ("POST", "/v1/keys/{key_id}/rotate"): {},
}


@pytest.fixture(scope="module")
def world(service: LiveService) -> World:
    first, second = service.tenant(), service.tenant()
    execution = answered(first.http.post("/v1/executions", json={"code": "pass"}))
    webhook = answered(
        first.http.post("/v1/webhooks", json={"url": "https://example.com/", "events": ["job.dead"]}), 201
    )
    function = {"runtime": "python", "code": "output = 1"}
    answered(first.http.put("/v1/functions/its-own", json=function), 201)
    job = answered(first.http.post("/v1/jobs", json={"command": "true"}), 202)
    schedule = answered(first.http.post("/v1/jobs", json={"command": "true", "schedule": "0 0 1 1 *"}), 201)
    upload = answered(first.http.post("/v1/uploads", json={"key": "shared/its-own"}), 201)
    answered(first.http.put("/v1/objects/shared/its-own", content=b"its own"), 201)
    things = {
        "job_id": job["id"],
        "schedule_id": schedule["id"],
        "upload_id": upload["id"],
        "key": "shared/its-own",
        "token": "its-own",
        "area": "artifacts",
        "path": "its-own",
        "execution_id": execution["id"],
        "name": "its-own",
        "number": "1",
        "alias": "live",
        "language": "python",
        "key_id": service.new_key(first.id, UNUSED_SCOPE)["id"],
        "tenant_id": first.id,
        "worker_id": "worker-1",
        "budget": "its-own",
        "webhook_id": webhook["id"],
    }
    return World(service, first, second, things)


@pytest.fixture(scope="module")
def operations(service: LiveService) -> list[Operation]:
    document = answered(service.operator.get("/openapi.json"))
    found = [Operation(method.upper(), path) for path, each in document["paths"].items() for method in each]
    assert len(found) > 30
    return found


def failures(problems: list[tuple[Operation, Any]]) -> list[str]:
    return [f"{operation}: {response.status_code} {response.text[:200]}" for operation, response in problems]


def without_ids(text: str) -> str:
    """A problem without what differs between any two requests: ids, and names that were asked for."""
    return re.sub(r"req_\w+|(exe|key|ten|whk|job|sch|upl)_[a-z2-7]{26}|its-own|no-such-(function|object)", "ID", text)


def test_every_operation_is_known_here(operations: list[Operation], world: World) -> None:
    writing = {operation for operation in operations if operation.method not in READING}
    assert writing == BODIES.keys()
    named = set().union(*(operation.names for operation in operations))
    assert named == world.things.keys()


@pytest.mark.parametrize("key", [None, "?", "cm_nothing", "cm_" + "A" * 43 + "_000000"])
def test_without_a_key_nothing_is_answered(operations: list[Operation], world: World, key: str | None) -> None:
    asked = [(each, world.ask(each, key)) for each in operations if each not in OPEN | BY_ADDRESS]
    assert failures([(each, answer) for each, answer in asked if answer.status_code != 401]) == []
    for operation, answer in asked:
        if operation.method != "HEAD":  # of which nothing but the headers is answered
            refused(answer, 401, "unauthenticated")
    for _, answer in asked:
        assert answer.headers["www-authenticate"] == "Bearer"


def test_an_address_that_is_none_of_ours_is_refused(world: World) -> None:
    for operation in BY_ADDRESS:
        assert world.ask(Operation(*operation), None).status_code == 403


def test_without_a_key_no_body_is_looked_at(service: LiveService) -> None:
    with service.client() as client:
        refused(client.post("/v1/executions", content=b"[" * 1000, headers={"Content-Type": "application/json"}), 401)


def test_a_request_that_is_too_large_is_a_problem_like_others(service: LiveService) -> None:
    half = b"[" * (5 * MIB)
    for content in (half * 2, iter([half, half])):  # announced, and in chunks
        refused(service.operator.post("/v1/executions", content=content), 413, "too_large")


@pytest.mark.parametrize(
    ("path", "body", "field", "hint"),
    [
        ("/v1/executions", {"code": "1", "runtme": "r"}, "runtme", "did you mean runtime?"),
        ("/v1/executions", {"code": "1", "limits": {"mem": 1}}, "limits.mem", "did you mean memory?"),
        ("/v1/batch", {"items": [{"ctx": 1}]}, "items[0].ctx", "did you mean context?"),
        ("/v1/executions", "1", "body", "send a JSON object, with Content-Type: application/json"),
    ],
)
def test_a_field_that_is_wrong_is_told_with_what_may_be_meant(
    service: LiveService, path: str, body: Any, field: str, hint: str
) -> None:
    assert refused(service.operator.post(path, json=body), 422, "invalid_input", field)["hint"] == hint


def test_health_needs_no_key(world: World) -> None:
    for method, path in OPEN:
        assert answered(world.ask(Operation(method, path), None))["status"] == "ok"


def test_s0_24_a_key_without_the_scope_is_refused(operations: list[Operation], world: World) -> None:
    key = world.service.key(world.first.id, UNUSED_SCOPE)
    asked = [(each, world.ask(each, key)) for each in operations if each not in WITHOUT_SCOPE]
    assert failures([(each, answer) for each, answer in asked if answer.status_code != 403]) == []
    for operation, answer in asked:
        if operation.method != "HEAD":
            assert "`" not in refused(answer, 403, "permission_denied")["message"], operation


def test_s0_24_a_denial_counts_more_than_any_permission(operations: list[Operation], world: World) -> None:
    denied = tuple(scope for scope in SCOPES if scope != "admin")
    key = world.service.key(world.first.id, "admin", deny=(*denied, "functions:invoke:*"))
    asked = [(each, world.ask(each, key)) for each in operations if each not in WITHOUT_SCOPE]
    assert failures([(each, answer) for each, answer in asked if answer.status_code != 403]) == []


def test_x6_x10_things_of_another_tenant_are_not_there(operations: list[Operation], world: World) -> None:
    """Neither to be seen nor to be cancelled; and what is said of them is what is said of things that do not exist."""
    for operation in operations:
        if not (operation.names & NOTHING.keys()) or operation in OWN_NAMES:
            continue
        others = world.ask(operation, world.second.key)
        nothing = world.ask(operation, world.second.key, **NOTHING)
        assert (others.status_code, nothing.status_code) == (404, 404), f"{operation}: {others.text} {nothing.text}"
        assert without_ids(others.text) == without_ids(nothing.text), operation
        assert others.headers.keys() == nothing.headers.keys(), operation


OWN_NAMES: Final = {
    ("PUT", "/v1/functions/{name}"),
    ("PUT", "/v1/objects/{key}"),
    ("PUT", "/v1/secrets/{name}"),
}
"""A name that another tenant has is as free as any other."""


def test_x6_names_of_functions_are_each_tenants_own(world: World) -> None:
    mine = {"runtime": "python", "code": "output = 'the second tenant'"}
    assert answered(world.second.http.put("/v1/functions/shared-name", json=mine), 201)["version"] == 1
    theirs = {"runtime": "python", "code": "output = 'the first tenant'"}
    assert answered(world.first.http.put("/v1/functions/shared-name", json=theirs), 201)["version"] == 1
    for tenant, output in ((world.first, "the first tenant"), (world.second, "the second tenant")):
        called = answered(tenant.http.post("/v1/functions/shared-name/invoke", json={"data": None}))
        assert called["output"] == output


def test_x6_lists_and_cursors_of_a_tenant_show_another_nothing(world: World) -> None:
    for _ in range(3):
        answered(world.first.http.post("/v1/executions", json={"code": "pass", "labels": {"whose": "the-first"}}))
    page = answered(world.first.http.get("/v1/executions", params={"limit": 1}))
    mine = answered(world.second.http.get("/v1/executions", params={"cursor": page["next_cursor"]}))
    first_ids = {row["id"] for row in answered(world.first.http.get("/v1/executions"))["items"]}
    assert first_ids.isdisjoint(row["id"] for row in mine["items"])
    found = answered(world.second.http.get("/v1/executions", params={"label": "whose=the-first"}))
    assert found == {"items": [], "next_cursor": None}


def test_x6_a_tenant_lists_its_own_keys_and_itself(world: World) -> None:
    keys = answered(world.second.http.get("/v1/keys"))["items"]
    assert {key["tenant_id"] for key in keys} == {world.second.id}
    assert [each["id"] for each in answered(world.second.http.get("/v1/tenants"))["items"]] == [world.second.id]


def test_x6_ids_cannot_be_guessed(world: World) -> None:
    found = [answered(world.first.http.post("/v1/executions", json={"code": "pass"}))["id"] for _ in range(4)]
    assert all(re.fullmatch(r"exe_[a-z2-7]{26}", each) for each in found)
    assert len({each[4:12] for each in found}) == len(found)


def test_x6_an_idempotency_key_of_another_tenant_is_a_new_one(world: World) -> None:
    body = {"code": "output = 1"}
    asked = [
        answered(tenant.http.post("/v1/executions", json=body, headers={"Idempotency-Key": "the-same"}))
        for tenant in (world.first, world.second)
    ]
    assert asked[0]["id"] != asked[1]["id"]


def test_another_key_of_the_tenant_is_not_answered_what_it_may_not_ask(world: World) -> None:
    headers = {"Idempotency-Key": "of-one-key-alone"}
    body = {"code": "output = 'the answer'"}
    answered(world.first.http.post("/v1/executions", json=body, headers=headers))
    with world.service.client(world.service.key(world.first.id, UNUSED_SCOPE)) as client:
        refused(client.post("/v1/executions", json=body, headers=headers), 403)


def test_a_key_is_not_kept_for_a_request_that_is_sent_again(world: World) -> None:
    body = {"name": "once", "scopes": {"allow": ["executions:read"]}}
    headers = {"Idempotency-Key": "a-key-once"}
    key = answered(world.first.http.post("/v1/keys", json=body, headers=headers), 201)["key"]
    refused(world.first.http.post("/v1/keys", json=body, headers=headers), 409, "conflict")
    for path in world.service.data.iterdir():
        assert path.is_dir() or key.encode() not in path.read_bytes(), path


def test_tenants_cannot_do_what_is_the_operators(world: World) -> None:
    for method, path in sorted(OPERATORS):
        refused(world.ask(Operation(method, path), world.first.key), 404, "not_found")


def test_a_tenant_makes_no_keys_of_others_and_none_that_may_do_more(world: World) -> None:
    def making(key: str, allow: str, tenant_id: str | None = None) -> Any:
        body = {"name": "made", "scopes": {"allow": [allow]}, "tenant_id": tenant_id}
        with world.service.client(key) as client:
            return client.post("/v1/keys", json=body)

    refused(making(world.first.key, "executions:run", world.second.id), 404)
    maker = world.service.key(world.first.id, "keys:write", "executions:*")
    assert answered(making(maker, "executions:read"), 201)["tenant_id"] == world.first.id
    refused(making(maker, "admin"), 403, "permission_denied")
    refused(making(maker, "functions:publish"), 403, "permission_denied")


def test_s0_25_a_revoked_key_is_refused_at_once(world: World) -> None:
    made = world.service.new_key(world.first.id, "executions:*")
    with world.service.client(made["key"]) as client:
        assert answered(client.get("/v1/me"))["key_id"] == made["id"]
        assert answered(world.service.operator.delete(f"/v1/keys/{made['id']}"))["revoked_at"]
        refused(client.get("/v1/me"), 401)
        refused(client.post("/v1/executions", json={"code": "pass"}), 401)


def test_a_rotated_key_is_refused_and_the_new_one_may_the_same(world: World) -> None:
    made = world.service.new_key(world.first.id, "executions:read")
    rotated = answered(world.service.operator.post(f"/v1/keys/{made['id']}/rotate", json={}), 201)
    with world.service.client(made["key"]) as old, world.service.client(rotated["key"]) as new:
        refused(old.get("/v1/me"), 401)
        assert answered(new.get("/v1/me"))["scopes"]["allow"] == ["executions:read"]


def test_a_suspended_tenant_is_refused_until_it_is_active_again(world: World) -> None:
    tenant = world.service.tenant()
    change = f"/v1/tenants/{tenant.id}"
    answered(world.service.operator.patch(change, json={"state": "suspended"}))
    refused(tenant.http.get("/v1/me"), 401)
    answered(world.service.operator.patch(change, json={"state": "active"}))
    assert answered(tenant.http.get("/v1/me"))["tenant_id"] == tenant.id


def test_a_deleted_tenants_keys_are_keys_no_more(world: World) -> None:
    tenant = world.service.tenant()
    answered(tenant.http.post("/v1/executions", json={"code": "pass"}))
    assert world.service.operator.delete(f"/v1/tenants/{tenant.id}").status_code == 204
    refused(tenant.http.get("/v1/me"), 401)


def test_keys_are_shown_once_and_stored_hashed(world: World) -> None:
    listed = world.service.operator.get("/v1/keys", params={"limit": 200}).text
    for key in (world.first.key, world.second.key, world.service.operator_key):
        assert key not in listed
        for path in world.service.data.iterdir():
            assert path.is_dir() or key.encode() not in path.read_bytes(), path
        assert key not in "\n".join(line for line in world.service.lines if "kept nowhere" not in line)


@pytest.mark.parametrize(
    ("allow", "deny", "permitted"),
    [
        (("functions:invoke:its-own",), (), True),
        (("functions:invoke:python",), (), True),
        (("functions:invoke:its-*",), (), True),
        (("functions:invoke:javascript",), (), False),
        (("functions:invoke:*",), ("functions:invoke:its-own",), False),
        (("functions:invoke:its-own",), ("functions:invoke:python",), False),
    ],
)
def test_s0_24_functions_are_invoked_by_name_or_runtime(
    world: World, allow: tuple[str, ...], deny: tuple[str, ...], *, permitted: bool
) -> None:
    operation = Operation("POST", "/v1/functions/{name}/invoke")
    response = world.ask(operation, world.service.key(world.first.id, *allow, deny=deny))
    assert response.status_code == (200 if permitted else 403), response.text


def test_s0_24_an_item_of_a_batch_that_the_key_may_not_call_fails_alone(world: World) -> None:
    operation = Operation("POST", "/v1/batch")
    (result,) = answered(world.ask(operation, world.service.key(world.first.id, UNUSED_SCOPE)))["results"]
    assert (result["id"], result["success"]) == ("a", False)
    (result,) = answered(world.ask(operation, world.second.key))["results"]
    assert (result["success"], result["error"]) == (False, "Function not found: its-own")
