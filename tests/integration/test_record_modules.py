"""Records of requests that come twice, of signed ones, of functions, of logs and of samples."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from tests.integration.records import with_tenant

from casemate.store import idempotency, nonces
from casemate.store.database import Database
from casemate.store.idempotency import Answered, Begun, Left

ANSWERED = Answered(status_code=201, headers={"location": "/v1/x"}, body=b"{}")


# Requests that come twice -------------------------------------------------------------------------


def begin(database: Database, tenant_id: str, **changes: Any) -> Begun | Answered | Left:
    asked: dict[str, Any] = {"key": "k", "route": "/v1/x", "body_digest": b"d" * 32, "epoch": 1, "at_us": 10}
    return database.write_now(partial(idempotency.begin, tenant_id=tenant_id, **(asked | changes)))


def test_a_request_is_new_then_under_way_then_answered_again(database: Database) -> None:
    owner = with_tenant(database)
    finish = partial(idempotency.finish, tenant_id=owner, key="k", answered=ANSWERED)
    assert not database.write_now(finish)
    assert begin(database, owner) is Begun.NEW
    assert begin(database, owner) is Begun.IN_PROGRESS
    assert database.write_now(finish)
    assert not database.write_now(finish)
    assert begin(database, owner) == ANSWERED
    assert begin(database, owner, epoch=2) == ANSWERED


def test_of_many_that_come_at_once_one_is_new(database: Database) -> None:
    owner = with_tenant(database)

    async def scenario() -> list[Begun | Answered | Left]:
        one = partial(idempotency.begin, tenant_id=owner, key="k", route="/", body_digest=b"", epoch=1, at_us=1)
        return await asyncio.gather(*(database.write(one) for _ in range(20)))

    outcomes = asyncio.run(scenario())
    assert (outcomes.count(Begun.NEW), outcomes.count(Begun.IN_PROGRESS)) == (1, 19)


@pytest.mark.parametrize("other", [{"body_digest": b"e" * 32}, {"route": "/v1/y"}])
def test_another_request_with_the_same_key_is_a_conflict(database: Database, other: dict[str, Any]) -> None:
    owner = with_tenant(database)
    assert begin(database, owner) is Begun.NEW
    assert begin(database, owner, **other) is Begun.CONFLICT
    assert begin(database, owner, **other, epoch=2) is Begun.CONFLICT


def test_keys_of_another_tenant_are_others(database: Database) -> None:
    mine, theirs = with_tenant(database, "mine"), with_tenant(database, "theirs")
    assert begin(database, theirs) is Begun.NEW
    assert begin(database, mine, body_digest=b"e" * 32) is Begun.NEW
    database.write_now(partial(idempotency.forget, tenant_id=mine, key="k"))
    assert begin(database, theirs) is Begun.IN_PROGRESS


def test_what_was_forgotten_or_left_by_a_dead_service_is_begun_again(database: Database) -> None:
    owner = with_tenant(database)
    begin(database, owner)
    database.write_now(partial(idempotency.forget, tenant_id=owner, key="k"))
    assert begin(database, owner) is Begun.NEW
    assert begin(database, owner, epoch=2) is Begun.NEW
    assert begin(database, owner, epoch=2) is Begun.IN_PROGRESS
    database.write_now(partial(idempotency.finish, tenant_id=owner, key="k", answered=ANSWERED))
    database.write_now(partial(idempotency.forget, tenant_id=owner, key="k"))
    assert begin(database, owner) == ANSWERED


def test_a_request_for_which_a_dead_service_accepted_an_execution_is_not_begun_again(database: Database) -> None:
    owner = with_tenant(database)
    begin(database, owner)
    database.write_now(partial(idempotency.note_execution, tenant_id=owner, key="k", execution_id="exe_1"))
    assert begin(database, owner) is Begun.IN_PROGRESS
    assert begin(database, owner, epoch=2) == begin(database, owner, epoch=3) == Left("exe_1")
    assert begin(database, owner, epoch=2, route="/v1/y") is Begun.CONFLICT
    database.write_now(partial(idempotency.finish, tenant_id=owner, key="k", answered=ANSWERED))
    assert begin(database, owner, epoch=2) == ANSWERED


def test_old_requests_are_swept(database: Database) -> None:
    owner = with_tenant(database)
    for each in range(5):
        begin(database, owner, key=str(each), at_us=each)
    sweep = partial(idempotency.sweep, before_us=3)
    assert [database.write_now(sweep), database.write_now(sweep)] == [3, 0]
    assert begin(database, owner, key="4") is Begun.IN_PROGRESS


# Signed requests ----------------------------------------------------------------------------------


def test_a_nonce_is_taken_once_by_each_tenant_until_it_is_swept(database: Database) -> None:
    mine, theirs = with_tenant(database, "mine"), with_tenant(database, "theirs")
    use = partial(nonces.use, nonce="n", expires_us=10)
    assert database.write_now(partial(use, tenant_id=mine))
    assert not database.write_now(partial(use, tenant_id=mine))
    assert database.write_now(partial(use, tenant_id=theirs))
    assert database.write_now(partial(nonces.sweep, at_us=10)) == 0
    assert database.write_now(partial(nonces.sweep, at_us=11)) == 2
    assert database.write_now(partial(use, tenant_id=mine))
