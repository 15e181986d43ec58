"""Runners: one for each language of the configuration, called with a script and items."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request
from starlette.responses import Response

from casemate.api.auth import Who, allowed
from casemate.api.documents import json_response
from casemate.api.function_models import LogsOut, RunnersOut
from casemate.api.queries import Listed, moments
from casemate.api.route import CheckedRoute
from casemate.api.routes.functions import log_page
from casemate.api.state import Parts, State
from casemate.api.waiting import unless_gone
from casemate.errors import NotFound
from casemate.functions import envelope
from casemate.functions.calls import BATCH, all_results
from casemate.functions.names import runner_language, runner_name
from casemate.functions.published import Callee
from casemate.service_config import LANGUAGE_ALIASES, LanguageConfig
from casemate.service_limits import LABEL_MAX_CHARS
from casemate.store import logs
from casemate.tenancy.scopes import INVOKE
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1/runners", tags=["runners"], route_class=CheckedRoute)
Language = Annotated[str, Path(max_length=LABEL_MAX_CHARS, description="A language, or the name of its runner.")]
LogReader = Annotated[Principal, Depends(allowed("functions:read"))]
ITEM_TIMEOUT_S: Final = 1.0
"""What such runners have always given each item."""


@router.get("", response_model=RunnersOut, summary="List runners")
async def list_runners(parts: Parts, who: Who) -> Response:
    """Those that the key may call."""
    items = [
        {
            "name": runner_name(language, parts.config.environment),
            "language": language,
            "runtime": declared.runtime or language,
            "memory_mb": declared.memory,
            "timeout_s": declared.timeout,
            "scope": f"{INVOKE}{language}",
            "tags": parts.config.tags,
            "location": parts.config.location,
        }
        for language, declared in sorted(parts.config.languages.items())
        if who.scopes.permits(f"{INVOKE}{language}")
    ]
    return json_response({"items": items})


@router.get("/{language}/logs", response_model=LogsOut, summary="What a runner's macros have printed")
async def show_logs(
    language: Language, parts: Parts, who: LogReader, page: Listed, since: str | None = None
) -> Response:
    """Of all functions and scripts in that language, youngest first, as long as logs are kept."""
    name, declared = find_language(parts, language)
    since_us, _ = moments(since, None)
    return await log_page(parts, who, logs.Filters(runtime=declared.runtime or name, since_us=since_us), page)


@router.post("/{language}/invoke", response_model=dict[str, Any], summary="Call a runner")
async def invoke(
    language: Language,
    event: Annotated[dict[str, Any], Body()],
    request: Request,
    parts: Parts,
    who: Who,
    packed: Annotated[bool, Query(description="Answer as gzip in base64.")] = False,  # noqa: FBT002
    accept_encoding: Annotated[str, Header(alias="X-Accept-Encoding")] = "",
) -> Response:
    """The event is `{script, items, timeout}`, the answer `{status, results, errors}`.

    What is wrong with the event is in the answer, which is 200 all the same.
    """
    name, declared = find_language(parts, language)
    who.scopes.require(f"{INVOKE}{name}")
    parts.executions.check_open()
    found = await _answer(parts, who, name, declared, event, request)
    wants_packed = packed or envelope.ENCODING in accept_encoding
    return json_response(envelope.wrap(found) if wants_packed else found)


def find_language(parts: State, name: str) -> tuple[str, LanguageConfig]:
    """A language of the configuration by its name, an alias, or its runner's name. Raises NotFound."""
    wanted = runner_language(name, parts.config.environment) or name
    wanted = LANGUAGE_ALIASES.get(wanted, wanted)
    if wanted in parts.config.languages:
        return wanted, parts.config.languages[wanted]
    known = ", ".join(sorted(parts.config.languages)) or "none; the configuration's [languages] declares them"
    raise NotFound("there is no such runner", hint=f"known: {known}")


async def _answer(
    parts: State, who: Principal, language: str, declared: LanguageConfig, event: dict[str, Any], request: Request
) -> envelope.Envelope:
    call = envelope.read_event(event, language)
    if isinstance(call, str):
        return envelope.failure(call)
    limits = {**declared.limits(), "timeout": min(ITEM_TIMEOUT_S, declared.timeout)}
    source = call.source(declared.runtime or language, limits)
    row = await parts.calls.begin(who, source, kind=BATCH, request_id=request.state.request_id)
    calls = parts.calls.results(who, row, Callee(source=source), call.callable_items, total_s=call.timeout_s)
    results = await unless_gone(request, all_results(calls))
    is_readable = not envelope.may_be_unreadable(results, language) or await parts.checks.is_readable(
        who, source, request.state.request_id
    )
    return envelope.reply(call, results, language, is_readable=is_readable)
