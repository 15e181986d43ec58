"""Sandboxes made ahead: isolated and, where the runtime can, with its interpreter already waiting for a program."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.execution import Waiting, start_process
from casemate.engine.program import Command
from casemate.engine.zygote import ZygoteKey, Zygotes
from casemate.errors import InternalError, LaunchError, SandboxClosed
from casemate.isolation.native import NativeBackend, NativeSandbox
from casemate.isolation.nursery import Nursery
from casemate.isolation.plan import processors_wanted
from casemate.isolation.waiting import Steps, Wait
from casemate.model.layers import Layer
from casemate.model.pool import Bounds
from casemate.model.resources import Limits
from casemate.model.runtime import Channel, Runtime
from casemate.model.spec import BASE_DIRECTORY, Mount, SandboxSpec
from casemate.model.values import READY_FRAME
from casemate.model.workers import WorkerGroup, WorkerInfo, WorkerKind, WorkerState
from casemate.pool.ready import Made, Maker, PoolStatistics, ReadyPool

if TYPE_CHECKING:
    from casemate.engine.run import Run

EARLY_VARIABLES: Final = ("LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "GCONV_PATH", "LOCPATH")
"""What the C library looks at when a program starts: too late for one that already waits."""


class WarmKey(msgspec.Struct, frozen=True):
    """What a sandbox must be made for to serve a run: its spec, and the process that waits in it, if any."""

    label: str
    spec: SandboxSpec
    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    zygote: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()

    def zygote_key(self) -> ZygoteKey | None:
        """Of whom the waiting process can be a fork. Libraries count processors when they are imported: only of one.

        And not all of what a fork calls can be watched.
        """
        wanted = self.spec
        if not self.zygote or processors_wanted(wanted.limits) > 1 or Layer.WATCHED_CALLS in wanted.require:
            return None
        mask = (Mount(self.spec.base, BASE_DIRECTORY),) if self.spec.base else ()
        return ZygoteKey(self.zygote, self.preload, self.environment, (*self.spec.mounts, *mask))

    def replaces(self, other: WarmKey) -> bool:
        """Whether the other one is for the same wish, but not for what the runtime is now."""
        wish, others = (
            (self.label, self.spec.limits, self.spec.require, bool(self.spec.base)),
            (other.label, other.spec.limits, other.spec.require, bool(other.spec.base)),
        )
        return wish == others and self != other

    def command(self) -> Command | None:
        """The process that waits: with pipes for everything, since nobody knows yet what its program will get."""
        if not self.argv:
            return None
        return Command(argv=self.argv, environment=dict(self.environment), cwd=self.cwd, stdin=b"", request=b"")


class WarmSandbox(NamedTuple):
    """One ready sandbox."""

    sandbox: NativeSandbox
    waiting: Waiting | None

    def is_alive(self) -> bool:
        return self.sandbox.is_alive() and (self.waiting is None or self.waiting.is_alive())


def warm_key(run: Run) -> WarmKey:
    """The key for a run. The caller's own variables reach a waiting process with its request."""
    spec = msgspec.structs.replace(run.spec, limits=_of_the_sandbox(run.spec.limits))
    runtime, command, extra = run.runtime, run.program.command, run.program.extra
    if runtime is None or not runtime.waits or runtime.channel is not Channel.FRAMES or _has_early(runtime, extra):
        return WarmKey(run.label, spec)
    base = tuple((name, value) for name, value in command.environment.items() if name not in extra)
    return WarmKey(run.label, spec, command.argv, base, command.cwd, run.program.zygote, runtime.preload)


def _has_early(runtime: Runtime, names: Mapping[str, str]) -> bool:
    return any(name.startswith((*EARLY_VARIABLES, *runtime.early_variables)) for name in names)


def _of_the_sandbox(wanted: Limits) -> Limits:
    """Limits that are chosen for each run and held by the engine do not tell sandboxes apart."""
    standard = Limits()
    return msgspec.structs.replace(wanted, wall_s=standard.wall_s, output_bytes=standard.output_bytes)


class Warm:
    """The ready sandboxes of one engine."""

    def __init__(self, backend: NativeBackend, bounds: Bounds, announce: Callable[[], None]) -> None:
        """`announce` is called before each time that something is made, by the thread that makes it."""
        self._backend = backend
        self._announce = announce
        self._ready_max = bounds.ready_max
        self._zygotes = Zygotes(backend, bounds.idle_s)
        self._pool: ReadyPool[WarmKey, WarmSandbox] = ReadyPool(
            Maker(self._make, _memory_bytes, WarmSandbox.is_alive, self._discard, lambda key: key.label, self._problem),
            bounds,
        )

    @contextmanager
    def taken(self, run: Run) -> Iterator[WarmSandbox | None]:
        """A ready sandbox for a run, if there is one; the caller ends it.

        One whose interpreter waits is in a hurry: the caller calls `wake` when it has its request.
        """
        key = warm_key(run)
        warm = self._pool.take(key, quietly=True)
        if warm is not None and warm.waiting is None:
            self.wake()
        try:
            yield warm
        finally:
            if warm is not None and warm.waiting is not None:
                warm.waiting.close()
            self._pool.done(key)

    def nested(self, run: Run) -> Steps[NativeSandbox | None]:
        """A sandbox for a run for which none is ready, by a zygote that is; the run's interpreter can be its fork."""
        key = warm_key(run)
        zygote_key = key.zygote_key()
        nursery = self._zygotes.find(zygote_key) if zygote_key is not None else None
        if zygote_key is None or nursery is None:
            return None
        try:
            return (yield from self._backend.start_within(nursery, run.spec))
        except (LaunchError, SandboxClosed, InternalError) as error:
            self._zygotes.drop(zygote_key, nursery, error)
            return None

    def wake(self) -> None:
        """Have another one made for one that was taken: not before the run has begun, which would wait for that."""
        self._pool.wake()

    def keep(self, key: WarmKey, count: int, timeout_s: float) -> bool:
        """Keep that many ready; whether they are within the time.

        What was kept for the same wish when its runtime was another, as before an update of its packages, goes.
        Raises SandboxClosed, or CapacityError if there are too many kinds.
        """
        self._pool.let_go(key.replaces)
        self._pool.keep(key, count)
        return self._pool.wait_ready(key, count, timeout_s)

    def give_up(self, key: WarmKey) -> None:
        """Leave to demand again what could not be made."""
        with suppress(SandboxClosed):
            self._pool.keep(key, 0)

    def let_go(self, label: str) -> bool:
        """Keep none of a runtime ready any more, whatever its limits; whether any had to be kept."""
        return self._pool.let_go(lambda key: key.label == label)

    @property
    def is_full(self) -> bool:
        return self._pool.is_full

    def statistics(self) -> tuple[PoolStatistics, ...]:
        return self._pool.statistics()

    def report(self) -> tuple[tuple[WorkerInfo, ...], tuple[WorkerGroup, ...]]:
        """What is ready, and who makes it, for the operator."""
        now_s = time.monotonic()
        ready = (_info(key, made, now_s) for key, made in self._pool.things())
        groups = (
            WorkerGroup(
                kind=WorkerKind.READY,
                label=each.label,
                most=self._ready_max,
                starting=each.starting,
                idle=each.ready,
                busy=each.busy,
                hits=each.hits,
                misses=each.misses,
                problem=each.problem,
            )
            for each in self._pool.statistics()
        )
        return (*ready, *self._zygotes.report()), tuple(groups)

    def clear(self) -> None:
        self._pool.clear()
        self._zygotes.clear()

    def close(self) -> None:
        self._zygotes.close()  # first: one that is still importing would be waited for
        self._pool.close()

    def _problem(self, key: WarmKey) -> str:
        zygote_key = key.zygote_key()
        return self._zygotes.problem(zygote_key) if zygote_key is not None else ""

    def _make(self, key: WarmKey) -> WarmSandbox:
        self._announce()
        return drive(self._steps(key))

    def _steps(self, key: WarmKey) -> Steps[WarmSandbox]:
        command, zygote_key = key.command(), key.zygote_key()
        if command is not None and zygote_key is not None:
            forked = yield from self._forked(key.spec, command, zygote_key)
            if forked is not None:
                return forked
        sandbox = yield from self._backend.start(key.spec)
        return (yield from self._occupied(sandbox, command))

    def _forked(self, spec: SandboxSpec, command: Command, key: ZygoteKey) -> Steps[WarmSandbox | None]:
        """By a zygote, or by the one after it if it has died.

        Without one the sandbox is as good, and only takes longer to make.
        """
        for _ in range(2):
            nursery = self._zygotes.get(key)
            if nursery is None:
                break
            warm = yield from self._by(nursery, spec, command, key)
            if warm is not None:
                return warm
        return None

    def _by(self, nursery: Nursery, spec: SandboxSpec, command: Command, key: ZygoteKey) -> Steps[WarmSandbox | None]:
        try:
            sandbox = yield from self._backend.start_within(nursery, spec)
            warm = yield from self._occupied(sandbox, msgspec.structs.replace(command, forked=True))
        except (LaunchError, SandboxClosed, InternalError) as error:
            self._zygotes.drop(key, nursery, error)
            return None
        nursery.has_worked = True
        return warm

    def _occupied(self, sandbox: NativeSandbox, command: Command | None) -> Steps[WarmSandbox]:
        with ExitStack() as stack:
            stack.callback(self._backend.bury, sandbox)
            waiting = None if command is None else (yield from start_waiting(sandbox, command))
            stack.pop_all()
        return WarmSandbox(sandbox, waiting)

    def _discard(self, warm: WarmSandbox) -> None:
        if warm.waiting is not None:
            warm.waiting.close()
        self._backend.bury(warm.sandbox)


def _info(key: WarmKey, made: Made[WarmSandbox], now_s: float) -> WorkerInfo:
    return WorkerInfo(
        id=f"ready-{made.number}",
        kind=WorkerKind.READY,
        label=key.label,
        state=WorkerState.IDLE,
        age_s=now_s - made.made_s,
        memory_bytes=made.memory_bytes,
        memory_limit_bytes=key.spec.limits.memory_bytes,
        cpus=key.spec.limits.cpus,
    )


def start_waiting(sandbox: NativeSandbox, command: Command) -> Steps[Waiting]:
    """Start a process and wait until it says that it waits for its request."""
    waiting = yield from start_process(sandbox, command)
    try:
        yield from _await_ready(waiting.spawned.fds[-1])
    except BaseException:
        waiting.close()
        raise
    return waiting


def _await_ready(reply_fd: int) -> Steps[None]:
    deadline_s = time.monotonic() + limits.LAUNCH_TIMEOUT_S
    if not (yield Wait(read=(reply_fd,), deadline_s=deadline_s)):
        raise LaunchError("start of the interpreter", errno.ETIMEDOUT, "it does not become ready")
    with suppress(BlockingIOError):  # it may have taken it back
        if os.read(reply_fd, len(READY_FRAME)) == READY_FRAME:
            return
    raise LaunchError("start of the interpreter", errno.EPROTO, "it does not become ready")


def _memory_bytes(warm: WarmSandbox) -> int:
    """What a ready sandbox holds; where no cgroup counts it, a usual amount."""
    if warm.sandbox.cgroup is None:
        return limits.POOL_MEMORY_GUESS_BYTES
    return warm.sandbox.cgroup.counters().memory_now_bytes or limits.POOL_MEMORY_GUESS_BYTES
