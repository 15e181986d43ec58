"""Jobs: the queue, one of them with its log while it comes, its files and flows, and what everything has cost."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response
from starlette.routing import Route

from casemate.dashboard.asking import Refusal, address
from casemate.dashboard.live import Followed, check_streams, fragments
from casemate.dashboard.site import Site
from casemate.dashboard.visit import Visit
from casemate.errors import NotFound
from casemate.job_limits import LOG_LINES_SHOWN_MAX
from casemate.model.job import ENDED, JobState
from casemate.model.result import Reason
from casemate.service_limits import LIVE_JOB_S, LIVE_JOBS_S, PAGE_ROWS

_FILTERS: Final = ("state", "reason", "label", "text", "schedule")
_GROUPS: Final = ("day", "kind", "key")
_MAY_BE_UNKNOWN: Final = frozenset({403, 404})
_DONE_TO_QUEUE: Final = frozenset({"pause", "resume"})
_DONE_TO_JOBS: Final = {"cancel": "jobs:cancel", "rerun": "jobs:submit", "retry": "jobs:submit"}
"""What can be done to a job, and the scope that it takes."""


def routes(site: Site) -> list[Route]:
    """The pages of jobs and of usage."""
    read, manage = "jobs:read", "jobs:manage"
    return [
        site.route("/jobs", _list, scope=read),
        site.route("/jobs/-/live", _live, scope=read),
        site.route("/jobs/-/{what}", _queue, scope=manage, method="POST"),
        site.route("/jobs/{id}", _one, scope=read),
        site.route("/jobs/{id}/live", _one_live, scope=read),
        site.route("/jobs/{id}/log", _log, scope=read),
        site.route("/jobs/{id}/files/{path:path}", _file, scope=read),
        site.route("/jobs/{id}/delete", _delete, scope=manage, method="POST"),
        site.route("/jobs/{id}/{what}", _do, method="POST"),
        site.route("/usage", _usage, scope="usage:read"),
    ]


# The queue ----------------------------------------------------------------------------------------


async def _list(visit: Visit) -> Response:
    return visit.page(
        "jobs.html", states=tuple(JobState), reasons=tuple(Reason), query=_query(visit), **await _rows(visit)
    )


async def _rows(visit: Visit) -> dict[str, Any]:
    query = {**visit.wanted(*_FILTERS, "cursor"), "limit": str(PAGE_ROWS)}
    found = await visit.ask("GET", "jobs", query=query)
    return {
        "jobs": found["items"],
        "next_cursor": found["next_cursor"],
        "filters": visit.wanted(*_FILTERS),
        "standing": await visit.ask("GET", "queue"),
    }


def _query(visit: Visit) -> str:
    return address("-", query=visit.wanted(*_FILTERS)).partition("?")[2]


async def _live(visit: Visit) -> Response:
    async def rendered() -> str:
        return visit.text("jobs_rows.html", query=_query(visit), **await _rows(visit))

    return fragments(visit, rendered, period_s=LIVE_JOBS_S)


async def _queue(visit: Visit) -> Response:
    if visit.place("what") not in _DONE_TO_QUEUE:
        raise NotFound("nothing like that can be done to a queue")
    await visit.ask("POST", "queue", visit.place("what"))
    return visit.other("/jobs")


# One job ------------------------------------------------------------------------------------------


async def _one(visit: Visit) -> Response:
    found = await _facts(visit)
    log = None
    if found["has_ended"]:  # otherwise a script follows it
        log = await visit.ask("GET", "jobs", visit.place("id"), "logs", query={"tail": str(LOG_LINES_SHOWN_MAX)})
    return visit.page("job.html", log=log, **found)


async def _facts(visit: Visit) -> dict[str, Any]:
    """What is known of a job; its files when it may have put them out."""
    identity = visit.place("id")
    job = await visit.ask("GET", "jobs", identity)
    has_ended = job["state"] in ENDED
    files = flows = None
    if has_ended:
        files = await _if_allowed(visit, "jobs", identity, "files", query={"limit": str(PAGE_ROWS)})
    if visit.may("flows:read"):
        flows = await _if_allowed(visit, "flows", query={"job": identity, "limit": str(PAGE_ROWS)})
    return {"job": job, "has_ended": has_ended, "files": files, "flows": flows}


async def _if_allowed(visit: Visit, *parts: str, query: dict[str, str]) -> Any:
    """A list of the API's; None to a key that may not see it."""
    try:
        return await visit.ask("GET", *parts, query=query)
    except Refusal as error:
        if error.status in _MAY_BE_UNKNOWN:
            return None
        raise


async def _one_live(visit: Visit) -> Response:
    await visit.ask("GET", "jobs", visit.place("id"))

    async def rendered() -> str:
        return visit.text("job_part.html", **await _facts(visit))

    watch = visit.request.app.state.parts.jobs.changes.watching(f"{visit.who.tenant_id}/{visit.place('id')}")
    return fragments(visit, rendered, period_s=LIVE_JOB_S, watch=watch)


async def _log(visit: Visit) -> Response:
    check_streams(visit)
    identity = visit.place("id")
    await visit.ask("GET", "jobs", identity)
    url = address("jobs", identity, "logs", query={"tail": str(LOG_LINES_SHOWN_MAX)})
    return Followed(visit, visit.site.api.forward(visit.who, url))


async def _file(visit: Visit) -> Response:
    """As the API gives it: never shown in a page of ours."""
    url = address("jobs", visit.place("id"), "files", *visit.place("path").split("/"))
    return visit.site.api.forward(visit.who, url, accept="*/*")


async def _do(visit: Visit) -> Response:
    what = visit.place("what")
    if what not in _DONE_TO_JOBS:
        raise NotFound("nothing like that can be done to a job")
    visit.who.scopes.require(_DONE_TO_JOBS[what])
    found = await visit.ask("POST", "jobs", visit.place("id"), what, body={})
    if visit.is_partial:
        return Response(status_code=204)
    return visit.other(f"/jobs/{found['id']}")


async def _delete(visit: Visit) -> Response:
    await visit.ask("DELETE", "jobs", visit.place("id"))
    return visit.other("/jobs")


# Usage --------------------------------------------------------------------------------------------


async def _usage(visit: Visit) -> Response:
    wanted = visit.wanted("since", "until", "by")
    by = wanted.pop("by", _GROUPS[0])
    groupings = (*_GROUPS, "tenant") if visit.who.is_operator else _GROUPS
    found = await visit.ask("GET", "usage", query={**wanted, "group_by": by})
    budgets = await visit.ask("GET", "budgets")
    return visit.page("usage.html", usage=found, by=by, groupings=groupings, wanted=wanted, budgets=budgets["items"])
