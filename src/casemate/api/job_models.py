"""Jobs and schedules as they are sent and answered."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from casemate import job_limits as bound
from casemate.api.models import NO_NUL, Amount, Bytes, Name, Page, ResultOut, Sent, Text
from casemate.errors import InvalidInput
from casemate.jobs.request import Asked
from casemate.limits import ENV_MAX, PATH_MAX_BYTES
from casemate.model.job import JobFile, Retries
from casemate.model.network import Injection, NetworkPolicy
from casemate.model.units import parse_bytes, parse_duration
from casemate.service_limits import CODE_MAX_BYTES, LABELS_MAX, PRIORITY_DEFAULT, PRIORITY_MAX

Path = Annotated[str, StringConstraints(max_length=PATH_MAX_BYTES, pattern=NO_NUL)]
Word = Annotated[str, StringConstraints(max_length=bound.COMMAND_MAX_CHARS)]
_OCTAL: Final = re.compile(r"0?o?[0-7]{3,4}", re.ASCII)


class ResourcesIn(Sent):
    """What a job may use, as numbers or as people write them: `0.5`, `512Mi`. What is not named has its default."""

    cpu: Amount | None = Field(None, description="Processors at once; 0.5 is half of one.")
    memory: Amount | None = Field(None, description="Bytes.")
    disk: Amount | None = Field(None, description="Bytes in the writable directories.")
    cpu_time: Amount | None = Field(None, description="Seconds of processor time, all processes together.")
    processes: Amount | None = Field(None, description="Processes and threads at once.")
    inodes: Amount | None = Field(None, description="Files in the writable directories.")
    open_files: Amount | None = Field(None, description="Open files of one process.")
    output: Amount | None = Field(None, description="Bytes of stdout and stderr together.")


class InjectIn(Sent):
    """A header that plain HTTP requests to a host get on their way out."""

    host: Name
    header: Name
    secret: Name = Field(description="The name of the secret that is its value.")


class NetworkIn(Sent):
    """What a job may reach. Nothing, unless `outbound` is true and hosts are named."""

    outbound: bool = False
    allowed_hosts: list[Text] = Field(
        [],
        max_length=bound.JOB_HOSTS_MAX,
        description="Names, `*.suffix`, addresses, networks; each maybe with a port.",
    )
    allowed_ports: list[int] = Field([], max_length=bound.JOB_PORTS_MAX)
    blocked_ports: list[int] = Field([], max_length=bound.JOB_PORTS_MAX, description="Beside those of the service.")
    bandwidth: Amount | None = Field(None, description="Bytes a second, each way.")
    strip_headers: list[Text] = Field([], max_length=bound.JOB_HEADERS_MAX)
    inject: list[InjectIn] = Field([], max_length=bound.JOB_HEADERS_MAX)

    def policy(self) -> NetworkPolicy:
        bandwidth = None if self.bandwidth is None else parse_bytes(_whole(self.bandwidth), field="network.bandwidth")
        return NetworkPolicy(
            outbound=self.outbound,
            allowed_hosts=tuple(self.allowed_hosts),
            allowed_ports=tuple(self.allowed_ports),
            blocked_ports=tuple(self.blocked_ports),
            bandwidth_bytes_per_s=bandwidth,
            strip_headers=tuple(self.strip_headers),
            inject=tuple(Injection(host=each.host, header=each.header, secret=each.secret) for each in self.inject),
        )


def _whole(amount: float | str) -> int | str:
    return int(amount) if isinstance(amount, float) else amount


class JobFileIn(Sent):
    """An input: its content, or where that comes from."""

    path: Path = Field(description="Below `input` in the work directory.")
    content: str | Bytes | None = None
    object: Path = Field("", description="The name of one of the tenant's objects.")
    url: Path = Field("", description="One of the service's own signed addresses.")
    mode: str | int = Field("0644", description="Its permissions; text is octal.")

    def file(self, at: int) -> JobFile:
        content = self.content
        data = content.decoded(f"files[{at}].content") if isinstance(content, Bytes) else content
        return JobFile(
            path=self.path,
            content=data.encode() if isinstance(data, str) else data,
            object=self.object,
            url=self.url,
            mode=_mode(self.mode, f"files[{at}].mode"),
        )


def _mode(mode: str | int, field: str) -> int:
    if isinstance(mode, int):
        return mode
    if not _OCTAL.fullmatch(mode):
        raise InvalidInput(field, f"{mode[:20]!r} are no permissions", hint="write them as 0644")
    return int(mode.replace("o", ""), 8)


class RetriesIn(Sent):
    """How often a job is tried again after a failure, and how long until then: doubled each time, up to 30 seconds."""

    max: int = Field(0, ge=0, le=bound.RETRIES_MAX)
    backoff: Amount = Field(bound.BACKOFF_S, description="Seconds until the second attempt.")

    def value(self) -> Retries:
        return Retries(max=self.max, backoff_s=parse_duration(self.backoff, field="retries.backoff"))


class ScheduleIn(Sent):
    """When a job is to be made again and again."""

    cron: Name = Field(description="Minute, hour, day of the month, month, day of the week.")
    zone: Name = Field("UTC", description="A time zone such as Europe/Berlin.")
    missed: Literal["skip", "once"] = Field(
        "skip", description="What becomes of times at which the service was down: nothing, or one run for all of them."
    )


class JobIn(Sent):
    """A job: a command, or code for a runtime, and what it is to be run with."""

    id: str = Field("", description="Of the tenant's choosing; without it one is made.")
    command: Word | list[Word] | None = Field(None, description="A text, split as a shell splits words, or words.")
    shell: bool = Field(default=False, description="The command is a text for a shell.")
    code: Annotated[str, StringConstraints(max_length=CODE_MAX_BYTES)] = Field("", description="A program's source.")
    runtime: str = Field("", max_length=128, pattern=NO_NUL, description="What runs the code.")
    environment: dict[str, str] = Field({}, max_length=ENV_MAX)
    secrets: list[Name] = Field([], max_length=bound.JOB_SECRETS_MAX, description="Names; they become variables.")
    stdin: str | Bytes | None = None
    timeout: Amount | None = Field(None, description="Seconds by the clock.")
    resources: ResourcesIn = Field(default_factory=lambda: ResourcesIn())  # type: ignore[call-arg]  # noqa: PLW0108
    network: NetworkIn = Field(default_factory=lambda: NetworkIn())  # type: ignore[call-arg]  # noqa: PLW0108
    files: list[JobFileIn] = Field([], max_length=bound.JOB_FILES_MAX)
    shared: list[Path] = Field([], max_length=bound.JOB_GLOBS_MAX, description="Globs of shared objects to be seen.")
    collect: list[Path] = Field([], max_length=bound.JOB_GLOBS_MAX, description="Globs of what is kept beside output.")
    image: str = Field("host", max_length=128)
    priority: int = Field(PRIORITY_DEFAULT, ge=0, le=PRIORITY_MAX, description="More comes first.")
    retries: RetriesIn = RetriesIn(max=0, backoff=bound.BACKOFF_S)
    labels: dict[Name, Text] = Field({}, max_length=LABELS_MAX)
    template: Path = Field("", description="A template of the tenant's: what is not given here is taken from there.")
    schedule: ScheduleIn | Name | None = Field(None, description="Make the job at these times, and none now.")

    def asked(self) -> Asked:
        """As a value. Raises InvalidInput."""
        stdin = self.stdin.decoded("stdin") if isinstance(self.stdin, Bytes) else (self.stdin or "").encode()
        limits = self.resources.model_dump(exclude_none=True)
        if self.timeout is not None:
            limits["timeout"] = self.timeout
        return Asked(
            command=tuple(self.command) if isinstance(self.command, list) else self.command,
            shell=self.shell,
            code=self.code,
            runtime=self.runtime,
            environment=self.environment,
            secrets=tuple(self.secrets),
            stdin=stdin,
            limits=limits,
            network=self.network.policy(),
            files=tuple(each.file(at) for at, each in enumerate(self.files)),
            shared=tuple(self.shared),
            collect=tuple(self.collect),
            image=self.image,
            priority=self.priority,
            retries=self.retries.value(),
            labels=self.labels,
            template=self.template,
        )

    def scheduled(self) -> ScheduleIn | None:
        """When it is to be made, if that is asked for."""
        if isinstance(self.schedule, str):
            return ScheduleIn.model_validate({"cron": self.schedule})
        return self.schedule


class RerunIn(Sent):
    """A job again."""

    id: str = Field("", description="Of the new job.")


class TransitionOut(BaseModel):
    """One step of a job: a state that it came to, or `cleaned`, where nothing of an attempt is left where it ran."""

    state: str
    at: str
    attempt: int
    detail: str


class LiveUsageOut(BaseModel):
    """What a job uses just now."""

    cpu_s: float
    memory_bytes: int
    processes: int
    wall_s: float


class JobOut(BaseModel):
    """A job from its acceptance on."""

    model_config = ConfigDict(extra="forbid")

    id: str
    state: Literal["queued", "preparing", "running", "collecting", "succeeded", "failed", "cancelled", "dead"]
    command: list[str]
    shell: bool
    runtime: str
    labels: dict[str, str]
    priority: int
    template: str
    attempt: int = Field(description="The last one's number, from 1; 0: none has begun.")
    attempts_max: int
    lost: int = Field(description="Attempts of which nothing came back.")
    created_at: str
    due_at: str
    started_at: str | None = Field(description="When the program of the last attempt began.")
    ended_at: str | None
    wall_s: float | None = Field(description="From there to its end.")
    status: str | None
    reason: str | None
    exit_code: int | None
    schedule_id: str
    request_id: str
    cancel_asked: bool
    spec: dict[str, Any] | None = Field(None, description="What was asked for, with every default.")
    transitions: list[TransitionOut] | None = None
    usage: LiveUsageOut | None = Field(None, description="While it runs.")
    result: ResultOut | None = Field(None, description="How the last attempt ended.")


class JobsOut(Page):
    """A page of jobs, youngest first, without their results."""

    items: list[JobOut]


class QueueOut(BaseModel):
    """How many jobs of the tenant there are that have not ended, and that are dead."""

    paused: bool = Field(description="Nothing of the tenant's is begun.")
    all_paused: bool = Field(description="Nothing of anybody's is begun.")
    waiting: int
    active: int
    dead: int


class ScheduleOut(BaseModel):
    """A schedule."""

    model_config = ConfigDict(extra="forbid")

    id: str
    name: str
    cron: str
    zone: str
    missed: Literal["skip", "once"]
    paused: bool
    created_at: str
    next_at: str | None
    last_at: str | None
    last_job_id: str
    refused_at: str | None = Field(description="When it last could make no job.")
    refused_reason: str
    refused_count: int
    spec: dict[str, Any]


class SchedulesOut(Page):
    """A page of schedules, youngest first."""

    items: list[ScheduleOut]


class ScheduleChangeIn(Sent):
    """What is to be different."""

    paused: bool | None = None
    cron: Name | None = None
    zone: Name | None = None
    missed: Literal["skip", "once"] | None = None
