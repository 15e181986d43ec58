"""Functions: publish, look at, move aliases; call one item or many."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from casemate import service_limits as limits
from casemate.api.auth import Who, allowed
from casemate.api.documents import json_response, moment
from casemate.api.function_models import (
    ALIAS,
    AliasIn,
    AliasOut,
    BatchIn,
    BatchOut,
    DiffOut,
    FunctionIn,
    FunctionOut,
    FunctionsOut,
    InvokeIn,
    InvokeOut,
    LogsOut,
    MovesOut,
    VersionOut,
    VersionsOut,
)
from casemate.api.queries import Listed, PageAsked, labels_of, moments
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts, State
from casemate.api.waiting import unless_gone
from casemate.executions.request import check_maximum
from casemate.functions.calls import BATCH, FUNCTION, Called
from casemate.functions.names import function_name, runner_name
from casemate.functions.published import Published, check_reference, difference, source_of
from casemate.model.function import Item, Source
from casemate.model.labels import check_labels
from casemate.service_config import LANGUAGE_ALIASES
from casemate.store import logs
from casemate.store.executions import Execution
from casemate.store.functions import Alias, Function, Version
from casemate.tenancy.scopes import INVOKE
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1/functions", tags=["functions"], route_class=CheckedRoute)
NDJSON: Final = "application/x-ndjson"
Reader = Annotated[Principal, Depends(allowed("functions:read"))]
Publisher = Annotated[Principal, Depends(allowed("functions:publish"))]
FunctionName = Annotated[str, Path(alias="name", max_length=limits.FUNCTION_NAME_MAX_CHARS)]
AliasName = Annotated[str, Path(alias="alias", max_length=limits.ALIAS_NAME_MAX_CHARS, pattern=ALIAS)]
Number = Annotated[int, Path(ge=1, le=limits.VERSION_NUMBER_MAX)]
WhichVersion = Annotated[int | None, Query(ge=1, le=limits.VERSION_NUMBER_MAX, description="A version by its number.")]
WhichAlias = Annotated[
    str | None, Query(max_length=limits.ALIAS_NAME_MAX_CHARS, description="What an alias stands for; else `live`.")
]


# As they are answered -----------------------------------------------------------------------------


def version_document(version: Version, aliases: list[str]) -> dict[str, Any]:
    """A version as it is answered."""
    source = source_of(version)
    return {
        "function": version.name,
        "version": version.number,
        "runtime": source.runtime,
        "code": source.code,
        "limits": source.limits,
        "digest": version.digest,
        "description": version.description,
        "labels": version.labels,
        "entry": source.function,
        "spread": source.spread,
        "macros": source.macros,
        "normalise": bool(version.options.get("normalise")),
        "input_schema": version.input_schema,
        "output_schema": version.output_schema,
        "created_at": moment(version.created_us),
        "created_by": version.created_by,
        "aliases": aliases,
    }


def function_document(function: Function, environment: str) -> dict[str, Any]:
    """A function as it is answered."""
    return {
        "name": function.name,
        "runtime": function.runtime,
        "runner": runner_name(function.runtime, environment),
        "latest": function.latest,
        "aliases": function.aliases,
        "description": function.description,
        "labels": function.labels,
        "created_at": moment(function.created_us),
        "updated_at": moment(function.updated_us),
    }


def alias_document(alias: Alias) -> dict[str, Any]:
    """An alias as it is answered."""
    return {
        "function": alias.name,
        "alias": alias.alias,
        "version": alias.number,
        "moved_at": moment(alias.moved_us),
        "moved_by": alias.moved_by,
    }


def item_document(called: Called) -> dict[str, Any]:
    """What became of an item: an output, or an error."""
    result = called.result
    found: dict[str, Any] = {"id": result.id, "success": result.success, "reason": result.reason}
    if result.success:
        found["output"] = result.output
    else:
        found["error"] = result.error or {"type": "", "message": f"ended with {result.reason}", "traceback": ""}
    if called.warnings:
        found["warnings"] = called.warnings
    return found


# Publishing ---------------------------------------------------------------------------------------


def source_in(parts: State, body: FunctionIn) -> Source:
    """What is to be published. A language of the configuration gives its limits where none are named."""
    language = LANGUAGE_ALIASES.get(body.runtime, body.runtime)
    declared = parts.config.languages.get(language)
    given = body.limits.given()
    check_maximum(given, parts.config.maximum)
    check_labels(body.labels)
    return Source(
        runtime=(declared.runtime or language) if declared is not None else language,
        code=body.code,
        limits={**(declared.limits() if declared is not None else {}), **given},
        function=body.function,
        spread=body.spread,
        macros=body.macros,
    )


@router.put(
    "/{name}",
    response_model=VersionOut,
    responses={201: {"model": VersionOut, "description": "A new version."}},
    summary="Publish a version",
)
async def publish(name: FunctionName, body: FunctionIn, request: Request, parts: Parts, who: Publisher) -> Response:
    """Publish a version, and have an alias stand for it. The same once more changes nothing."""
    source = source_in(parts, body)
    name = function_name(name)
    await parts.checks.check_source(who, source, syntax=body.check, request_id=request.state.request_id)
    version, is_new = await parts.functions.publish(
        who,
        name,
        source,
        alias=body.alias,
        normalise=body.normalise,
        description=body.description,
        labels=body.labels,
        input_schema=body.input_schema,
        output_schema=body.output_schema,
    )
    function = await parts.functions.get(who.tenant_id, name)
    return json_response(version_document(version, _aliases_of(function, version.number)), 201 if is_new else 200)


def _aliases_of(function: Function, number: int) -> list[str]:
    return sorted(alias for alias, at in function.aliases.items() if at == number)


@router.get("", response_model=FunctionsOut, summary="List functions")
async def list_functions(
    parts: Parts,
    who: Reader,
    page: Listed,
    label: Annotated[list[str], Query(max_length=limits.LABELS_MAX)] = [],  # noqa: B006
) -> Response:
    """The tenant's, youngest first."""
    found = await parts.functions.list(who.tenant_id, limit=page.limit, cursor=page.cursor, labels=labels_of(label))
    items = [function_document(each, parts.config.environment) for each in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


@router.get("/{name}", response_model=FunctionOut, summary="Look up a function")
async def show(name: FunctionName, parts: Parts, who: Reader) -> Response:
    """One function with its aliases."""
    return json_response(function_document(await parts.functions.get(who.tenant_id, name), parts.config.environment))


@router.delete("/{name}", status_code=204, summary="Delete a function", response_class=Response)
async def delete(name: FunctionName, parts: Parts, who: Publisher) -> Response:
    """With all versions and aliases. Calls that run end on what they began with."""
    await parts.functions.delete(who.tenant_id, name)
    return Response(status_code=204)


@router.get("/{name}/versions", response_model=VersionsOut, summary="List versions")
async def versions(name: FunctionName, parts: Parts, who: Reader, page: Listed) -> Response:
    """Youngest first."""
    function = await parts.functions.get(who.tenant_id, name)
    found = await parts.functions.versions(who.tenant_id, name, limit=page.limit, cursor=page.cursor)
    items = [version_document(each, _aliases_of(function, each.number)) for each in found.items]
    return json_response({"items": items, "next_cursor": found.next_cursor})


@router.get("/{name}/versions/{number}", response_model=VersionOut, summary="Look up a version")
async def version(name: FunctionName, number: Number, parts: Parts, who: Reader) -> Response:
    """One version with its code."""
    function = await parts.functions.get(who.tenant_id, name)
    found = await parts.functions.find(who.tenant_id, name, number)
    return json_response(version_document(found.version, _aliases_of(function, number)))


@router.get("/{name}/diff", response_model=DiffOut, summary="Compare versions")
async def diff(
    name: FunctionName,
    parts: Parts,
    who: Reader,
    before: Annotated[int, Query(alias="from", ge=1, le=limits.VERSION_NUMBER_MAX)],
    after: Annotated[int, Query(alias="to", ge=1, le=limits.VERSION_NUMBER_MAX)],
) -> Response:
    """What differs between two versions."""
    old = await parts.functions.find(who.tenant_id, name, before)
    new = await parts.functions.find(who.tenant_id, name, after)
    text, changed = difference(old.version, new.version)
    return json_response(
        {"function": name, "from_version": before, "to_version": after, "code": text, "changed": changed}
    )


@router.put("/{name}/aliases/{alias}", response_model=AliasOut, summary="Move an alias")
async def move(name: FunctionName, alias: AliasName, body: AliasIn, parts: Parts, who: Publisher) -> Response:
    """From then on calls get that version; those that run end on theirs."""
    return json_response(alias_document(await parts.functions.move(who, name, alias, body.version)))


@router.delete("/{name}/aliases/{alias}", status_code=204, summary="Delete an alias", response_class=Response)
async def delete_alias(name: FunctionName, alias: AliasName, parts: Parts, who: Publisher) -> Response:
    """With its history. The version that it stood for stays."""
    await parts.functions.delete_alias(who.tenant_id, name, alias)
    return Response(status_code=204)


@router.post("/{name}/aliases/{alias}/rollback", response_model=AliasOut, summary="Roll an alias back")
async def roll_back(name: FunctionName, alias: AliasName, parts: Parts, who: Publisher) -> Response:
    """To the version before its last move."""
    return json_response(alias_document(await parts.functions.roll_back(who, name, alias)))


@router.get("/{name}/aliases/{alias}/history", response_model=MovesOut, summary="Moves of an alias")
async def history(name: FunctionName, alias: AliasName, parts: Parts, who: Reader) -> Response:
    """Youngest first."""
    found = await parts.functions.moves(who.tenant_id, name, alias)
    return json_response(
        {
            "items": [
                {
                    "from_version": each.from_number,
                    "to_version": each.to_number,
                    "is_rollback": each.is_rollback,
                    "moved_at": moment(each.at_us),
                    "moved_by": each.moved_by,
                }
                for each in found
            ]
        }
    )


@router.get("/{name}/logs", response_model=LogsOut, summary="What a function has printed")
async def show_logs(
    name: FunctionName,
    parts: Parts,
    who: Reader,
    page: Listed,
    version: WhichVersion = None,
    since: str | None = None,
) -> Response:
    """Youngest first, as long as logs are kept."""
    await parts.functions.get(who.tenant_id, name)
    since_us, _ = moments(since, None)
    asked = logs.Filters(function=name, version=version, since_us=since_us)
    return await log_page(parts, who, asked, page)


async def log_page(parts: State, who: Principal, asked: logs.Filters, page: PageAsked) -> Response:
    """A page of what a tenant's functions have printed, youngest first."""
    found = await parts.database.read(
        lambda records: logs.list_lines(records, who.tenant_id, asked, limit=page.limit, cursor=page.cursor)
    )
    items = [
        {
            "function": each.function,
            "version": each.version,
            "execution_id": each.execution_id,
            "item_id": each.item_id,
            "stream": each.stream,
            "text": each.text,
            "at": moment(each.at_us),
        }
        for each in found.items
    ]
    return json_response({"items": items, "next_cursor": found.next_cursor})


# Calling ------------------------------------------------------------------------------------------


async def callable_by(parts: State, who: Principal, name: str, which: int | str) -> Published:
    """The version that is meant, if the key may call it: by its name or by its runtime. Raises NotFound."""
    found = await parts.functions.find(who.tenant_id, name, which)
    who.scopes.require(f"{INVOKE}{name}", f"{INVOKE}{found.source.runtime}")
    return found


async def _begun(
    parts: State, who: Principal, request: Request, found: Published, *, kind: str, timeout_s: float | None
) -> Execution:
    """The record of a call. Raises InvalidInput for more time than this service allows, TooManyRequests."""
    check_maximum({} if timeout_s is None else {"timeout": timeout_s}, parts.config.maximum)
    version = found.version
    return await parts.calls.begin(
        who, found.source, kind=kind, name=version.name, version=version.number, request_id=request.state.request_id
    )


@router.post("/{name}/invoke", response_model=InvokeOut, summary="Call a function")
async def invoke(
    name: FunctionName,
    body: InvokeIn,
    request: Request,
    parts: Parts,
    who: Who,
    version: WhichVersion = None,
    alias: WhichAlias = None,
) -> Response:
    """Call it with one item. What the function does wrong is in the answer, which is 200 all the same."""
    parts.executions.check_open()
    found = await callable_by(parts, who, name, check_reference(version, alias))
    row = await _begun(parts, who, request, found, kind=FUNCTION, timeout_s=body.timeout)
    item = Item(data=body.data, context=body.context)
    async with aclosing(parts.calls.results(who, row, found, [item], body.timeout)) as results:
        called = await unless_gone(request, anext(results))
        async for _ in results:
            pass
    result = called.result
    document = {
        **item_document(called),
        "id": row.id,
        "function": name,
        "version": found.version.number,
        "error": None if result.success else item_document(called)["error"],
        "stdout": result.stdout,
        "stderr": result.stderr,
        "truncated_bytes": result.truncated_bytes,
        "usage": result.usage,
        "warnings": called.warnings,
    }
    return json_response(document)


@router.post("/{name}/batch", response_model=BatchOut, summary="Call a function many times")
async def batch(
    name: FunctionName,
    body: BatchIn,
    request: Request,
    parts: Parts,
    who: Who,
    version: WhichVersion = None,
    alias: WhichAlias = None,
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Call it with each item, on its own; results are in the order of the items.

    With `Accept: application/x-ndjson` they come one a line as soon as all before them are known.
    """
    parts.executions.check_open()
    found = await callable_by(parts, who, name, check_reference(version, alias))
    row = await _begun(parts, who, request, found, kind=BATCH, timeout_s=body.timeout)
    items = [Item(id=each.id, data=each.data, context=each.context) for each in body.items]
    results = parts.calls.results(who, row, found, items, body.timeout)
    if NDJSON in accept:
        return StreamingResponse(_lines(results), media_type=NDJSON, headers={"X-Execution-Id": row.id})
    documents = await unless_gone(request, _collected(results))
    succeeded = sum(each["success"] for each in documents)
    head = {"id": row.id, "function": name, "version": found.version.number}
    counts = {"succeeded": succeeded, "failed": len(documents) - succeeded}
    return json_response({**head, **counts, "results": [msgspec.Raw(each["json"]) for each in documents]})


async def _lines(results: AsyncGenerator[Called, None]) -> AsyncIterator[bytes]:
    async with aclosing(results):
        async for called in results:
            yield msgspec.json.encode(item_document(called)) + b"\n"


async def _collected(results: AsyncGenerator[Called, None]) -> list[dict[str, Any]]:
    """Encoded as they come; what does not fit into one answer is told as an error of its item."""
    found: list[dict[str, Any]] = []
    left_bytes = limits.BATCH_REPLY_MAX_BYTES
    async with aclosing(results):
        async for called in results:
            text = msgspec.json.encode(item_document(called))
            success = called.result.success
            if len(text) > left_bytes:
                text, success = _too_large(called), False
            left_bytes -= len(text)
            found.append({"success": success, "json": text})
    return found


def _too_large(called: Called) -> bytes:
    message = f"the answer is over {limits.BATCH_REPLY_MAX_BYTES} bytes; ask for {NDJSON}"
    error = {"type": "TooLarge", "message": message, "traceback": ""}
    return msgspec.json.encode({"id": called.result.id, "success": False, "reason": "output", "error": error})
