"""What the service tells its clients, as values. A newer service may say more: what is unknown here is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from casemate.errors import InvalidInput
from casemate.model.document import result_from_document
from casemate.model.result import GuestError, JsonValue, Reason, Result, Status, Usage


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a tenant's: `state` is `queued`, `running` or `ended`. Lists leave the result out."""

    id: str
    state: str
    runtime: str
    kind: str = "code"
    function: str = ""
    version: int | None = None
    priority: int = 0
    labels: dict[str, str] = {}
    request_id: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    status: Status | None = None
    reason: Reason | None = None
    changes: tuple[dict[str, Any], ...] = ()
    result: Result | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with a piece of code: `kind` is `size`, `syntax` or `pattern`."""

    kind: str
    message: str
    line: int | None = None


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say about code that was not run. `code` is what the sanitizer made of it."""

    valid: bool
    error: str | None = None
    errors: tuple[Problem, ...] = ()
    changes: tuple[dict[str, Any], ...] = ()
    code: str | None = None


class FunctionVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a function; it never changes. `entry` is what of the code is called; empty: the program is run."""

    function: str
    version: int
    runtime: str = ""
    code: str = ""
    limits: dict[str, Any] = {}
    digest: str = ""
    description: str = ""
    labels: dict[str, str] = {}
    entry: str = ""
    spread: bool = False
    macros: bool = False
    normalise: bool = False
    input_schema: Any = None
    output_schema: Any = None
    created_at: datetime | None = None
    created_by: str = ""
    aliases: tuple[str, ...] = ()


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function: its versions have numbers, and aliases say which of them counts."""

    name: str
    runtime: str = ""
    runner: str = ""
    latest: int | None = None
    aliases: dict[str, int] = {}
    description: str = ""
    labels: dict[str, str] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name that stands for one version, and can be moved."""

    alias: str
    version: int
    function: str = ""
    moved_at: datetime | None = None
    moved_by: str = ""


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    """One move of an alias."""

    to_version: int
    from_version: int | None = None
    is_rollback: bool = False
    moved_at: datetime | None = None
    moved_by: str = ""


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two versions: `code` is a unified diff, `changed` has other fields with both values."""

    function: str = ""
    from_version: int
    to_version: int
    code: str = ""
    changed: dict[str, Any] = {}


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a function, and what became of it. In a batch `id` is the item's."""

    id: str = ""
    success: bool
    output: JsonValue = None
    error: GuestError | None = None
    reason: Reason = Reason.EXIT
    function: str = ""
    version: int | None = None
    usage: Usage = Usage()
    stdout: str = ""
    stderr: str = ""
    truncated_bytes: int = 0
    warnings: tuple[dict[str, Any], ...] = ()


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a call of a function printed."""

    text: str
    stream: str = "stdout"
    function: str = ""
    version: int | None = None
    runtime: str = ""
    execution_id: str = ""
    item_id: str = ""
    at: datetime | None = None


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """What calls the functions of one language: `scope` is what a key needs for it."""

    name: str
    language: str = ""
    runtime: str = ""
    memory_mb: float | None = None
    timeout_s: float | None = None
    scope: str = ""
    tags: dict[str, str] = {}
    location: str = ""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """Who things belong to. `concurrency_max` runs at a time, and `queue_max` more that wait."""

    id: str
    name: str = ""
    state: str = ""
    concurrency_max: int = 0
    queue_max: int = 0
    labels: dict[str, str] = {}
    created_at: datetime | None = None


class Scopes(msgspec.Struct, frozen=True, kw_only=True):
    """What a key may do; what is denied is denied, whatever is allowed."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    """Which secret signs. `generation` is a name for it, from which nobody learns it."""

    generation: str


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key.

    `key`, and what its webhooks are signed with, are there once, when it was made or rotated, and in no repr.
    """

    id: str
    tenant_id: str = ""
    name: str = ""
    prefix: str = ""
    scopes: Scopes = Scopes()
    rate_per_s: float | None = None
    burst: int | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    key: str | None = None
    webhook_secret: str | None = None

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, name={self.name!r}, prefix={self.prefix!r})"


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key this is, and what it may do."""

    tenant_id: str
    tenant: str = ""
    key_id: str = ""
    scopes: Scopes = Scopes()
    is_operator: bool = False


def execution_from_document(document: Mapping[str, Any]) -> Execution:
    """The Execution that a document tells of. Raises InvalidInput if it is none."""
    try:
        result = document.get("result")
        found = msgspec.convert({**document, "result": None}, Execution)
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise InvalidInput("execution", "is not the document of an execution") from error
    ended = result_from_document(result) if result is not None else None
    return msgspec.structs.replace(found, result=ended)
