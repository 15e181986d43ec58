"""What the service does: charts of a time range, workers, runtimes."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from casemate.dashboard.live import fragments
from casemate.dashboard.series import series_of
from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit, whole_number
from casemate.errors import InvalidInput
from casemate.executions.book import now_us
from casemate.model.units import SECOND_US
from casemate.service_limits import CHART_POINTS, CHART_RANGE_MAX_S, LIVE_WORKERS_S
from casemate.store.executions import statistics_rows

RANGES: Final = {"15 minutes": 900, "hour": 3600, "6 hours": 6 * 3600, "day": 24 * 3600, "week": 7 * 24 * 3600}
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
    return visit.page("charts.html", ranges=RANGES, range_s=_range_s(visit))


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
