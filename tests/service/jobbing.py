"""A node with a spool, asked to run jobs over its socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

import casemate
from casemate import job_limits as bound
from casemate.cluster.local import LocalBus
from casemate.cluster.messages import (
    Answer,
    Answered,
    Ended,
    FileEnded,
    FilePiece,
    FlowSeen,
    Output,
    Phase,
    Refused,
    RunJob,
    Sampled,
    StageFile,
    Unstage,
)
from casemate.cluster.server import NodeServer
from casemate.model.flow import Flow
from casemate.node.daemon import Node

TIMEOUT_S: Final = 120.0


class Seen(msgspec.Struct, kw_only=True):
    """Everything that came of one job."""

    answers: list[Answer] = []
    files: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    phases: list[str] = []
    samples: list[Sampled] = []
    flows: list[Flow] = []
    output: dict[str, bytearray] = msgspec.field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    result: casemate.Result | None = None

    @property
    def ended(self) -> casemate.Result:
        assert self.result is not None, self.answers
        return self.result

    def take(self, answer: Answer) -> None:
        if isinstance(answer, Output):
            assert answer.chunk.offset == len(self.output[answer.chunk.stream])
            self.output[answer.chunk.stream] += answer.chunk.data
        elif isinstance(answer, Phase):
            self.phases.append(answer.phase)
        elif isinstance(answer, Sampled):
            self.samples.append(answer)
        elif isinstance(answer, FlowSeen):
            self.flows.append(answer.flow)
        elif isinstance(answer, FilePiece):
            have = self.files.setdefault(answer.path, b"")
            assert answer.offset == len(have)
            assert len(answer.data) <= bound.PIECE_MAX_BYTES
            self.files[answer.path] = have + answer.data
        elif isinstance(answer, FileEnded):
            self.files.setdefault(answer.path, b"")
            assert answer.size_bytes == len(self.files[answer.path])
            self.digests[answer.path] = answer.digest
        elif isinstance(answer, Ended):
            self.result = answer.result
        else:
            self.answers.append(answer)


class Jobber:
    """Asks one node."""

    def __init__(self, bus: LocalBus, node: Node, spool: Path) -> None:
        self.bus = bus
        self.node = node
        self.spool = spool
        self._count = 0

    async def stage(self, run: str, path: str, data: bytes = b"", **values: Any) -> Answer:
        self._count += 1
        given = {"tenant": "t", "area": "input", "offset": 0, **values}
        asked = StageFile(id=f"stage-{self._count}", run=run, path=path, data=data, **given)
        (answer,) = [answer async for answer in self.bus.call(asked)]
        return answer

    async def unstage(self, run: str) -> Answer:
        self._count += 1
        (answer,) = [each async for each in self.bus.call(Unstage(id=f"unstage-{self._count}", run=run))]
        return answer

    async def run(self, *argv: str, files: dict[str, bytes] | None = None, **values: Any) -> Seen:
        """Stage the files and run a command, or what the values say, to its end."""
        self._count += 1
        given = {"id": f"job-{self._count}", "tenant": "t", "request_id": "r", "argv": argv, **values}
        for path, data in (files or {}).items():
            area, _, name = path.partition("/")
            assert isinstance(await self.stage(given["id"], name, data, area=area), Answered)
        seen = Seen()
        async with aclosing(self.bus.call(RunJob(**given))) as answers:
            async for answer in answers:
                seen.take(answer)
        return seen

    async def refusal(self, *argv: str, **values: Any) -> Refused:
        (answer,) = (await self.run(*argv, **values)).answers
        assert isinstance(answer, Refused)
        return answer


@asynccontextmanager
async def jobber(engine: casemate.Engine, folder: Path) -> AsyncIterator[Jobber]:
    spool = folder / "spool"
    node = Node(engine, spool)
    path = folder / "node.sock"
    async with (
        asyncio.timeout(TIMEOUT_S),
        NodeServer(node.handle).listening(path),
        LocalBus(path) as bus,
    ):
        await bus.connected.wait()
        yield Jobber(bus, node, spool)


Check = Callable[[Callable[[Jobber], Awaitable[None]]], None]
