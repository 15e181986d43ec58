"""Everything that can be asked of the service, each as a value: a request, and how its answer is read. Pure.

The clients have a method for each of these functions, with the same parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from casemate.model.resources import Limits
from casemate.model.result import JsonValue
from casemate.model.service import (
    Alias,
    AliasMove,
    Diff,
    Execution,
    Function,
    FunctionVersion,
    Invocation,
    Key,
    LogLine,
    Me,
    Runner,
    SigningSecret,
    Tenant,
    Validation,
)
from casemate.model.units import parse_duration
from casemate.sdk.options import limits_document
from casemate.sdk.requests import (
    LINES,
    Call,
    Listing,
    Request,
    check_key,
    encode,
    given,
    path,
    query,
    read_document,
    read_execution,
    read_nothing,
    reader,
)
from casemate.service_limits import SDK_SILENCE_MAX_S, SDK_WAIT_MAX_S


def sent(
    method: str,
    where: str,
    body: Mapping[str, object],
    *,
    key: str | None = None,
    waits: bool = False,
    **values: object,
) -> Request:
    """A request with a body; `values` go into its query. `waits`: the answer comes when something has run."""
    return Request(
        method=method,
        path=where,
        query=query(**values),
        body=encode("body", body),
        idempotency_key=check_key(key) if key is not None else "",
        silence_max_s=SDK_WAIT_MAX_S if waits else SDK_SILENCE_MAX_S,
    )


def asked(where: str, **values: object) -> Request:
    """A request for something, narrowed to what is given."""
    return Request(method="GET", path=where, query=query(**values))


# Executions ----------------------------------------------------------------------------------------


def list_executions(
    *,
    state: str | None = None,
    status: str | None = None,
    reason: str | None = None,
    kind: str | None = None,
    runtime: str | None = None,
    function: str | None = None,
    label: str | Sequence[str] | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Listing[Execution]:
    """Executions, youngest first, without their Results.

    `kind` is `code`, `function` or `batch`, `label` is written `name=value`.
    """
    request = asked(
        path("executions"),
        state=state,
        status=status,
        reason=reason,
        kind=kind,
        runtime=runtime,
        function=function,
        label=several(label),
        since=since,
        until=until,
    )
    return Listing(request, Execution, limit)


def get_execution(execution_id: str) -> Call[Execution]:
    """One execution, with its Result if it has ended."""
    return Call(asked(path("executions", execution_id)), read_execution)


def cancel_execution(execution_id: str) -> Call[Execution]:
    """End an execution and wait for its Result. One that has ended stays as it is."""
    return Call(Request(method="DELETE", path=path("executions", execution_id)), read_execution)


def validate(
    code: str,
    runtime: str = "python",
    *,
    patterns: bool | None = None,
    sanitize: bool | None = None,
) -> Call[Validation]:
    """What is wrong with code, without running it."""
    body = given(runtime=runtime, code=code, patterns=patterns, sanitize=sanitize)
    return Call(sent("POST", path("validate"), body, waits=True), reader(Validation))


# Functions -----------------------------------------------------------------------------------------


def publish(
    name: str,
    code: str,
    runtime: str = "python",
    *,
    limits: Limits | Mapping[str, Any] | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    input_schema: JsonValue = None,
    output_schema: JsonValue = None,
    function: str | None = None,
    spread: bool | None = None,
    macros: bool | None = None,
    normalise: bool | None = None,
    check: bool | None = None,
    alias: str | None = "live",
) -> Call[FunctionVersion]:
    """A new version of a function, for which `alias` then stands; with None no alias is moved."""
    body = given(
        code=code,
        runtime=runtime,
        limits=None if limits is None else limits_document(limits),
        description=description,
        labels=labels,
        input_schema=input_schema,
        output_schema=output_schema,
        function=function,
        spread=spread,
        macros=macros,
        normalise=normalise,
        check=check,
    )
    return Call(sent("PUT", path("functions", name), {**body, "alias": alias}, waits=True), reader(FunctionVersion))


def list_functions(*, label: str | Sequence[str] | None = None, limit: int | None = None) -> Listing[Function]:
    """The functions, youngest first. `label` is written `name=value`."""
    return Listing(asked(path("functions"), label=several(label)), Function, limit)


def get_function(name: str) -> Call[Function]:
    """One function, with its aliases."""
    return Call(asked(path("functions", name)), reader(Function))


def delete_function(name: str) -> Call[None]:
    """Remove a function with all its versions and aliases."""
    return Call(Request(method="DELETE", path=path("functions", name)), read_nothing)


def list_versions(name: str, *, limit: int | None = None) -> Listing[FunctionVersion]:
    """The versions of a function, youngest first."""
    return Listing(asked(path("functions", name, "versions")), FunctionVersion, limit)


def get_version(name: str, version: int) -> Call[FunctionVersion]:
    """One version, with its source."""
    return Call(asked(path("functions", name, "versions", str(version))), reader(FunctionVersion))


def diff(name: str, from_version: int, to_version: int) -> Call[Diff]:
    """What differs between two versions."""
    request = Request(
        method="GET",
        path=path("functions", name, "diff"),
        query=(("from", str(from_version)), ("to", str(to_version))),
    )
    return Call(request, reader(Diff))


def move_alias(name: str, alias: str, version: int) -> Call[Alias]:
    """Have an alias mean another version, at once; calls that run go on with theirs."""
    return Call(sent("PUT", path("functions", name, "aliases", alias), {"version": version}), reader(Alias))


def roll_back(name: str, alias: str = "live", *, idempotency_key: str | None = None) -> Call[Alias]:
    """Have an alias mean what it did before."""
    where = path("functions", name, "aliases", alias, "rollback")
    return Call(sent("POST", where, {}, key=idempotency_key), reader(Alias))


def history(name: str, alias: str = "live", *, limit: int | None = None) -> Listing[AliasMove]:
    """What an alias has meant, youngest first."""
    return Listing(asked(path("functions", name, "aliases", alias, "history")), AliasMove, limit, in_pages=False)


def list_logs(
    name: str,
    *,
    version: int | None = None,
    since: datetime | str | None = None,
    limit: int | None = None,
) -> Listing[LogLine]:
    """What the calls of a function have printed, youngest first."""
    return Listing(asked(path("functions", name, "logs"), version=version, since=since), LogLine, limit)


def invoke(
    name: str,
    data: JsonValue = None,
    *,
    context: Mapping[str, Any] | None = None,
    timeout: float | str | None = None,
    version: int | None = None,
    alias: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Invocation]:
    """Call a function once. How the call ended is in what comes back; only what cannot be done is raised."""
    body: dict[str, object] = {"data": data, **given(context=context, timeout=_seconds(timeout))}
    where = path("functions", name, "invoke")
    request = sent("POST", where, body, key=idempotency_key, waits=True, version=version, alias=alias)
    return Call(request, reader(Invocation))


def batch_request(
    name: str,
    items: Sequence[bytes],
    *,
    timeout: float | str | None = None,
    version: int | None = None,
    alias: str | None = None,
) -> Request:
    """A call of a function for each item; the items are JSON already."""
    head = encode("body", given(timeout=_seconds(timeout)))[1:-1]
    parts = (b'{"items":[' + b",".join(items) + b"]", *([head] if head else []))
    return Request(
        method="POST",
        path=path("functions", name, "batch"),
        query=query(version=version, alias=alias),
        body=b",".join(parts) + b"}",
        accept=LINES,
        silence_max_s=SDK_WAIT_MAX_S,
    )


def several(words: str | Sequence[str] | None) -> list[str]:
    """One word, several, or none."""
    return [] if words is None else [words] if isinstance(words, str) else list(words)


def _seconds(timeout: float | str | None) -> float | None:
    """As people write it: 2, `500ms`, `1m`."""
    return None if timeout is None else float(parse_duration(timeout, field="timeout"))


# Runners -------------------------------------------------------------------------------------------


def list_runners() -> Listing[Runner]:
    """The runners, one for each language of the configuration."""
    return Listing(asked(path("runners")), Runner, in_pages=False)


def invoke_runner(
    language: str, event: Mapping[str, Any], *, idempotency_key: str | None = None
) -> Call[dict[str, Any]]:
    """Hand a runner an event (`script` in base64, `items`, `timeout`); its envelope comes back."""
    where = path("runners", language, "invoke")
    return Call(sent("POST", where, event, key=idempotency_key, waits=True), read_document)


# Tenants and keys ----------------------------------------------------------------------------------


def list_tenants(*, limit: int | None = None) -> Listing[Tenant]:
    """The tenants, youngest first."""
    return Listing(asked(path("tenants")), Tenant, limit)


def get_tenant(tenant_id: str) -> Call[Tenant]:
    """One tenant."""
    return Call(asked(path("tenants", tenant_id)), reader(Tenant))


def create_tenant(
    name: str,
    *,
    concurrency_max: int | None = None,
    queue_max: int | None = None,
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Call[Tenant]:
    """A new tenant."""
    body = given(name=name, concurrency_max=concurrency_max, queue_max=queue_max, labels=labels)
    return Call(sent("POST", path("tenants"), body, key=idempotency_key), reader(Tenant))


def change_tenant(
    tenant_id: str,
    *,
    name: str | None = None,
    state: str | None = None,
    concurrency_max: int | None = None,
    queue_max: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> Call[Tenant]:
    """Change what is given."""
    body = given(name=name, state=state, concurrency_max=concurrency_max, queue_max=queue_max, labels=labels)
    return Call(sent("PATCH", path("tenants", tenant_id), body), reader(Tenant))


def delete_tenant(tenant_id: str) -> Call[None]:
    """Remove a tenant and all that belongs to it."""
    return Call(Request(method="DELETE", path=path("tenants", tenant_id)), read_nothing)


def list_keys(*, limit: int | None = None) -> Listing[Key]:
    """What is known of the keys, youngest first; for the operator of those of all tenants."""
    return Listing(asked(path("keys")), Key, limit)


def create_key(
    name: str,
    *,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    tenant_id: str | None = None,
    rate_per_s: float | None = None,
    burst: int | None = None,
    lifetime_s: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Key]:
    """A new key that may do no more than ours; `key` of the answer is never told again."""
    body = given(
        name=name,
        scopes={"allow": list(allow), "deny": list(deny)},
        tenant_id=tenant_id,
        rate_per_s=rate_per_s,
        burst=burst,
        lifetime_s=lifetime_s,
    )
    return Call(sent("POST", path("keys"), body, key=idempotency_key), reader(Key))


def rotate_key(key_id: str, *, grace_s: float = 0.0, idempotency_key: str | None = None) -> Call[Key]:
    """A new key in the place of one that ends at once, or after `grace_s`."""
    where = path("keys", key_id, "rotate")
    return Call(sent("POST", where, {"grace_s": grace_s}, key=idempotency_key), reader(Key))


def revoke_key(key_id: str) -> Call[Key]:
    """End a key, at once and for good."""
    return Call(Request(method="DELETE", path=path("keys", key_id)), reader(Key))


def show_signing() -> Call[SigningSecret]:
    """Which secret signs addresses and notices: its name, not what it is."""
    return Call(asked(path("signing")), reader(SigningSecret))


def rotate_signing(generation: str) -> Call[SigningSecret]:
    """Replace the secret of that name: all signed addresses are refused from now on."""
    return Call(sent("POST", path("signing", "rotate"), {"generation": generation}), reader(SigningSecret))


# The service itself --------------------------------------------------------------------------------


def me() -> Call[Me]:
    """Whose key this is, and what it may do."""
    return Call(asked(path("me")), reader(Me))


def workers() -> Call[dict[str, Any]]:
    """What runs, waits and is kept ready on the node."""
    return Call(asked(path("workers")), read_document)


def runtimes() -> Call[dict[str, Any]]:
    """The languages and package sets of the node, as `items`."""
    return Call(asked(path("runtimes")), read_document)


def metrics(
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    group_by: str | None = None,
    tenant: str | None = None,
) -> Call[dict[str, Any]]:
    """What executions of a range of time came to: `total`, and `groups` by `runtime`, `function` or `tenant`."""
    request = asked(path("metrics"), since=since, until=until, group_by=group_by, tenant=tenant)
    return Call(request, read_document)


def worker_samples(
    worker_id: str, *, since: datetime | str | None = None, until: datetime | str | None = None
) -> Call[dict[str, Any]]:
    """What a worker held after each of its executions, as `items`."""
    return Call(asked(path("workers", worker_id, "samples"), since=since, until=until), read_document)
