"""Zygotes that die, fail, grow old or are not needed any more: every run has its Result, and nothing stays."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.faults.leftovers import Census, assert_settles, take_census

import casemate
from casemate import limits
from casemate.config import Config, PoolConfig
from casemate.engine import zygote
from casemate.engine.run import prepare_code
from casemate.engine.warm import WarmKey, warm_key
from casemate.engine.zygote import Zygotes
from casemate.errors import LaunchError
from casemate.isolation import native
from casemate.isolation.host import HostFacts
from casemate.isolation.native import NativeSandbox
from casemate.isolation.nursery import Nursery, seen_inside
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.model.spec import Mount

KEEP_ONE: Final = """
import casemate
with casemate.Engine() as engine:
    engine.keep_ready("python", 1)
    print([pool.problem for pool in engine.pools()])
"""


@pytest.fixture
def warm() -> Iterator[casemate.Engine]:
    """An engine that makes things ahead, whose launcher runs, and that can be asked for its pools."""
    with casemate.Engine() as opened:
        opened._publish()
        assert casemate.execute(["true"], engine=opened, fresh=True).ok
        yield opened


@pytest.fixture
def before(warm: casemate.Engine) -> Census:
    return take_census(warm)


@pytest.fixture
def nurseries(monkeypatch: pytest.MonkeyPatch) -> list[Nursery]:
    """Every nursery that is made from now on."""
    made: list[Nursery] = []

    class Noted(Nursery):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(zygote, "Nursery", Noted)
    return made


def key_of(engine: casemate.Engine) -> WarmKey:
    return warm_key(prepare_code(engine, "", runtime="python"))


def keep(engine: casemate.Engine, count: int) -> None:
    engine.warm.keep(key_of(engine), count, limits.LAUNCH_TIMEOUT_S)


def problems(engine: casemate.Engine) -> str:
    return "".join(pool.problem for pool in engine.pools())


def settled(engine: casemate.Engine, before: Census) -> None:
    keep(engine, 0)
    engine.rest()
    assert_settles(engine, before)


def zygotes_of(engine: casemate.Engine) -> list[int]:
    """The process ids of the zygotes' sandboxes, which end with them."""
    running = [sandbox for sandbox in engine.backend._running() if not sandbox.isolation.layers]
    return [sandbox.pid for sandbox in running if sandbox.is_alive()]


def test_a_killed_zygote_takes_its_forks_with_it_and_the_next_run_has_another(
    warm: casemate.Engine, before: Census, nurseries: list[Nursery]
) -> None:
    keep(warm, 2)
    all_of_it = warm.backend._running()
    (pid,) = zygotes_of(warm)
    os.kill(pid, signal.SIGKILL)
    for sandbox in all_of_it:
        assert select.select([sandbox.pidfd], [], [], limits.KILL_TIMEOUT_S)[0]
    assert casemate.run("output = 1", engine=warm).output == 1
    keep(warm, 2)
    assert casemate.run("output = 2", engine=warm).output == 2
    assert len(nurseries) == 2
    settled(warm, before)


def test_a_run_whose_zygote_dies_has_a_result(warm: casemate.Engine, before: Census, nurseries: list[Nursery]) -> None:
    keep(warm, 1)
    (pid,) = zygotes_of(warm)
    code = "import time; print('begun', flush=True); time.sleep(20)"
    result = casemate.run(code, on_output=lambda _: os.kill(pid, signal.SIGKILL), engine=warm)
    assert (result.status, result.reason) == ("failed", "lost")
    settled(warm, before)


def test_where_no_nursery_can_be_made_sandboxes_are_made_without_and_it_is_said_why(
    warm: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise LaunchError("nursery", errno.EPERM, "not here")

    monkeypatch.setattr(type(warm.backend), "start_nursery", refuse)
    keep(warm, 1)
    assert "no zygote: nursery: not here" in problems(warm)
    hits = sum(pool.hits for pool in warm.pools())
    assert casemate.run("output = 1", engine=warm).output == 1
    assert sum(pool.hits for pool in warm.pools()) == hits + 1
    settled(warm, before)


def test_where_nothing_can_be_made_in_a_nursery_it_is_given_up(
    warm: casemate.Engine, before: Census, nurseries: list[Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*arguments: Any) -> HostFacts:
        return msgspec.structs.replace(seen_inside(*arguments), etc_source="/run/nothing")

    monkeypatch.setattr(native, "seen_inside", elsewhere)
    keep(warm, 2)
    assert "no zygote" in problems(warm)
    assert casemate.run("output = 1", engine=warm).output == 1
    assert len(nurseries) == 1
    settled(warm, before)


def test_a_zygote_that_has_made_enough_is_followed_by_another(
    warm: casemate.Engine, before: Census, nurseries: list[Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ZYGOTE_CHILDREN_MAX", 2)
    keep(warm, 5)
    assert len(nurseries) >= 3
    assert casemate.run("output = 1", engine=warm).output == 1
    warm.backend.settle()
    assert len(zygotes_of(warm)) <= len(nurseries)
    settled(warm, before)


def test_a_zygote_with_as_many_forks_as_it_may_have_is_followed_by_another(
    warm: casemate.Engine, before: Census, nurseries: list[Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ZYGOTE_FORKS_MAX", 2)
    keep(warm, 6)
    assert len(nurseries) >= 2
    assert all(each._alive <= 2 + limits.POOL_THREADS for each in nurseries)
    settled(warm, before)


def test_an_old_zygote_is_followed_by_another(
    warm: casemate.Engine, before: Census, nurseries: list[Nursery], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ZYGOTE_AGE_MAX_S", 0.0)
    keep(warm, 2)
    assert len(nurseries) >= 2
    settled(warm, before)


def test_a_zygote_that_nobody_needs_ends() -> None:
    with casemate.Engine(Config(pool=PoolConfig(idle="200ms"))) as engine:
        ended = threading.Event()
        end = Nursery._end_if_done
        with pytest.MonkeyPatch.context() as patch:

            def noted(found: Nursery) -> None:
                end(found)
                if found._ended:
                    ended.set()

            patch.setattr(Nursery, "_end_if_done", noted)
            keep(engine, 1)
            keep(engine, 0)
            assert ended.wait(20)
        engine.backend.settle()
        assert not zygotes_of(engine)


def test_closing_an_engine_ends_zygotes_and_forks(nurseries: list[Nursery]) -> None:
    with casemate.Engine() as engine:
        keep(engine, 3)
        pids = [sandbox.pid for sandbox in engine.backend._running()]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_closing_an_engine_does_not_wait_for_what_a_zygote_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(1000)")
    tmp_path.chmod(0o755)
    with casemate.Engine() as engine:
        if isinstance(engine.backend.cgroups, CgroupUnavailable):
            return  # then there is no zygote that imports
        key = key_of(engine).zygote_key()
        assert key is not None
        slow = msgspec.structs.replace(
            key,
            preload=("slow",),
            mounts=(*key.mounts, Mount(str(tmp_path), "/opt/packages")),
            environment=(*key.environment, ("PYTHONPATH", "/opt/packages")),
        )
        begun, zygotes = threading.Event(), Zygotes(engine.backend, 60.0)
        started = zygotes._started

        def noted(sandbox: NativeSandbox) -> AbstractContextManager[None]:
            begun.set()
            return started(sandbox)

        zygotes._started = noted  # type: ignore[method-assign, assignment]
        with ThreadPoolExecutor(1) as pool:
            made = pool.submit(zygotes.get, slow)
            assert begun.wait(20)
            zygotes.close()
            assert made.result(limits.ZYGOTE_START_TIMEOUT_S / 3) is None


def test_a_zygote_that_is_wanted_while_all_are_let_go_is_not_forgotten(
    warm: casemate.Engine, before: Census, monkeypatch: pytest.MonkeyPatch
) -> None:
    zygotes, find = warm.warm._zygotes, zygote.Zygotes._kind
    key = key_of(warm).zygote_key()
    assert key is not None
    cleared: list[bool] = []

    def found(self: zygote.Zygotes, wanted: zygote.ZygoteKey) -> Any:
        kind = find(self, wanted)
        if not cleared:
            cleared.append(True)
            self.clear()
        return kind

    monkeypatch.setattr(zygote.Zygotes, "_kind", found)
    nursery = zygotes.get(key)
    assert nursery is not None
    assert zygotes._kinds[key].nursery is nursery
    settled(warm, before)


@pytest.mark.root
def test_root_that_may_make_no_device_nodes_has_zygotes_from_the_first_start() -> None:
    command = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod", sys.executable, "-c", KEEP_ONE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("['']\n", "")
