"""What is sent and answered about functions and runners."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from casemate import service_limits as bound
from casemate.api.models import LimitsIn, Name, Page, Sent, Text, UsageOut

ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What stands in addresses."""

AliasText = Annotated[str, StringConstraints(max_length=bound.ALIAS_NAME_MAX_CHARS, pattern=ALIAS)]


class FunctionIn(Sent):
    """A version of a function to be published."""

    runtime: Name = Field(description="A runtime, or a language of this service's configuration.")
    code: str = Field(max_length=bound.CODE_MAX_BYTES)
    limits: LimitsIn = Field(default_factory=lambda: LimitsIn())  # type: ignore[call-arg]  # noqa: PLW0108
    description: Text = ""
    labels: dict[Name, Text] = Field({}, max_length=bound.LABELS_MAX)
    function: str = Field(
        "", max_length=bound.FUNCTION_NAME_MAX_CHARS, description="A function of the code that is called with the data."
    )
    spread: bool = Field(default=False, description="The data is an array of arguments.")
    macros: bool = Field(default=False, description="With the library of macro helpers.")
    normalise: bool = Field(default=False, description="Take the measurement out of a sample envelope.")
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the data.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the output.")
    alias: AliasText | None = Field("live", description="Moved to this version; null for none.")
    check: bool = Field(default=True, description="Have the language read the code before it is published.")


class VersionOut(BaseModel):
    """One version of a function; it never changes."""

    function: str
    version: int
    runtime: str
    code: str
    limits: dict[str, Any]
    digest: str
    description: str
    labels: dict[str, str]
    entry: str = Field(description="The function of the code that is called; empty: the program is run.")
    spread: bool
    macros: bool
    normalise: bool
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    created_at: str
    created_by: str
    aliases: list[str]


class FunctionOut(BaseModel):
    """A function: its versions have numbers, and aliases say which of them counts."""

    name: str
    runtime: str
    runner: str = Field(description="Name of the runner: language and environment.")
    latest: int
    aliases: dict[str, int]
    description: str
    labels: dict[str, str]
    created_at: str
    updated_at: str


class FunctionsOut(Page):
    """A page of functions."""

    items: list[FunctionOut]


class VersionsOut(Page):
    """A page of versions, youngest first."""

    items: list[VersionOut]


class DiffOut(BaseModel):
    """What differs between two versions."""

    function: str
    from_version: int
    to_version: int
    code: str = Field(description="As a unified diff.")
    changed: dict[str, Any] = Field(description="Other fields that differ: both values.")


class AliasIn(Sent):
    """Where an alias is moved."""

    version: int = Field(ge=1, le=bound.VERSION_NUMBER_MAX)


class AliasOut(BaseModel):
    """A name that stands for one version, and can be moved."""

    function: str
    alias: str
    version: int
    moved_at: str
    moved_by: str


class MoveOut(BaseModel):
    """One move of an alias."""

    from_version: int | None
    to_version: int
    is_rollback: bool
    moved_at: str
    moved_by: str


class MovesOut(BaseModel):
    """All moves of an alias, youngest first."""

    items: list[MoveOut]


class InvokeIn(Sent):
    """One call of a function."""

    data: Any = None
    context: dict[str, Any] = Field({}, description="What was found before; the function has it read-only as `ctx`.")
    timeout: float | None = Field(None, gt=0, le=bound.WALL_MAX_S, description="Seconds for this call.")


class FunctionErrorOut(BaseModel):
    """Why a call has no output."""

    type: str
    message: str
    traceback: str


class InvokeOut(BaseModel):
    """How one call ended."""

    id: str = Field(description="Of the execution.")
    function: str
    version: int
    success: bool
    output: Any = None
    error: FunctionErrorOut | None
    reason: str
    stdout: str
    stderr: str
    truncated_bytes: int
    usage: UsageOut
    warnings: list[dict[str, Any]]


class BatchItemIn(Sent):
    """One item of a batch. Ids are given back as they came; they need not differ."""

    id: str = Field("", max_length=bound.ITEM_ID_MAX_CHARS)
    data: Any = None
    context: dict[str, Any] = Field({})


class BatchIn(Sent):
    """Many calls of one function."""

    items: list[BatchItemIn] = Field(min_length=1, max_length=bound.BATCH_ITEMS_MAX)
    timeout: float | None = Field(None, gt=0, le=bound.WALL_MAX_S, description="Seconds for each item.")


class ItemOut(BaseModel):
    """How one item ended."""

    id: str
    success: bool
    output: Any = None
    error: FunctionErrorOut | None = None
    reason: str
    warnings: list[dict[str, Any]] = []


class BatchOut(BaseModel):
    """How a batch ended: results in the order of the items."""

    id: str
    function: str
    version: int
    succeeded: int
    failed: int
    results: list[ItemOut]


class LogOut(BaseModel):
    """Something that a function has printed. Without a name it was sent to a runner as a script."""

    function: str
    version: int | None
    execution_id: str
    item_id: str
    stream: Literal["stdout", "stderr"]
    text: str
    at: str


class LogsOut(Page):
    """A page of what was printed."""

    items: list[LogOut]


class RunnerOut(BaseModel):
    """What runs macros of one language."""

    name: str
    language: str
    runtime: str
    memory_mb: int
    timeout_s: float
    scope: str = Field(description="What a key needs to call it.")
    tags: dict[str, str]
    location: str


class RunnersOut(BaseModel):
    """The runners that a key may call."""

    items: list[RunnerOut]


class MixedItemIn(Sent):
    """One item of a batch over several functions."""

    id: str = Field("", max_length=bound.ITEM_ID_MAX_CHARS)
    function: str = Field(max_length=bound.FUNCTION_NAME_MAX_CHARS)
    version: int | None = Field(None, ge=1, le=bound.VERSION_NUMBER_MAX)
    alias: str = Field("", max_length=bound.ALIAS_NAME_MAX_CHARS)
    data: Any = None
    context: dict[str, Any] = Field({})


class MixedBatchIn(Sent):
    """Calls of several functions."""

    items: list[MixedItemIn] = Field(min_length=1, max_length=bound.BATCH_ITEMS_MAX)
    timeout: float | None = Field(None, ge=bound.BATCH_TIMEOUT_MIN_S, le=bound.BATCH_TIMEOUT_MAX_S)


class MixedItemOut(BaseModel):
    """What became of one item."""

    id: str
    function: str
    success: bool
    output: Any = None
    error: str | None = None


class MixedBatchOut(BaseModel):
    """What became of all items, in their order."""

    results: list[MixedItemOut]
    errors: list[str] = Field(description="What failed for all items of a function.")
