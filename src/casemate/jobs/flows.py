"""What jobs try to reach: counted and written down in groups as it comes, listed, and told to those who follow."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from casemate import network_limits as bound
from casemate.errors import CasemateError, TooManyRequests
from casemate.lines import Lines
from casemate.model.flow import Flow
from casemate.recurring import Recurring
from casemate.store import flows as rows
from casemate.store.database import Database
from casemate.store.flows import Filters, NewFlow, StoredFlow
from casemate.store.pages import Page

_LOG = structlog.get_logger("casemate.flows")


class Flows:
    """Implements FlowLog, and is asked by everybody who wants to see flows. `count` is called with each."""

    def __init__(self, database: Database, count: Callable[[Flow], None] = lambda _: None) -> None:
        self._database = database
        self._count = count
        self._waiting: Lines[str, NewFlow] = Lines(bound.FLOWS_WAITING_MAX)
        self._group: list[NewFlow] = []
        self._work = asyncio.Event()
        self._written = asyncio.Event()
        self._writing = asyncio.Lock()
        self._followers: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def note(self, tenant_id: str, job_id: str, attempt: int, flow: Flow) -> None:
        """Keep it; written later, with others. Never waits."""
        self._count(flow)
        if self._waiting.has_room(tenant_id) and self._database.stored.takes(tenant_id, bound.FLOW_BYTES):
            self._waiting.add(tenant_id, NewFlow(tenant_id=tenant_id, job_id=job_id, attempt=attempt, flow=flow))
        else:
            self.dropped[tenant_id] += 1
        self._work.set()

    async def page(self, tenant_id: str, filters: Filters, *, limit: int, cursor: str | None) -> Page[StoredFlow]:
        """A tenant's flows, the last first, with those that are only noted yet."""
        await self.flush()
        return await self._database.read(
            partial(rows.list_flows, tenant_id=tenant_id, filters=filters, limit=limit, cursor=cursor)
        )

    async def last_id(self) -> int:
        """After which flow those come that are written down from now on."""
        return await self._database.read(rows.last_id)

    async def follow(self, tenant_id: str, filters: Filters, after_id: int) -> AsyncIterator[list[StoredFlow]]:
        """A tenant's flows after that one as they come, some at a time. Raises TooManyRequests."""
        self._check_followers(tenant_id)
        self._followers[tenant_id] += 1
        try:
            while True:
                written = self._written
                found = await self._database.read(
                    partial(
                        rows.flows_after,
                        tenant_id=tenant_id,
                        filters=filters,
                        after_id=after_id,
                        limit=bound.FLOWS_A_WRITE_MAX,
                    )
                )
                if found:
                    after_id = found[-1].id
                    yield found
                else:
                    await written.wait()
        finally:
            self._followers[tenant_id] -= 1

    def _check_followers(self, tenant_id: str) -> None:
        for count, most in (
            (self._followers[tenant_id], bound.FLOW_FOLLOWERS_A_TENANT_MAX),
            (self._followers.total(), bound.FLOW_FOLLOWERS_MAX),
        ):
            if count >= most:
                raise TooManyRequests(f"flows are followed by {most} already", retry_after_s=1)

    async def gather(self) -> None:
        """Wait for what comes, and write it down with what comes soon after."""
        await self._work.wait()
        self._work.clear()
        await asyncio.sleep(bound.FLOWS_GATHER_S)
        await self.flush()

    async def flush(self) -> None:
        """Write down what waits, by turns. What the records do not take is tried again with what comes."""
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        while self._group or self._waiting:
            self._group = self._group or self._waiting.take(bound.FLOWS_A_WRITE_MAX)
            try:
                await self._database.write(partial(rows.insert_flows, new=self._group))
            except CasemateError as error:
                _LOG.warning("flows were not written down", code=error.code, reason=str(error), count=len(self._group))
                return
            self._group = []
            written, self._written = self._written, asyncio.Event()
            written.set()
        for tenant_id, count in self.dropped.items():
            _LOG.warning("flows were thrown away: more came than are kept", tenant=tenant_id, count=count)
        self.dropped.clear()


@asynccontextmanager
async def open_flows(database: Database, count: Callable[[Flow], None]) -> AsyncIterator[Flows]:
    """With the task that writes; what waits at the end is written down."""
    flows = Flows(database, count)
    try:
        async with Recurring(flows.gather, name="flows", pause_s=bound.FLOWS_GATHER_S):
            yield flows
    finally:
        await flows.flush()
