"""The engine: what is opened once for a process and serves all its sandboxes."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

from casemate import limits as bound
from casemate.clock import now_us
from casemate.config import Config, cgroup_source, check_config, data_directory, load_config
from casemate.errors import (
    CapacityError,
    InvalidInput,
    LayerMissing,
    RuntimeUnavailable,
    SandboxClosed,
    SetDamaged,
    UnknownRuntime,
)
from casemate.isolation.native import NativeBackend, NativeSandbox
from casemate.isolation.reaper import ReapReport, reap
from casemate.isolation.waiting import Steps
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.cgroups import open_root
from casemate.kernel.hostids import HostIds, can_lend
from casemate.model.layers import Layer
from casemate.model.runtime import Channel
from casemate.model.spec import SandboxSpec
from casemate.runtimes.registry import Registry

if TYPE_CHECKING:
    from casemate.egress.gateway import Gateways
    from casemate.engine.request import LimitsLike
    from casemate.engine.run import Run
    from casemate.engine.warm import Warm, WarmSandbox
    from casemate.model.workers import WorkersReport
    from casemate.pool.isolates import WorkerPool
    from casemate.pool.published import Publisher
    from casemate.pool.ready import PoolStatistics


class Engine:
    """Runs sandboxes on this machine. Safe to use from many threads and tasks; close it when done.

    Opening cleans up what a dead engine left behind; `reaped` says what that was. Without a configuration it takes
    that of the machine, by `load_config`. Raises ConfigError.
    `warm=False` makes every sandbox when it is asked for, as `ready_max = 0` in the configuration does.
    """

    def __init__(self, config: Config | None = None, *, warm: bool = True) -> None:
        self._process = os.getpid()
        self._opening = threading.Lock()
        self._warm: Warm | None = None
        if config is not None:
            check_config(config)
        self._closed = False
        self._isolates: WorkerPool | None = None
        self._runners: WorkerPool | None = None
        self._gateways: Gateways | None = None
        self._publisher: Publisher | None = None
        self._is_unheard = False
        self.config = load_config() if config is None else config
        self._makes_ahead = warm
        self._is_warm = warm and self.config.pool.ready_max > 0
        self.runtimes = Registry(self.config.runtimes, lambda: data_directory(self.config))
        self.reaped = ReapReport()
        with ExitStack() as stack:
            stack.callback(self.runtimes.close)
            cgroups = open_root(choice=self.config.engine.cgroup or None, source=cgroup_source(self.config))
            if not isinstance(cgroups, CgroupUnavailable):
                stack.callback(cgroups.close)
                self.reaped = reap(cgroups)
            host_ids = stack.enter_context(HostIds()) if can_lend() else None
            self.backend = NativeBackend(cgroups=cgroups, host_ids=host_ids)
            stack.callback(self.backend.close)
            self._stack = stack.pop_all()

    def start(self, spec: SandboxSpec) -> Steps[NativeSandbox]:
        """Build one sandbox; the caller closes it. Raises SandboxClosed if the engine is, or in a forked child."""
        self._check_process()
        self.check_open()
        if Layer.CGROUP in spec.require and isinstance(self.backend.cgroups, CgroupUnavailable):
            raise LayerMissing([Layer.CGROUP], hint=self.backend.cgroups.hint)
        return self.backend.start(spec)

    def _check_process(self) -> None:
        """What it lends (ids, processors, ready sandboxes) would be lent twice."""
        if os.getpid() != self._process:
            raise SandboxClosed("this engine belongs to the parent process", hint="open another one after the fork")

    def keep_ready(
        self, runtime: str, count: int, *, limits: LimitsLike = None, require: Iterable[Layer | str] = ()
    ) -> None:
        """Keep that many sandboxes of a runtime ready for runs with these limits, and wait until they are.

        0 leaves it to demand again; for a runtime that is not there any more, with any limits. Limits of the run alone
        (`timeout`, `output`) do not matter. Raises InvalidInput, RuntimeUnavailable, SandboxClosed, or CapacityError if
        they cannot be made.
        """
        from casemate.engine.run import prepare_code
        from casemate.engine.warm import warm_key

        self._check_process()
        self.check_open()
        _check_count(count)
        if not self._makes_ahead:
            raise InvalidInput("engine", "makes nothing ahead", hint="open it without warm=False")
        try:
            run = prepare_code(self, "", runtime=runtime, limits=limits, require=require)
        except (UnknownRuntime, RuntimeUnavailable, SetDamaged):
            if count or not self.warm.let_go(runtime):
                raise
            return
        if run.program.channel is Channel.ISOLATE:
            raise InvalidInput("runtime", "workers of isolates belong to tenants, and stay by demand")
        key = warm_key(run)
        if not self.warm.keep(key, count, bound.LAUNCH_TIMEOUT_S):
            problem, hint = self._pool_problem(run.label)  # as it is now: what is given up makes room
            self.warm.give_up(key)
            self.check_open()
            raise CapacityError(f"{count} sandboxes of {runtime} cannot be made ready: {problem}", hint=hint)

    async def akeep_ready(
        self, runtime: str, count: int, *, limits: LimitsLike = None, require: Iterable[Layer | str] = ()
    ) -> None:
        """As `keep_ready`, for asyncio. Cancelling the task ends only the wait: 0 takes back what was asked for."""
        import asyncio  # some 30 ms that an engine without a loop does not pay

        await asyncio.to_thread(self.keep_ready, runtime, count, limits=limits, require=require)

    def _pool_problem(self, label: str) -> tuple[str, str]:
        found = next((each.problem for each in self.pools() if each.label == label and each.problem), "")
        if found:
            return found, ""
        if self.warm.is_full:
            return "the pool's memory is used up", "raise pool.memory in the configuration"
        return f"they are not within {bound.LAUNCH_TIMEOUT_S:g} s", ""

    def pools(self) -> tuple[PoolStatistics, ...]:
        """The kinds of sandboxes that are made ahead, and how many of each there are."""
        pools = (self._warm, self._isolates, self._runners)
        return tuple(each for pool in pools if pool is not None for each in pool.statistics())

    def workers(self) -> WorkersReport:
        """Everything that is kept running between executions, one by one and by kind, and what lately ended."""
        from casemate.model.workers import WorkersReport  # nobody who only runs something asks

        found = [pool.report() for pool in (self._isolates, self._runners, self._warm) if pool is not None]
        return WorkersReport(
            at_us=now_us(),
            workers=tuple(each for workers, _ in found for each in workers),
            groups=tuple(each for _, groups in found for each in groups),
        )

    @contextmanager
    def taken(self, run: Run) -> Iterator[WarmSandbox | None]:
        """A sandbox that was made ahead and suits the run, if there is one; the caller ends it."""
        self.check_open()
        if run.fresh or not self._makes_ahead:
            yield None
            return
        with self.warm.taken(run) as warm:
            yield warm

    def nested(self, run: Run) -> Steps[NativeSandbox | None]:
        """A sandbox made for the run by a zygote, if there is one; the caller ends it."""
        if run.fresh or not self._makes_ahead:
            return None
        return (yield from self.warm.nested(run))

    @property
    def warm(self) -> Warm:
        """The ready sandboxes of this engine."""
        self._check_process()
        with self._opening:
            if self._warm is None:
                from casemate.engine.warm import Warm  # a single run does without

                self._warm = Warm(self.backend, self.config.pool.bounds(), self._publish)
                self._stack.callback(self._warm.close)
            return self._warm

    def _publish(self) -> None:
        """From now on tell `casemate pools` about the pools: when something is first made, beside a run and not in it.

        A machine without a place for that is only told of: runs matter more.
        """
        with self._opening:
            if self._publisher is not None or self._closed or self._is_unheard:
                return
            from casemate.pool.published import Publisher

            try:
                self._publisher = Publisher(self.pools)
            except (OSError, RuntimeError) as error:
                self._is_unheard = True
                _warn(error)
            else:
                self._stack.callback(self._publisher.close)

    def check_open(self) -> None:
        """Raise SandboxClosed if the engine is closed, and with it every sandbox of its."""
        if self._closed:
            raise SandboxClosed("the engine is closed")

    @property
    def is_warm(self) -> bool:
        """Whether anything is kept for the next run."""
        return self._is_warm

    @property
    def isolates(self) -> WorkerPool:
        """The workers in which isolates are made; the pool itself is made when it is first needed."""
        self._check_process()
        with self._opening:
            if self._isolates is None:
                from casemate.engine.isolate import make_pool  # of use only where there are isolates

                self._isolates = make_pool(self, self._publish)
                self._stack.callback(self._isolates.close)
            return self._isolates

    @property
    def runners(self) -> WorkerPool:
        """The runners of functions; the pool itself is made when it is first needed."""
        self._check_process()
        with self._opening:
            if self._runners is None:
                from casemate.engine.runner import make_pool  # of use only where functions are called

                self._runners = make_pool(self, self._publish)
                self._stack.callback(self._runners.close)
            return self._runners

    @property
    def gateways(self) -> Gateways:
        """Who serves the ways out of sandboxes; nothing of it is started before there is one."""
        self._check_process()
        with self._opening:
            if self._gateways is None:
                from casemate.egress.gateway import Gateways  # most engines have no use for it
                from casemate.egress.settings import settings_of

                self._gateways = Gateways(settings_of(self.config.network))
                self._stack.callback(self._gateways.close)
            return self._gateways

    def rest(self) -> None:
        """End everything that only waits for the next run, and wait until that is gone."""
        self._check_process()
        for pool in (self._isolates, self._runners):
            if pool is not None:
                pool.clear()
        if self._warm is not None:
            self._warm.clear()
        self.backend.settle()

    def close(self) -> None:
        """End every sandbox of this engine and release what it holds. Idempotent.

        In a forked child it does nothing: all that the engine holds is the parent's.
        """
        if os.getpid() == self._process:
            with self._opening:
                self._closed = True
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _warn(error: Exception) -> None:
    import logging  # takes longer to import than a run takes

    logging.getLogger("casemate").warning("`casemate pools` cannot ask this engine: %s", error)


def _check_count(count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise InvalidInput("count", "must be a whole number")
    if not 0 <= count <= bound.POOL_KEPT_MAX:
        raise InvalidInput("count", f"{count} is outside 0 to {bound.POOL_KEPT_MAX}")


class _Default:
    """The default engine by process id, and what makes it one."""

    def __init__(self) -> None:
        self.engines: dict[int, Engine] = {}
        self.renew_lock()

    def renew_lock(self) -> None:
        """Also in a forked child: a thread of the parent, which does not exist there, may have held it."""
        self.lock = threading.Lock()


_default = _Default()
os.register_at_fork(after_in_child=_default.renew_lock)


def default_engine() -> Engine:
    """The engine that `casemate.run` and `Sandbox` use when none is given; opened when first needed.

    A forked child gets an engine of its own: the parent's launcher serves only the parent.
    """
    pid = os.getpid()
    with _default.lock:
        if pid not in _default.engines:
            _default.engines[pid] = Engine()
            atexit.register(_default.engines[pid].close)
        return _default.engines[pid]
