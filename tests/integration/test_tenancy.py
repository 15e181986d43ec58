"""Tenants and their keys over the records: shown once, proven, revoked at once, nobody else's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from casemate.errors import Conflict, InvalidInput, NotFound, PermissionDenied, TooManyRequests, Unauthenticated
from casemate.service_limits import KEYS_A_TENANT_MAX
from casemate.store.database import Database, Records
from casemate.tenancy import keyring
from casemate.tenancy.keys import new_key
from casemate.tenancy.scopes import Scopes, checked
from casemate.tenancy.tenants import NewKey, Tenancy
from casemate.tenancy.terms import KeyTerms, TenantTerms

RUN = checked(["executions:*"])


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def scenario(path: Path, act: Callable[[Tenancy, Clock], Awaitable[None]]) -> None:
    async def within() -> None:
        database = Database.open(path / "records.db")
        clock = Clock()
        try:
            await act(Tenancy(database, clock), clock)
        finally:
            await database.close()

    asyncio.run(within())


async def with_key(tenancy: Tenancy, name: str = "one", **terms: object) -> NewKey:
    there = {tenant.name: tenant for tenant in (await tenancy.list_tenants()).items}
    tenant = there.get(name) or await tenancy.create_tenant(TenantTerms(name=name))
    wanted = KeyTerms(**({"name": "a key", "scopes": RUN} | terms))  # type: ignore[arg-type]
    return await tenancy.create_key(tenant.id, wanted)


def everything_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def is_refused(tenancy: Tenancy, text: str) -> bool:
    try:
        await tenancy.authenticate(text)
    except Unauthenticated:
        return True
    return False


def test_the_first_start_makes_the_operators_key_and_the_second_does_not(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        outcomes = await asyncio.gather(tenancy.first_start(), tenancy.first_start())
        assert sum(each is not None for each in outcomes) == 1
        assert await tenancy.first_start() is None
        text = next(each for each in outcomes if each is not None)
        principal = await tenancy.authenticate(text)
        assert principal.is_operator
        assert principal.scopes.permits("admin")
        assert principal.scopes.permits("tenants:write")

    scenario(tmp_path, act)


def test_a_key_is_stored_as_its_digest_alone(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        stored = await asyncio.to_thread(everything_in, tmp_path)
        assert made.text.encode() not in stored
        assert made.text[3:20].encode() not in stored
        assert made.key.digest in stored
        assert made.text.startswith(made.key.prefix)

    scenario(tmp_path, act)


def test_a_key_says_who_asks(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy, rate_per_s=3.0, burst=4)
        principal = await tenancy.authenticate(made.text)
        assert (principal.tenant_id, principal.key_id) == (made.key.tenant_id, made.key.id)
        assert (principal.rate_per_s, principal.burst, principal.is_operator) == (3.0, 4, False)
        assert principal.scopes == RUN

    scenario(tmp_path, act)


def test_a_revoked_key_is_refused_at_once_also_by_who_has_just_read_it(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        await tenancy.authenticate(made.text)
        asking = [asyncio.create_task(tenancy.authenticate(made.text)) for _ in range(20)]
        await tenancy.revoke_key(made.key.tenant_id, made.key.id)
        await asyncio.gather(*asking, return_exceptions=True)
        assert await is_refused(tenancy, made.text)
        again = await tenancy.revoke_key(made.key.tenant_id, made.key.id)
        assert again.revoked_us == (await tenancy.key(made.key.tenant_id, made.key.id)).revoked_us

    scenario(tmp_path, act)


def test_a_look_up_that_overlaps_a_revocation_is_not_remembered(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        tenancy.keyring.forget()
        read = asyncio.create_task(tenancy.authenticate(made.text))
        await asyncio.sleep(0)
        await tenancy.revoke_key(made.key.tenant_id, made.key.id)
        await asyncio.gather(read, return_exceptions=True)
        assert await is_refused(tenancy, made.text)

    scenario(tmp_path, act)


def test_a_revocation_counts_also_when_its_caller_goes_away(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        await tenancy.authenticate(made.text)
        revoking = asyncio.create_task(tenancy.revoke_key(made.key.tenant_id, made.key.id))
        await asyncio.sleep(0)
        revoking.cancel()
        await asyncio.gather(revoking, return_exceptions=True)
        await tenancy.create_tenant(TenantTerms(name="behind-it-in-the-line"))
        assert await is_refused(tenancy, made.text)

    scenario(tmp_path, act)


def test_a_key_that_another_process_revokes_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        await tenancy.authenticate(made.text)
        other = sqlite3.connect(tmp_path / "records.db")
        other.execute("update keys set revoked_us = 1")
        other.commit()
        other.close()
        monkeypatch.setattr(keyring, "KEY_CACHED_S", 0.0)
        assert await is_refused(tenancy, made.text)

    scenario(tmp_path, act)


def test_unknown_revoked_and_expired_keys_get_the_same_words_after_one_look_up_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(tenancy: Tenancy, clock: Clock) -> None:
        revoked, expired = await with_key(tenancy), await with_key(tenancy, lifetime_s=5.0)
        await tenancy.revoke_key(revoked.key.tenant_id, revoked.key.id)
        clock.now_s += 5
        reads: list[object] = []
        read = Database.read

        async def counted(self: Database, operation: Callable[[Records], object]) -> object:
            reads.append(operation)
            return await read(self, operation)

        monkeypatch.setattr(Database, "read", counted)
        words = set()
        for text in (revoked.text, expired.text, new_key()):
            tenancy.keyring.forget()
            for _ in range(2 if text != expired.text else 1):
                before = len(reads)
                with pytest.raises(Unauthenticated) as caught:
                    await tenancy.authenticate(text)
                assert len(reads) == before + 1
                words.add(str(caught.value))
        for text in ("", "cm_", "é" * 60, "cm_" + "a" * 43 + "_aaaaaa", "\ud800"):
            with pytest.raises(Unauthenticated) as caught:
                await tenancy.authenticate(text)
            words.add(str(caught.value))
        assert len(words) == 1

    scenario(tmp_path, act)


def test_a_rotated_key_ends_at_once_or_after_its_grace(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, clock: Clock) -> None:
        first = await with_key(tenancy)
        second = await tenancy.rotate_key(first.key.tenant_id, first.key.id)
        assert await is_refused(tenancy, first.text)
        assert (await tenancy.authenticate(second.text)).scopes == RUN
        third = await tenancy.rotate_key(second.key.tenant_id, second.key.id, grace_s=60)
        await tenancy.authenticate(second.text)
        clock.now_s += 61
        assert await is_refused(tenancy, second.text)
        await tenancy.authenticate(third.text)
        with pytest.raises(Conflict):
            await tenancy.rotate_key(first.key.tenant_id, first.key.id)

    scenario(tmp_path, act)


def test_s1_11_a_key_over_its_rate_is_told_when_to_come_again_and_others_are_not_slowed(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        fast = await tenancy.authenticate((await with_key(tenancy, rate_per_s=0.001, burst=2)).text)
        other = await tenancy.authenticate((await with_key(tenancy)).text)
        tenancy.admit(fast)
        tenancy.admit(fast)
        with pytest.raises(TooManyRequests) as caught:
            tenancy.admit(fast)
        assert 900 < caught.value.retry_after_s <= 1000
        tenancy.admit(other)

    scenario(tmp_path, act)


def test_no_tenant_finds_anothers_keys(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        mine, theirs = await with_key(tenancy, "mine"), await with_key(tenancy, "theirs")
        for about in (tenancy.key, tenancy.revoke_key, tenancy.rotate_key):
            for wrong in (theirs.key.id, "key_nowhere"):
                with pytest.raises(NotFound, match=wrong):
                    await about(mine.key.tenant_id, wrong)
        assert [each.id for each in (await tenancy.list_keys(mine.key.tenant_id)).items] == [mine.key.id]
        assert len((await tenancy.list_keys(None)).items) == 2
        await tenancy.authenticate(theirs.text)

    scenario(tmp_path, act)


def test_a_key_grants_no_more_than_it_has(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        granting = checked(["executions:*"], ["executions:cancel"])
        with pytest.raises(PermissionDenied):
            await tenancy.create_key(
                made.key.tenant_id, KeyTerms(name="x", scopes=checked(["admin"])), granting=granting
            )
        less = await tenancy.create_key(made.key.tenant_id, KeyTerms(name="x", scopes=RUN), granting=granting)
        assert not (await tenancy.authenticate(less.text)).scopes.permits("executions:cancel")
        with pytest.raises(PermissionDenied):
            await tenancy.rotate_key(made.key.tenant_id, made.key.id, granting=Scopes(allow=("keys:write",)))

    scenario(tmp_path, act)


def test_a_key_that_may_more_is_not_rotated_by_one_that_is_denied_it(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        for deny in (["executions:cancel"], ["executions:c*"], ["executions:*"]):
            with pytest.raises(PermissionDenied):
                await tenancy.rotate_key(
                    made.key.tenant_id, made.key.id, granting=checked(["executions:*", "keys:write"], deny)
                )
        denied_elsewhere = checked(["executions:*", "keys:write"], ["functions:*"])
        await tenancy.rotate_key(made.key.tenant_id, made.key.id, granting=denied_elsewhere)

    scenario(tmp_path, act)


def test_no_key_outlives_the_one_that_has_made_it(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, clock: Clock) -> None:
        old = await with_key(tenancy)
        until_us = int((clock.now_s + 60) * 1e6)
        tenant_id = old.key.tenant_id
        rotated = await tenancy.rotate_key(tenant_id, old.key.id, until_us=until_us)
        made = await tenancy.create_key(tenant_id, KeyTerms(name="x", scopes=RUN), until_us=until_us)
        longer = KeyTerms(name="x", scopes=RUN, lifetime_s=3600.0)
        assert (await tenancy.create_key(tenant_id, longer, until_us=until_us)).key.expires_us == until_us
        clock.now_s += 61
        assert await is_refused(tenancy, rotated.text)
        assert await is_refused(tenancy, made.text)

    scenario(tmp_path, act)


def test_a_suspended_tenant_asks_in_vain_until_it_is_active_again(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = await with_key(tenancy)
        await tenancy.authenticate(made.text)
        await tenancy.change_tenant(made.key.tenant_id, state="suspended")
        assert await is_refused(tenancy, made.text)
        await tenancy.change_tenant(made.key.tenant_id, state="active", concurrency_max=3, queue_max=4)
        principal = await tenancy.authenticate(made.text)
        assert (principal.concurrency_max, principal.queue_max) == (3, 4)
        await tenancy.delete_tenant(made.key.tenant_id)
        assert await is_refused(tenancy, made.text)
        with pytest.raises(NotFound):
            await tenancy.tenant(made.key.tenant_id)

    scenario(tmp_path, act)


def test_the_operator_cannot_lock_itself_out(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, _: Clock) -> None:
        text = await tenancy.first_start()
        assert text is not None
        operator = await tenancy.authenticate(text)
        for refused in (
            tenancy.delete_tenant(operator.tenant_id),
            tenancy.change_tenant(operator.tenant_id, state="suspended"),
            tenancy.change_tenant(operator.tenant_id, name="other"),
            tenancy.revoke_key(operator.tenant_id, operator.key_id),
        ):
            with pytest.raises(Conflict):
                await refused
        await with_key(tenancy, "operator", scopes=checked(["admin"]))
        await tenancy.revoke_key(operator.tenant_id, operator.key_id)

    scenario(tmp_path, act)


def test_when_a_key_was_last_used_is_noted_now_and_then(tmp_path: Path) -> None:
    async def act(tenancy: Tenancy, clock: Clock) -> None:
        made = await with_key(tenancy)
        began_us = int(clock.now_s * 1e6)
        for _ in range(3):
            await tenancy.authenticate(made.text)
            clock.now_s += 1
        await tenancy.create_tenant(TenantTerms(name="behind-it-in-the-line"))
        assert (await tenancy.key(made.key.tenant_id, made.key.id)).last_used_us == began_us

    scenario(tmp_path, act)


def test_a_tenant_has_so_many_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEYS_A_TENANT_MAX > 3
    monkeypatch.setattr("casemate.store.keys.KEYS_A_TENANT_MAX", 3)

    async def act(tenancy: Tenancy, _: Clock) -> None:
        made = [await with_key(tenancy) for _ in range(3)]
        with pytest.raises(Conflict):
            await with_key(tenancy)
        await tenancy.revoke_key(made[0].key.tenant_id, made[0].key.id)
        await with_key(tenancy)
        with pytest.raises(NotFound):
            await tenancy.create_key("ten_nowhere", KeyTerms(name="x", scopes=RUN))
        with pytest.raises(InvalidInput):
            await tenancy.create_tenant(TenantTerms(name="No Name"))

    scenario(tmp_path, act)
