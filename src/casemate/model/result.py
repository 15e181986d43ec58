"""What one execution ends in: exactly one `Result`, the same for the library, the command line and HTTP."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from casemate.model.debug import Count, DebugRecord
from casemate.model.display import Display
from casemate.model.flow import Flow
from casemate.model.layers import Layer

JsonValue: TypeAlias = Any
"""None, bool, int, float, str, list and dict with str keys, as deep as the bound allows."""

MACHINE_BASE: Final = "machine"
"""The base that is all of the machine's programs."""

MINIMAL_BASE: Final = "minimal"
"""The one that is few of them; its digest follows where one is meant."""


class Status(StrEnum):
    """Whether the program did what it was asked."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Reason(StrEnum):
    """Why the execution ended. Counters of the kernel decide, not what the guest says."""

    EXIT = "exit"
    SIGNAL = "signal"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    DISK = "disk"
    OUTPUT = "output"
    VALIDATION = "validation"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LOST = "lost"
    INTERNAL = "internal"


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one output stream: its head, its tail and how many bytes between were dropped."""

    head: bytes = b""
    tail: bytes = b""
    truncated_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return len(self.head) + len(self.tail) + self.truncated_bytes

    def after(self, offset: int, most: int) -> tuple[bytes, int]:
        """At most `most` of the kept bytes at or after an offset, and the offset where they begin."""
        if offset < len(self.head):
            return self.head[offset : offset + most], offset
        tail_begin = len(self.head) + self.truncated_bytes
        begin = min(max(offset, tail_begin), max(offset, self.total_bytes))
        return self.tail[begin - tail_begin : begin - tail_begin + most], begin

    @property
    def text(self) -> str:
        """The kept bytes as text; undecodable bytes are replaced, a gap is marked."""
        gap = f"\n… {self.truncated_bytes} bytes left out …\n".encode() if self.truncated_bytes else b""
        return (self.head + gap + self.tail).decode("utf-8", errors="replace")


class Chunk(msgspec.Struct, frozen=True):
    """A piece of live output: `stream` is `stdout` or `stderr`, `offset` its place in that stream in bytes."""

    stream: str
    data: bytes
    offset: int


class FileChunk(Chunk, frozen=True):
    """A piece of a file that is collected; `stream` is `file`. The last one is empty, and has the file's digest."""

    path: str = ""
    digest: str = ""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a run uses just now, and has used."""

    cpu_s: float
    memory_bytes: int
    processes: int
    wall_s: float


class GuestError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the guest program as its harness reported it. Hostile text, bounded in length."""

    type: str
    message: str
    traceback: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the execution used. `None` means: not measurable in this mode."""

    wall_s: float = 0.0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    memory_peak_bytes: int | None = None
    processes_peak: int | None = None
    disk_bytes: int | None = None
    network_received_bytes: int = 0
    network_sent_bytes: int = 0


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """The walls that stood around this execution. `approximate` names limits held without a cgroup.

    `base`: what of the machine's own programs was seen, `machine` for all, else `minimal-` and a digest.
    """

    backend: str
    layers: tuple[Layer, ...]
    approximate: tuple[str, ...] = ()
    base: str = MACHINE_BASE


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something security-relevant that happened; `detail` is our own wording, never raw guest bytes."""

    kind: str
    detail: str
    at_s: float = 0.0


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One regular file collected from the work directory; `path` is relative to it.

    Bytes of a name that are no valid UTF-8 are written as `\\xff`, and so that no two names look the same, the
    backslash of one that reads like that as `\\x5c`.
    """

    path: str
    data: bytes


class WorkerSample(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker and the isolate in it held when an execution had ended. `at_us`: microseconds since 1970, UTC."""

    worker: str
    at_us: int
    heap_used_bytes: Count = 0
    heap_total_bytes: Count = 0
    external_bytes: Count = 0
    malloced_bytes: Count = 0
    resident_bytes: Count = 0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How one execution ended. `flows`: what it has tried to reach, the first so many."""

    status: Status
    reason: Reason
    exit_code: int | None = None
    signal: int | None = None
    output: JsonValue = None
    stdout: Stream = Stream()
    stderr: Stream = Stream()
    error: GuestError | None = None
    usage: Usage = Usage()
    isolation: Isolation
    events: tuple[Event, ...] = ()
    files: tuple[OutputFile, ...] = ()
    displays: tuple[Display, ...] = ()
    debug: DebugRecord | None = None
    worker: WorkerSample | None = None
    flows: tuple[Flow, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status is Status.SUCCEEDED
