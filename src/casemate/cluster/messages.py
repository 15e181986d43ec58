"""What the service asks of a node, and what a node answers: frozen values, checked when they are read.

A node knows runs and not customers: of a tenant it knows a name that keeps workers apart, and nothing else.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from casemate.model.flow import Flow
from casemate.model.function import Item, ItemResult, Source
from casemate.model.network import NO_NETWORK, NetworkPolicy
from casemate.model.result import MACHINE_BASE, Chunk, JsonValue, Result


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Anything that is asked or answered. `id` belongs to one call; answers carry that of their question."""

    id: str


# What is asked ------------------------------------------------------------------------------------


class RunCode(Message, frozen=True, kw_only=True, tag="run_code"):
    """Run code in a sandbox of its own. `options` are those of `casemate.run`, with files as bytes.

    `maximum` are limits that no run may go beyond, whatever the runtime's are. `live`: output is wanted while it comes.
    """

    tenant: str
    request_id: str
    runtime: str
    code: str
    options: dict[str, Any] = {}
    maximum: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    stdin: bytes | None = None
    live: bool = False


class RunItems(Message, frozen=True, kw_only=True, tag="run_items"):
    """Call a function with each of the items."""

    tenant: str
    request_id: str
    source: Source
    items: tuple[Item, ...]
    maximum: dict[str, Any] = {}
    timeout_s: float | None = None


class CheckSyntax(Message, frozen=True, kw_only=True, tag="check_syntax"):
    """Have the language read the code, without running it."""

    tenant: str
    request_id: str
    runtime: str
    code: str


class StageFile(Message, frozen=True, kw_only=True, tag="stage_file"):
    """A piece of an input of the job's run `run`, to be kept on the node until that ends. Answered by its offset's end.

    `area` is `input` or `shared`; `path` is relative to it. The piece at offset 0 makes the file anew; each other one
    begins where the one before has ended. Inside everybody may read the file and nobody write it, and if `mode` says
    so, execute it. What is kept of a `tenant`'s is bounded.
    """

    tenant: str
    run: str
    area: str
    path: str
    offset: int
    data: bytes
    mode: int = 0o644


class RunJob(Message, frozen=True, kw_only=True, tag="run_job"):
    """Run a command (`argv`), or code of a runtime, with what was staged for the run `id`.

    Answers: Phase, Output (all of it: nothing is dropped), Sampled and FlowSeen as they come, FilePiece and FileEnded
    after the end of the program, however it ended, and Ended at last. What was staged goes with the end. A file whose
    FileEnded does not come is not whole. `staged`: how many files were, so that a node which has begun anew meanwhile
    does not run the program without them; None: nobody has counted. `base` and `programs`: which of the machine's own
    programs it sees, as the configuration has it.
    """

    tenant: str
    request_id: str
    argv: tuple[str, ...] = ()
    runtime: str = ""
    code: str = ""
    environment: dict[str, str] = {}
    stdin: bytes = b""
    limits: dict[str, Any] = {}
    maximum: dict[str, Any] = {}
    network: NetworkPolicy = NO_NETWORK
    collect: tuple[str, ...] = ()
    staged: int | None = None
    base: str = MACHINE_BASE
    programs: tuple[str, ...] = ()


class Unstage(Message, frozen=True, kw_only=True, tag="unstage"):
    """Forget what was staged for a run that will not be. Idempotent."""

    run: str


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """End the call of that id; its answer comes as ever."""


class Ask(Message, frozen=True, kw_only=True, tag="ask"):
    """What the node is and has: `about` is `health`, `workers` or `runtimes`."""

    about: str


Question: TypeAlias = RunCode | RunItems | CheckSyntax | StageFile | RunJob | Unstage | Cancel | Ask


# What is answered ---------------------------------------------------------------------------------


class Started(Message, frozen=True, kw_only=True, tag="started"):
    """A sandbox is there and the program runs, or soon does."""


class Output(Message, frozen=True, kw_only=True, tag="output"):
    """A piece of live output."""

    chunk: Chunk


class Phase(Message, frozen=True, kw_only=True, tag="phase"):
    """How far a job's run is: `running`, then `collecting`."""

    phase: str


class Sampled(Message, frozen=True, kw_only=True, tag="sampled"):
    """What a job's run uses just now."""

    cpu_s: float
    memory_bytes: int
    processes: int
    wall_s: float


class FlowSeen(Message, frozen=True, kw_only=True, tag="flow_seen"):
    """An attempt to reach something has ended, or was refused."""

    flow: Flow


class FilePiece(Message, frozen=True, kw_only=True, tag="file_piece"):
    """A piece of a file that is collected; pieces of one file come in order, one file after the other."""

    path: str
    offset: int
    data: bytes


class FileEnded(Message, frozen=True, kw_only=True, tag="file_ended"):
    """All of a collected file has come. `digest`: SHA-256, in hexadecimal."""

    path: str
    size_bytes: int
    digest: str


class ItemEnded(Message, frozen=True, kw_only=True, tag="item_ended"):
    """One item of a call is done. Items end in any order; `index` is its place in the question."""

    index: int
    result: ItemResult


class Ended(Message, frozen=True, kw_only=True, tag="ended"):
    """The last answer to RunCode."""

    result: Result


class ItemsEnded(Message, frozen=True, kw_only=True, tag="items_ended"):
    """The last answer to RunItems."""


class Answered(Message, frozen=True, kw_only=True, tag="answered"):
    """The last answer to CheckSyntax and Ask: a value."""

    value: JsonValue


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The last answer to a question that could not be done: one of our errors, by its code."""

    code: str
    message: str
    hint: str = ""
    field: str = ""
    retryable: bool = False


Answer: TypeAlias = (
    Started
    | Output
    | Phase
    | Sampled
    | FlowSeen
    | FilePiece
    | FileEnded
    | ItemEnded
    | Ended
    | ItemsEnded
    | Answered
    | Refused
)
LAST: tuple[type, ...] = (Ended, ItemsEnded, Answered, Refused)
"""After one of these nothing more comes for that id."""
