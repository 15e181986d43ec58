"""Calling a source with items: each runs on its own, none can tell that there were others, and none costs another.

What all kinds of runtimes have in common is here: several lanes take items from one line, and end in any order.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias, cast

import msgspec

from casemate import limits
from casemate.engine.calling import Calling, check_calling
from casemate.engine.drive import iterate, iterate_async
from casemate.engine.engine import Engine
from casemate.engine.program import GUEST_MOUNT, check_input, filled_command
from casemate.engine.request import check_code, check_tenant
from casemate.engine.results import answer_of
from casemate.engine.run import find_runtime, prepare_code, run_alone, runtime_limits
from casemate.engine.runner import Ended, NotCompiled, RunnerItem, start_runner
from casemate.errors import InvalidInput
from casemate.isolation.nursery import LIBRARY_MOUNT
from casemate.isolation.waiting import Ready, Steps, Wait
from casemate.model.function import Item, ItemResult, Source
from casemate.model.resources import Limits
from casemate.model.result import Chunk, GuestError, Reason, Result, Usage
from casemate.model.runtime import Ability, Runtime
from casemate.model.spec import BASE_ENVIRONMENT, SandboxSpec
from casemate.model.units import parse_duration
from casemate.model.values import ReplyProblem, parse_reply
from casemate.pool.decide import Retirement
from casemate.pool.worker import Kind, Worker
from casemate.runtimes.macros import macros_source

Numbered: TypeAlias = "tuple[int, ItemResult]"
Lane: TypeAlias = "Generator[Wait | Chunk | Numbered, Ready, None]"
_NUMBERS_MAX: Final = 1 << 32
_NEVER_S: Final = float("inf")
_numbers: Final = itertools.count(1)


async def arun_items(
    engine: Engine, source: Source, items: Sequence[Item], *, tenant: str = "", timeout_s: float | None = None
) -> AsyncGenerator[tuple[int, ItemResult], None]:
    """Run a source for each item; yields each one's place and result, in the order in which they end.

    `timeout_s` is for all of them together: those that have not ended by then have failed. Closing the iterator ends
    what still runs. Raises InvalidInput, RuntimeUnavailable, or what keeps any sandbox from being started; a source
    that does not compile is the error of each item.
    """
    call = Call(engine, source, items, tenant, timeout_s)
    results = iterate_async(cast("Steps[None]", call.results()), _ignore)
    async with aclosing(results):
        async for found in results:
            yield cast("Numbered", found)


def run_items(
    engine: Engine, source: Source, items: Sequence[Item], *, tenant: str = "", timeout_s: float | None = None
) -> Generator[tuple[int, ItemResult], None, None]:
    """As `arun_items`, without asyncio."""
    call = Call(engine, source, items, tenant, timeout_s)
    with closing(iterate(cast("Steps[None]", call.results()))) as results:
        for found in results:
            yield cast("Numbered", found)


def _ignore(_: None) -> None:
    return


def _nothing() -> Lane:
    yield from ()


# Lanes ------------------------------------------------------------------------------------------


def together(make: Callable[[], Lane], begins_s: Callable[[int], float]) -> Lane:
    """Several lanes as one: whoever can go on does, and what they yield beside waits is passed on.

    `begins_s` says of the lane of a number when it begins, if the time has not come before for there to be no more.
    """
    waits: dict[Lane, Wait | None] = {make(): None}
    begun = 1
    ready: Ready = frozenset()
    try:
        while waits:
            now_s = time.monotonic()
            for lane in [lane for lane, wait in waits.items() if _can_go_on(wait, ready, now_s)]:
                yield from _advanced(lane, waits, ready)
            ready = frozenset()
            next_s = begins_s(begun)
            if next_s <= time.monotonic():
                waits[make()] = None
                begun += 1
            elif waits:
                ready = yield _merged([wait for wait in waits.values() if wait is not None], next_s)
    finally:
        for lane in waits:
            lane.close()


def _can_go_on(wait: Wait | None, ready: Ready, now_s: float) -> bool:
    if wait is None:
        return True
    is_due = wait.deadline_s is not None and wait.deadline_s <= now_s
    return is_due or not ready.isdisjoint((*wait.read, *wait.write))


def _advanced(lane: Lane, waits: dict[Lane, Wait | None], ready: Ready) -> Lane:
    """One lane until it waits again, or has ended."""
    wait = waits[lane]
    own = frozenset() if wait is None else ready.intersection((*wait.read, *wait.write))
    try:
        item = next(lane) if wait is None else lane.send(own)
        while not isinstance(item, Wait):
            if not isinstance(item, Chunk):
                yield item
            item = lane.send(frozenset())
    except StopIteration:
        del waits[lane]
    else:
        waits[lane] = item


def _merged(waits: list[Wait], next_s: float) -> Wait:
    deadlines = [
        each for each in (next_s, *(wait.deadline_s for wait in waits)) if each is not None and each < _NEVER_S
    ]
    return Wait(
        tuple({fd for wait in waits for fd in wait.read}),
        tuple({fd for wait in waits for fd in wait.write}),
        min(deadlines, default=None),
    )


# Calls ------------------------------------------------------------------------------------------


class Call:
    """One source and its items."""

    def __init__(
        self, engine: Engine, source: Source, items: Sequence[Item], tenant: str, timeout_s: float | None
    ) -> None:
        self._engine = engine
        self._source = source
        self._items = _checked_items(items)
        self._tenant = check_tenant(tenant)
        check_code(source.code)
        self._runtime, self._interpreter = find_runtime(engine, source.runtime)
        self._limits = runtime_limits(engine, self._runtime, source.limits)
        check_calling(self._runtime, {"function": source.function, "spread": source.spread, "input": []})
        self._library = _library(self._runtime) if source.macros else ""
        self._deadline_s = _NEVER_S
        if timeout_s is not None:
            self._deadline_s = time.monotonic() + parse_duration(timeout_s, field="timeout_s")
        self._waiting = deque(range(len(items)))
        self._attempts: dict[int, int] = {}
        self._serving_since_s = _NEVER_S
        self._lanes_max = len(os.sched_getaffinity(0))

    def results(self) -> Lane:
        """Of all items, in the order in which they end."""
        if not self._items:
            return _nothing()
        return together(self._in_runners if self._runtime.runner else self._in_runs, self._begins_s)

    def _begins_s(self, number: int) -> float:
        """Starting a runner takes longer than most items: there is one more for each time that it is known to pay."""
        if not self._waiting or number >= self._lanes_max:
            return _NEVER_S
        return self._serving_since_s + number * limits.RUNNER_STAGGER_S

    def _next(self) -> int | None:
        return self._waiting.popleft() if self._waiting else None

    def _left_s(self) -> float:
        return self._deadline_s - time.monotonic()

    def _tries_again(self, place: int) -> bool:
        """What had not begun when its runner was lost has no part in that."""
        self._attempts[place] = self._attempts.get(place, 1) + 1
        if self._attempts[place] > limits.ITEM_ATTEMPTS:
            return False
        self._waiting.appendleft(place)
        return True

    def _item_limits(self) -> Limits:
        """No item may go on for longer than the call."""
        left_s = max(limits.WALL_MIN_S, min(self._limits.wall_s, self._left_s()))
        return msgspec.structs.replace(self._limits, wall_s=left_s)

    def _too_late(self) -> Generator[Numbered, Ready, bool]:
        """Whether the time of the call is over; what has not begun by then has failed."""
        if self._left_s() > 0:
            return False
        while (place := self._next()) is not None:
            yield place, _failed(self._items[place], Reason.TIMEOUT, "Timeout", "the time of the call was over before")
        return True

    # In runners ---------------------------------------------------------------------------------

    def _in_runners(self) -> Lane:
        kind = self._runner_kind()
        while self._waiting and not (yield from self._too_late()):
            try:
                yield from self._in_one_runner(kind)
            except NotCompiled as error:
                while (place := self._next()) is not None:
                    yield place, _refused(self._items[place], error)

    def _runner_kind(self) -> Kind:
        """The kind of runner that can serve the source. What the engine itself holds is of each item."""
        runtime, interpreter, source = self._runtime, self._interpreter, self._source
        standard = Limits()
        wanted = msgspec.structs.replace(
            self._limits, wall_s=standard.wall_s, output_bytes=standard.output_bytes, cpu_time_s=None
        )
        own = (runtime.environment, interpreter.environment, runtime.harness_environment)
        setup = {
            "code": source.code,
            "filename": runtime.filename,
            "function": source.function,
            "spread": source.spread,
            "macros": source.macros,
            "library": self._library,
        }
        return Kind(
            tenant=self._tenant,
            argv=(*filled_command(runtime.runner, interpreter), *runtime.preload),
            environment=tuple({name: text for each in (BASE_ENVIRONMENT, *own) for name, text in each.items()}.items()),
            spec=SandboxSpec(limits=wanted, mounts=(GUEST_MOUNT, LIBRARY_MOUNT, *interpreter.mounts)),
            setup=msgspec.json.encode(setup),
        )

    def _in_one_runner(self, kind: Kind) -> Lane:
        """As many items as one runner serves."""
        pool, is_warm = self._engine.runners, self._engine.is_warm
        worker = yield from pool.take(kind) if is_warm else start_runner(self._engine, kind)
        self._serving_since_s = min(self._serving_since_s, time.monotonic())
        retire: Retirement | None = Retirement.STOPPED
        until_s = time.monotonic() + limits.RUNNER_TURN_S
        try:
            while (place := self._next()) is not None:
                item = self._items[place]
                request = _request(item, spread=self._source.spread)
                if isinstance(request, GuestError):
                    yield place, _failed(item, Reason.VALIDATION, request.type, request.message)
                    continue
                wanted = self._item_limits()
                ended = yield from RunnerItem(worker, next(_numbers) % _NUMBERS_MAX, request, wanted).run()
                worker.served(_memory_bytes(worker))
                if ended.end is None:
                    self._engine.check_open()
                    if not ended.begun and ended.stopped is None and self._tries_again(place):
                        retire = Retirement.CRASHED
                        return
                yield place, item_result(item, ended, self._runtime)
                if not ended.is_clean:
                    retire = Retirement.CRASHED if ended.end is None else Retirement.DISTRUSTED
                    return
                if self._left_s() <= 0 or (pool.is_crowded and time.monotonic() > until_s):
                    break
            retire = None
        finally:
            if is_warm:
                pool.give_back(worker, retire)
            else:
                worker.close()

    # In runs of their own -----------------------------------------------------------------------

    def _in_runs(self) -> Lane:
        self._serving_since_s = min(self._serving_since_s, time.monotonic())
        while (place := self._next()) is not None:
            yield place, (yield from self._run(self._items[place]))
            if (yield from self._too_late()):
                return

    def _run(self, item: Item) -> Steps[ItemResult]:
        source = self._source
        try:
            run = prepare_code(
                self._engine,
                source.code,
                runtime=source.runtime,
                input=item.data,
                limits=self._item_limits(),
                tenant=self._tenant,
                calling=self._calling(item),
            )
        except InvalidInput as error:
            return _failed(item, Reason.VALIDATION, "InvalidInput", str(error))
        return _of_result(item, (yield from run_alone(self._engine, run)))

    def _calling(self, item: Item) -> Calling:
        """What the harness of one run is asked. Raises InvalidInput for what the runtime cannot do."""
        source = self._source
        calling = check_calling(
            self._runtime, {"function": source.function, "spread": source.spread, "input": item.data}
        )
        if Ability.CONTEXT in self._runtime.abilities:
            return msgspec.structs.replace(calling, context=item.context, library=self._library)
        if item.context:
            raise InvalidInput("context", "the programs of this runtime have none")
        return calling


def _checked_items(items: Sequence[Item]) -> Sequence[Item]:
    if len(items) > limits.ITEMS_MAX:
        raise InvalidInput("items", f"{len(items)} are over the limit of {limits.ITEMS_MAX}")
    return items


def _library(runtime: Runtime) -> str:
    """The text of the functions that macros may call. Raises InvalidInput for a language that has none."""
    text = macros_source(PurePosixPath(runtime.filename).suffix)
    if text is None or not (runtime.runner or Ability.CONTEXT in runtime.abilities):
        raise InvalidInput("macros", "there is no library of functions for this runtime")
    return text


def _request(item: Item, *, spread: bool) -> bytes | GuestError:
    """What a runner's child reads."""
    if spread and not isinstance(item.data, list | tuple):
        return GuestError(type="InvalidInput", message="input is to be spread, and so must be an array of arguments")
    try:
        data, context = check_input(item.data), check_input(item.context)
    except InvalidInput as error:
        return GuestError(type="InvalidInput", message=str(error))
    return b'{"input":%s,"ctx":%s}' % (data, context)


def _memory_bytes(worker: Worker) -> int:
    """What a runner holds, now and then: whoever asks each time asks the kernel more than anything else does."""
    if worker.runs % limits.WORKER_SAMPLE_RUNS or worker.sandbox.cgroup is None:
        return worker.memory_bytes
    return worker.sandbox.cgroup.counters().memory_now_bytes or 0


# Results ----------------------------------------------------------------------------------------


def item_result(item: Item, ended: Ended, runtime: Runtime) -> ItemResult:
    """From what was observed of an item to its one result."""
    output, error, reason = _verdict(ended, runtime)
    end = ended.end
    kept = len(ended.stdout) + len(ended.stderr)
    return ItemResult(
        id=item.id,
        success=reason is Reason.EXIT and error is None,
        reason=reason,
        output=output if error is None else None,
        error=error,
        stdout=ended.stdout.decode("utf-8", "replace"),
        stderr=ended.stderr.decode("utf-8", "replace"),
        truncated_bytes=max(0, end.stdout_bytes + end.stderr_bytes - kept) if end else 0,
        usage=Usage(wall_s=ended.wall_s)
        if end is None
        else Usage(
            wall_s=end.wall_s, cpu_user_s=end.user_s, cpu_system_s=end.system_s, memory_peak_bytes=end.memory_bytes
        ),
    )


def _verdict(ended: Ended, runtime: Runtime) -> tuple[Any, GuestError | None, Reason]:
    """The kernel's counters come first, then what we did ourselves, then how it ended; what it says comes last."""
    end = ended.end
    stopped = Reason.MEMORY if ended.oom_kills else ended.stopped or (end.stopped if end else None)
    if stopped is not None:
        return None, _stopped_error(stopped), stopped
    if end is None:
        return (
            None,
            GuestError(type="Lost", message="the item has ended its interpreter, or that was lost"),
            Reason.LOST,
        )
    if end.error:
        message = f"it cannot be started: {os.strerror(end.error)}"
        return None, GuestError(type="NotStarted", message=message), Reason.PROCESSES
    return _answered(ended.answer, end.wait_status, runtime)


def _answered(data: bytes, wait_status: int, runtime: Runtime) -> tuple[Any, GuestError | None, Reason]:
    reply = parse_reply(data)
    answer = answer_of(reply, stopped=False)
    if os.WIFSIGNALED(wait_status):
        message = f"it was ended by signal {os.WTERMSIG(wait_status)}"
        return None, GuestError(type="Signal", message=message), Reason.SIGNAL
    if answer.invalid:
        return None, answer.error, Reason.VALIDATION
    if answer.error is not None:
        is_memory = any(
            answer.error.type == text or answer.error.message.startswith(text) for text in runtime.memory_errors
        )
        return None, answer.error, Reason.MEMORY if is_memory else Reason.EXCEPTION
    if reply is None:
        message = f"it ended with status {os.WEXITSTATUS(wait_status)} before it had answered"
        return None, GuestError(type="NoAnswer", message=message), Reason.EXIT
    if isinstance(reply, ReplyProblem):
        return None, GuestError(type="BadReply", message=answer.problem), Reason.VALIDATION
    if status := os.WEXITSTATUS(wait_status):
        return None, GuestError(type="Exit", message=f"it ended with status {status}"), Reason.EXIT
    return answer.output, None, Reason.EXIT


_STOPPED: Final = {
    Reason.TIMEOUT: GuestError(type="Timeout", message="it was still running when its time was over"),
    Reason.OUTPUT: GuestError(type="OutputLimit", message="it has printed more than it may"),
    Reason.MEMORY: GuestError(type="MemoryLimit", message="it has used more memory than it may"),
    Reason.CPU: GuestError(type="CpuLimit", message="it has used more processor time than it may"),
    Reason.VALIDATION: GuestError(
        type="InvalidOutput", message=f"output: more than the {limits.VALUE_MAX_BYTES} bytes of JSON allowed"
    ),
}


def _stopped_error(reason: Reason) -> GuestError:
    return _STOPPED.get(reason) or GuestError(type="Stopped", message=f"it was ended ({reason})")


def _failed(item: Item, reason: Reason, kind: str, message: str) -> ItemResult:
    return ItemResult(id=item.id, success=False, reason=reason, error=GuestError(type=kind, message=message))


def _refused(item: Item, why: NotCompiled) -> ItemResult:
    return ItemResult(id=item.id, success=False, reason=why.reason, error=why.error)


def _of_result(item: Item, result: Result) -> ItemResult:
    """Of a run of its own."""
    error = result.error
    if not result.ok and error is None:
        error = _STOPPED.get(result.reason) or GuestError(type="Failed", message=f"it has failed ({result.reason})")
    return ItemResult(
        id=item.id,
        success=result.ok,
        reason=result.reason,
        output=result.output if result.ok else None,
        error=error,
        stdout=result.stdout.head[: limits.ITEM_KEPT_BYTES].decode("utf-8", "replace"),
        stderr=result.stderr.head[: limits.ITEM_KEPT_BYTES].decode("utf-8", "replace"),
        truncated_bytes=sum(
            max(0, each.total_bytes - limits.ITEM_KEPT_BYTES) for each in (result.stdout, result.stderr)
        ),
        usage=result.usage,
    )
