"""What the service does: charts of a time range, workers, runtimes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from casemate.clock import now_us
from casemate.dashboard.live import fragments
from casemate.dashboard.series import series_of
from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit, whole_number
from casemate.errors import InvalidInput
from casemate.model.units import SECOND_US
from casemate.service_limits import CHART_POINTS, CHART_RANGE_MAX_S, LIVE_WORKERS_S, PAGE_MAX_COUNT
from casemate.store.executions import statistics_rows

RANGES: Final = {"15 minutes": 900, "hour": 3600, "6 hours": 6 * 3600, "day": 24 * 3600, "week": 7 * 24 * 3600}
_GROUPS: Final = ("runtime", "function", "tenant")
_DEFAULT_RANGE_S: Final = 900


def routes(site: Site) -> list[Route]:
    """The pages of who looks after the service."""
    return [
        site.route("/charts", _charts, scope="metrics:read"),
        site.route("/charts/data", _data, scope="metrics:read"),
        site.route("/workers", _workers, scope="workers:read"),
        site.route("/workers/live", _workers_live, scope="workers:read"),
        site.route("/runtimes", _runtimes),
    ]


async def _charts(visit: Visit) -> Response:
    range_s = _range_s(visit)
    group_by = visit.wanted("by").get("by", _GROUPS[0])
    since = _utc(now_us() - range_s * SECOND_US)
    found = await visit.ask("GET", "metrics", query={"since": since, "group_by": group_by})
    return visit.page(
        "charts.html",
        ranges=RANGES,
        range_s=range_s,
        groups=found["groups"],
        group_by=group_by,
        groupings=_GROUPS if visit.who.is_operator else _GROUPS[:-1],
        names=await _group_names(visit, group_by),
        turns=visit.site.executions.gate.statistics(),
    )


async def _group_names(visit: Visit, group_by: str) -> dict[str, str]:
    """What groups are called by people: runtimes by their runners, tenants by their names."""
    if group_by == "runtime":
        found = await visit.ask("GET", "runners")
        return {each["runtime"]: each["name"] for each in found["items"]}
    if group_by == "tenant" and visit.may("tenants:read"):
        found = await visit.ask("GET", "tenants", query={"limit": str(PAGE_MAX_COUNT)})
        return {each["id"]: each["name"] for each in found["items"]}
    return {}


async def _data(visit: Visit) -> Response:
    """The series of the charts: of all tenants for the operator, else of one's own."""
    range_s = _range_s(visit)
    until_us = now_us()
    since_us = until_us - range_s * SECOND_US
    tenant_id = None if visit.who.is_operator else visit.who.tenant_id
    found = await visit.site.database.read(
        lambda connection: series_of(
            statistics_rows(connection, tenant_id, since_us=since_us, until_us=until_us),
            since_us=since_us,
            until_us=until_us,
            points=CHART_POINTS,
        )
    )
    return Response(msgspec.json.encode(found), media_type="application/json")


def _utc(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // SECOND_US, UTC).isoformat()


def _range_s(visit: Visit) -> int:
    found = whole_number(visit.wanted("range").get("range", str(_DEFAULT_RANGE_S)), "range")
    if not 1 <= found <= CHART_RANGE_MAX_S:
        raise InvalidInput("range", f"must be 1 to {CHART_RANGE_MAX_S} seconds")
    return found


async def _report(visit: Visit) -> dict[str, Any]:
    found: dict[str, Any] = await visit.ask("GET", "workers")
    return found


async def _workers(visit: Visit) -> Response:
    return visit.page("workers.html", report=await _report(visit))


async def _workers_live(visit: Visit) -> Response:
    async def rendered() -> str:
        return visit.text("workers_part.html", report=await _report(visit))

    return fragments(visit, rendered, period_s=LIVE_WORKERS_S)


async def _runtimes(visit: Visit) -> Response:
    found = await visit.ask("GET", "runtimes")
    return visit.page("runtimes.html", runtimes=found["items"])
