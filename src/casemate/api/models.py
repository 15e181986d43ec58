"""What is sent and answered over HTTP, for the reader, for OpenAPI, and to be checked where it comes in."""

from __future__ import annotations

import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from casemate import service_limits as bound
from casemate.errors import InvalidInput
from casemate.executions.request import NO_INPUT, ExecutionRequest

NO_NUL = r"^[^\x00]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=bound.LABEL_MAX_CHARS, pattern=NO_NUL)]
Text = Annotated[str, StringConstraints(max_length=bound.LABEL_MAX_CHARS, pattern=NO_NUL)]
Amount = int | float | Annotated[str, StringConstraints(max_length=bound.WORD_MAX_CHARS)]


class Sent(BaseModel):
    """Something that comes in: nothing unknown, and nothing taken for something else."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Bytes(Sent):
    """Bytes that are no text."""

    base64: str = Field(description="The bytes in base64.")

    def decoded(self, field: str) -> bytes:
        try:
            return binascii.a2b_base64(self.base64, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(field, "is no base64") from error


class LimitsIn(Sent):
    """Limits of one run, as numbers or as people write them: `512Mi`, `5s`. What is not named is the runtime's."""

    timeout: Amount | None = Field(None, description="Seconds by the clock.")
    cpu_time: Amount | None = Field(None, description="Seconds of processor time, all processes together.")
    cpu: Amount | None = Field(None, description="Processors at once; 0.5 is half of one.")
    memory: Amount | None = Field(None, description="Bytes; of an isolate its heap.")
    processes: Amount | None = Field(None, description="Processes and threads at once.")
    disk: Amount | None = Field(None, description="Bytes in the writable directories.")
    inodes: Amount | None = Field(None, description="Files in the writable directories.")
    open_files: Amount | None = Field(None, description="Open files of one process.")
    output: Amount | None = Field(None, description="Bytes of stdout and stderr together.")

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class DebugIn(Sent):
    """What is recorded of a run besides. Its output is the same with and without."""

    console: bool = False
    stack: bool = False
    profile: bool = False
    steps: bool = False


class ExecutionIn(Sent):
    """Code to be run once."""

    runtime: Name = "python"
    code: str = Field(description="The program's source.")
    input: Any = Field(None, description="Any JSON value; the program has it as `input`. Not given is not null.")
    args: list[str] = Field([], max_length=bound.ARGS_MAX)
    env: dict[str, str] = Field({}, max_length=bound.ENV_MAX)
    stdin: str | Bytes | None = None
    files: dict[str, str | Bytes] = Field({}, max_length=bound.FILES_MAX, description="By path inside.")
    collect: list[str] = Field([], max_length=bound.FILES_MAX, description="Globs below the work directory.")
    limits: LimitsIn = Field(default_factory=lambda: LimitsIn())  # type: ignore[call-arg]  # noqa: PLW0108
    require: list[str] = Field(
        [], max_length=bound.LAYERS_ASKED_MAX, description="Isolation layers without which nothing is run."
    )
    filename: str | None = Field(None, max_length=bound.FILE_NAME_MAX_BYTES)
    fresh: bool = Field(default=False, description="In nothing that was made ahead.")
    function: str = Field(
        "", max_length=bound.FUNCTION_NAME_MAX_CHARS, description="A function to call with the input; `*` is the first."
    )
    spread: bool = Field(default=False, description="The input is an array of arguments.")
    values: Literal["", "json", "rich"] = Field(
        "", description="How values cross; `rich` keeps dates, maps and the like."
    )
    globals: list[str] | None = Field(
        None,
        max_length=bound.GLOBALS_MAX,
        description="The only ones of its globals that the program finds, where the runtime can do that; null: all.",
    )
    debug: DebugIn = DebugIn()
    check: bool = Field(default=False, description="Have the language read the code first.")
    sanitize: bool = Field(default=False, description="Run what the sanitizer makes of the code.")
    patterns: bool = Field(default=False, description="Refuse code with forbidden patterns.")
    priority: int = Field(bound.PRIORITY_DEFAULT, ge=0, le=bound.PRIORITY_MAX, description="More comes first.")
    labels: dict[Name, Text] = Field({}, max_length=bound.LABELS_MAX)

    def request(self, *, live: bool) -> ExecutionRequest:
        """As a value. Raises InvalidInput."""
        return ExecutionRequest(
            runtime=self.runtime,
            code=self.code,
            input=self.input if "input" in self.model_fields_set else NO_INPUT,
            args=tuple(self.args),
            env=self.env,
            stdin=None if self.stdin is None else _bytes(self.stdin, "stdin"),
            files={path: _bytes(data, f"files.{path}"[:80]) for path, data in self.files.items()},
            collect=tuple(self.collect),
            limits=self.limits.given(),
            require=tuple(self.require),
            filename=self.filename,
            fresh=self.fresh,
            function=self.function,
            spread=self.spread,
            values="" if self.values == "json" else self.values,
            globals=None if self.globals is None else tuple(self.globals),
            debug=self.debug.model_dump(exclude_defaults=True),
            priority=self.priority,
            labels=self.labels,
            live=live,
        )


def _bytes(data: str | Bytes, field: str) -> bytes:
    return data.decoded(field) if isinstance(data, Bytes) else data.encode()


class Problem(BaseModel):
    """What went wrong: one shape for every error."""

    code: str = Field(description="Stable; for programs.")
    message: str = Field(description="What happened; for people.")
    hint: str = Field(description="What to do about it; may be empty.")
    field: str | None = Field(None, description="Which field of the request is wrong.")
    request_id: str


class StreamOut(BaseModel):
    """What is kept of one output stream: its head and its tail."""

    text: str
    truncated_bytes: int = Field(description="How many bytes between head and tail were left out.")
    base64: str | None = Field(None, description="The bytes, where the text is not exactly them.")
    head_bytes: int | None = Field(None, description="How many of the kept bytes are the head.")


class GuestErrorOut(BaseModel):
    """An error of the program's own."""

    type: str
    message: str
    traceback: str


class UsageOut(BaseModel):
    """What a run used; null: not measurable here."""

    wall_s: float
    cpu_user_s: float
    cpu_system_s: float
    memory_peak_bytes: int | None
    processes_peak: int | None
    disk_bytes: int | None
    network_received_bytes: int
    network_sent_bytes: int


class ResultOut(BaseModel):
    """How a run ended. docs/reference/result.md has every field."""

    model_config = ConfigDict(extra="allow")

    status: Literal["succeeded", "failed"]
    reason: str
    exit_code: int | None
    signal: int | None
    output: Any
    stdout: StreamOut
    stderr: StreamOut
    error: GuestErrorOut | None
    usage: UsageOut
    isolation: dict[str, Any]
    events: list[dict[str, Any]]
    files: list[dict[str, Any]]


class ExecutionOut(BaseModel):
    """One run of a tenant's, from its acceptance on."""

    id: str
    kind: Literal["code", "function", "batch"]
    state: Literal["queued", "running", "ended"]
    runtime: str
    function: str
    version: int | None
    priority: int
    labels: dict[str, str]
    request_id: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    status: Literal["succeeded", "failed"] | None
    reason: str | None
    changes: list[dict[str, Any]] = Field([], description="What the sanitizer changed.")
    result: ResultOut | None


class BriefOut(BaseModel):
    """How a run ended, in few words: with an output, or with an error."""

    model_config = ConfigDict(extra="forbid")

    success: bool
    output: Any = None
    error: str | None = None
    stack: str | None = Field(None, description="Where the error was raised, if `debug.stack` was asked for.")
    executionTime: float = Field(description="Milliseconds by the clock.")  # noqa: N815  (as such answers always had it)
    memoryUsed: int | None = Field(description="Bytes, at most at once.")  # noqa: N815


class Page(BaseModel):
    """A part of a list; `next_cursor` asks for the next."""

    next_cursor: str | None


class ExecutionsOut(Page):
    """A page of executions, youngest first, without their results."""

    items: list[ExecutionOut]


class HealthOut(BaseModel):
    """Whether all is well, and with what it is not."""

    status: Literal["ok", "unavailable"]
    parts: dict[str, str]


class ValidateIn(Sent):
    """Code to be looked at. Nothing of it is run."""

    runtime: Name = "python"
    code: str = Field(description="A program's source.")
    patterns: bool | list[str] = Field(default=False, description="Forbidden: as usual, or these.")
    sanitize: bool = Field(default=False, description="Answer with the code as the sanitizer leaves it.")


class CodeProblemOut(BaseModel):
    """One thing that is wrong with code."""

    kind: Literal["size", "pattern", "syntax"]
    message: str
    line: int | None
    column: int | None


class ValidateOut(BaseModel):
    """Whether code may be run, and else why not."""

    valid: bool
    error: str | None = Field(description="The first of the errors.")
    errors: list[CodeProblemOut]
    changes: list[dict[str, Any]] = Field(description="What the sanitizer changed.")
    code: str | None = Field(description="As the sanitizer leaves it, if that was asked for.")


class BinOut(BaseModel):
    """How many lie from `low` up to `high`."""

    low: int
    high: int
    count: int


class StatisticsOut(BaseModel):
    """Many executions in numbers. Percentiles are by nearest rank."""

    total: int
    successful: int
    failed: int
    mean_wall_us: float | None
    p50_wall_us: int | None
    p95_wall_us: int | None
    p99_wall_us: int | None
    memory: list[BinOut] = Field(description="Peaks, in ten bins.")
    memory_unknown: int
    errors: dict[str, int]


class MetricsOut(BaseModel):
    """Executions that ended in a time range."""

    since: str
    until: str
    truncated: bool = Field(description="There were more than are counted; the latest are.")
    total: StatisticsOut
    groups: dict[str, StatisticsOut]
