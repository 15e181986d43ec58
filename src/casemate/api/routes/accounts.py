"""What tenants use, what that costs, and how much they may."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from casemate import service_limits as limits
from casemate.account_limits import BUDGET_NAME_MAX_CHARS
from casemate.api.account_models import BudgetIn, BudgetOut, BudgetsOut, JobUsageOut, UsageOut
from casemate.api.auth import allowed
from casemate.api.documents import json_response
from casemate.api.queries import labels_of
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.clock import now_us
from casemate.errors import InvalidInput, NotFound
from casemate.model.accounting import EPOCH, KIB_MS_A_GIB_S, NANO, date_of, day_of, first_day, text_of_amount
from casemate.model.units import SECOND_US
from casemate.store import jobs, usage
from casemate.store.database import Records
from casemate.store.usage import Asked, Used
from casemate.tenancy.budgets import BudgetTerms
from casemate.tenancy.terms import Principal
from casemate.tenancy.usage import budget_document

router = APIRouter(prefix="/v1", tags=["accounting"], route_class=CheckedRoute)
UsageReader = Annotated[Principal, Depends(allowed("usage:read"))]
BudgetManager = Annotated[Principal, Depends(allowed("budgets:manage"))]
TenantAsked = Annotated[
    str | None, Query(max_length=limits.ID_MAX_CHARS, description="Another tenant's; for the operator.")
]
BudgetName = Annotated[str, Path(min_length=1, max_length=BUDGET_NAME_MAX_CHARS)]
COLUMNS: Final = {"day": "day", "kind": "kind", "key": "key_id", "tenant": "tenant_id"}
LABEL: Final = "label:"
_GROUPS: Final = r"^(day|kind|key|tenant|label:.{1,128})$"


@router.get("/usage", response_model=UsageOut, summary="What was used, and what it costs")
async def show_usage(
    parts: Parts,
    who: UsageReader,
    since: Annotated[str | None, Query(description="The first day, in UTC; without it that of this month.")] = None,
    until: Annotated[str | None, Query(description="The last day; without it today.")] = None,
    group_by: Annotated[str | None, Query(pattern=_GROUPS, description="day, kind, key, tenant or label:NAME.")] = None,
    kind: Annotated[str | None, Query(max_length=limits.WORD_MAX_CHARS)] = None,
    key: Annotated[str | None, Query(max_length=limits.ID_MAX_CHARS)] = None,
    label: Annotated[list[str], Query(max_length=limits.LABELS_MAX)] = [],  # noqa: B006
    tenant: TenantAsked = None,
) -> Response:
    """Of the tenant; for the operator of all tenants, unless one is named. `label` is `name=value`."""
    today = day_of(now_us())
    last_day = today if until is None else _day("until", until)
    first = first_day("month", last_day) if since is None else _day("since", since)
    if first > last_day:
        raise InvalidInput("since", "is after until")
    asked = Asked(
        tenant_id=None if who.is_operator and tenant is None else await _whose(parts, who, tenant),
        first_day=first,
        last_day=last_day,
        kind=kind,
        key_id=key,
        labels=labels_of(label),
    )
    total, groups = await parts.database.read(lambda records: _added_up(records, asked, group_by))
    return json_response(
        {
            "since": date_of(first).isoformat(),
            "until": date_of(last_day).isoformat(),
            "currency": parts.meter.prices.currency,
            "total": used_document(total),
            "groups": [{"by": by, **used_document(used)} for by, used in groups],
        }
    )


def _day(field: str, text: str) -> int:
    try:
        return (date.fromisoformat(text) - EPOCH).days
    except ValueError as error:
        raise InvalidInput(field, "is not a day such as 2030-01-31") from error


def _added_up(records: Records, asked: Asked, group_by: str | None) -> tuple[Used, list[tuple[str, Used]]]:
    total = usage.total(records, asked)
    if group_by is None:
        return total, []
    if group_by.startswith(LABEL):
        return total, list(usage.by_label(records, asked, group_by.removeprefix(LABEL)).items())
    column = COLUMNS[group_by]
    found = usage.by_columns(records, asked, [column])
    return total, [
        (date_of(each.day).isoformat() if column == "day" else getattr(each, column), each) for each in found
    ]


def used_document(used: Used) -> dict[str, Any]:
    """As it is answered, in units for people."""
    return {
        "runs": used.runs,
        "failed": used.failed,
        "cpu_s": used.cpu_us / SECOND_US,
        "wall_s": used.wall_us / SECOND_US,
        "memory_gib_s": used.memory_kib_ms / KIB_MS_A_GIB_S,
        "disk_bytes": used.disk_bytes,
        "network_sent_bytes": used.sent_bytes,
        "network_received_bytes": used.received_bytes,
        "cost": text_of_amount(used.cost_nano, NANO),
    }


@router.get("/jobs/{job_id}/usage", response_model=JobUsageOut, summary="What a job has used, and what it costs")
async def show_job_usage(job_id: str, parts: Parts, who: UsageReader) -> Response:
    """All its attempts together, as far as they have ended."""

    def found(records: Records) -> Used:
        jobs.get(records, who.tenant_id, job_id)
        return usage.of_job(records, who.tenant_id, job_id)

    used = await parts.database.read(found)
    return json_response({"job_id": job_id, "currency": parts.meter.prices.currency, **used_document(used)})


# Budgets ------------------------------------------------------------------------------------------


async def _whose(parts: State, who: Principal, tenant: str | None) -> str:
    """The tenant that is meant. Raises NotFound for another's, unless it is the operator who asks."""
    if tenant is None or tenant == who.tenant_id:
        return who.tenant_id
    if not who.is_operator:
        raise NotFound(f"there is no tenant {tenant!r}")
    return (await parts.tenancy.tenant(tenant)).id


@router.get("/budgets", response_model=BudgetsOut, summary="List budgets")
async def list_budgets(parts: Parts, who: UsageReader, tenant: TenantAsked = None) -> Response:
    """All of a tenant's, with what is spent of them."""
    found = await parts.budgets.list_budgets(await _whose(parts, who, tenant))
    return json_response({"items": [budget_document(each) for each in found]})


@router.put("/budgets/{budget}", response_model=BudgetOut, summary="Set a budget")
async def put_budget(
    budget: BudgetName, body: BudgetIn, parts: Parts, who: BudgetManager, tenant: TenantAsked = None
) -> Response:
    """Make it, or change it; what its period has used so far counts. What the operator sets for a tenant stays so."""
    whose = await _whose(parts, who, tenant)
    made = await parts.budgets.put(whose, budget, BudgetTerms(**body.model_dump()), by_operator=who.is_operator)
    return json_response(budget_document(made))


@router.delete("/budgets/{budget}", status_code=204, response_class=Response, summary="Remove a budget")
async def delete_budget(budget: BudgetName, parts: Parts, who: BudgetManager, tenant: TenantAsked = None) -> Response:
    """What it has ended stays ended; new work is taken again."""
    await parts.budgets.delete(await _whose(parts, who, tenant), budget, by_operator=who.is_operator)
    return Response(status_code=204)
