"""What the service is made of, made once and handed to every route."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import Depends, Request

from casemate.api.load import Load
from casemate.api.measures import Measures
from casemate.api.storage import Storage
from casemate.clock import now_us
from casemate.cluster.local import LocalBus
from casemate.executions.checks import Checks
from casemate.executions.service import Executions
from casemate.functions.calls import Calls
from casemate.functions.published import Functions
from casemate.jobs.flows import Flows
from casemate.jobs.logs import Logs
from casemate.jobs.schedules import Schedules
from casemate.jobs.service import Jobs
from casemate.model.accounting import Spent, spent_now
from casemate.service_config import Service
from casemate.store.database import Database
from casemate.tenancy.budgets import Budgets
from casemate.tenancy.secrets import Signing
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.usage import Meter
from casemate.tenancy.webhooks import Notices, Webhooks


class State(msgspec.Struct, kw_only=True):
    """The parts of the service."""

    config: Service
    logs: Logs
    flows: Flows
    database: Database
    bus: LocalBus
    tenancy: Tenancy
    signing: Signing
    executions: Executions
    checks: Checks
    functions: Functions
    calls: Calls
    measures: Measures
    load: Load
    storage: Storage
    jobs: Jobs
    schedules: Schedules
    meter: Meter
    budgets: Budgets
    notices: Notices
    webhooks: Webhooks

    async def deny_all_of(self, tenant_id: str, why: str) -> None:
        """End whatever a tenant has running that may not go on; its Results are to say why."""
        self.jobs.end_all_of(tenant_id, why)
        await asyncio.gather(self.executions.deny_all_of(tenant_id, why), self.calls.deny_all_of(tenant_id, why))

    def live(self) -> dict[str, Spent]:
        """What runs of each tenant have used that have not ended, as far as that is known before their end."""
        found: dict[str, Spent] = {}
        at_us = now_us()
        for tenant_id, since_us in self.executions.running_since():
            found[tenant_id] = found.get(tenant_id, Spent()) + Spent(wall_us=max(0, at_us - since_us))
        for tenant_id, usage in self.jobs.dispatcher.usages():
            found[tenant_id] = found.get(tenant_id, Spent()) + spent_now(
                cpu_s=usage.cpu_s, wall_s=usage.wall_s, memory_bytes=usage.memory_bytes
            )
        return found


def state_of(request: Request) -> State:
    """The parts that answer this request."""
    found: State = request.app.state.parts
    return found


async def _parts(request: Request) -> State:
    """As a dependency. One that is no coroutine would be called in a thread of its own, for each request."""
    return state_of(request)


Parts = Annotated[State, Depends(_parts)]
