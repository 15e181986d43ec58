"""What the service does by itself now and then: forgetting what is older than it is to be kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Self

import structlog

from casemate import service_limits as limits
from casemate.account_limits import NOTICES_KEPT_S
from casemate.api.state import State
from casemate.blobs import retention
from casemate.clock import now_us
from casemate.model.accounting import day_of
from casemate.model.units import SECOND_US
from casemate.object_limits import OBJECTS_RECOUNT_S
from casemate.recurring import Recurring
from casemate.store import executions, flows, idempotency, jobs, logs, nonces, samples, tenants, usage, webhooks
from casemate.store.stored import count_bytes

_LOG: Final = structlog.get_logger("casemate.upkeep")
_DAY_US: Final = 24 * 3600 * 1_000_000


class Upkeep:
    """Runs for as long as it is open."""

    def __init__(self, parts: State) -> None:
        self._parts = parts
        self._counted_s = -limits.STORED_RECOUNT_S
        self._recurring = (
            Recurring(self._look_after_records, name="upkeep", pause_s=limits.UPKEEP_PERIOD_S),
            Recurring(self._look_after_objects, name="upkeep of objects", pause_s=OBJECTS_RECOUNT_S),
        )

    async def __aenter__(self) -> Self:
        for each in self._recurring:
            each.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._recurring:
            await each.end()

    async def _look_after_records(self) -> None:
        await sweep(self._parts, now_us())
        if time.monotonic() - self._counted_s >= limits.STORED_RECOUNT_S:
            self._counted_s = time.monotonic()
            self._parts.database.stored.counted(await self._parts.database.read(count_bytes))
        await asyncio.sleep(limits.UPKEEP_PERIOD_S)

    async def _look_after_objects(self) -> None:
        await sweep_objects(self._parts, now_us())
        await asyncio.sleep(OBJECTS_RECOUNT_S)


async def sweep_objects(parts: State, at_us: int) -> None:
    """Remove objects that have expired, and records of the audit log."""
    known = await parts.database.read(tenants.all_ids)
    swept = await retention.sweep(parts.storage.objects, known, at_us=at_us)
    if swept.removed:
        _LOG.info("objects have expired", count=swept.removed)
    kept_us = parts.config.objects.audit_us
    while kept_us and await parts.storage.audit.sweep(at_us - kept_us):
        pass


async def sweep(parts: State, at_us: int) -> None:
    """Delete what is older than it is to be kept, a part at a time, so that nobody waits long for the writer."""
    kept_us = parts.config.log_retention_days * _DAY_US
    jobs_us = parts.jobs.settings.retention_days * _DAY_US
    flows_us = parts.config.network.flow_retention_days * _DAY_US
    idempotency_us = int(limits.IDEMPOTENCY_KEPT_S * SECOND_US)
    for delete in (
        lambda connection: executions.delete_older(connection, None, ended_before_us=at_us - kept_us),
        lambda connection: jobs.delete_older(connection, None, ended_before_us=at_us - jobs_us),
        lambda connection: logs.sweep(connection, before_us=at_us - kept_us),
        lambda connection: samples.sweep(connection, before_us=at_us - kept_us),
        lambda connection: flows.sweep(connection, before_us=at_us - flows_us),
        lambda connection: idempotency.sweep(connection, before_us=at_us - idempotency_us),
        lambda connection: nonces.sweep(connection, at_us=at_us),
        lambda connection: usage.fold(connection, before_day=day_of(at_us) - parts.config.accounting.kept_days),
        lambda connection: webhooks.sweep(connection, before_us=at_us - int(NOTICES_KEPT_S * SECOND_US)),
    ):
        await _all(parts, delete)


async def _all(parts: State, delete: Callable[[Any], int]) -> None:
    while await parts.database.write(delete):
        pass
