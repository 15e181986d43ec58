"""Zygotes: interpreters in nurseries, of whom the interpreters of ready sandboxes are forks."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Final

import msgspec

from casemate import limits
from casemate.engine.drive import drive
from casemate.engine.execution import start_process
from casemate.engine.program import Command
from casemate.errors import CasemateError, LaunchError, SandboxClosed
from casemate.isolation.native import NativeBackend, NativeSandbox
from casemate.isolation.nursery import Nursery
from casemate.isolation.waiting import Steps, Wait
from casemate.model.spec import Mount
from casemate.model.values import READY_FRAME
from casemate.model.workers import WorkerInfo, WorkerKind, WorkerState

_DIRECTORY: Final = "/tmp"  # noqa: S108 - the nursery's own


class ZygoteKey(msgspec.Struct, frozen=True):
    """What tells zygotes apart: their command with what they import, and what they see."""

    argv: tuple[str, ...]
    preload: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]


class _Kind:
    """The zygote of one key, and when it was made; or why there is none, and until when."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.nursery: Nursery | None = None
        self.born_s = 0.0
        self.problem = ""
        self.retry_s = 0.0
        self.used_s = 0.0
        self.is_gone = False

    def let_go(self, *, at_once: bool = False) -> None:
        """Nobody finds it any more: its zygote is let go, also one that is being made now."""
        with self.lock:
            self.is_gone = True
            if self.nursery is not None:
                (self.nursery.close if at_once else self.nursery.retire)()

    def is_idle_since(self, moment_s: float) -> bool:
        """Whether nobody has asked for it since then, and nothing is there that it has made."""
        return self.used_s <= moment_s and self.nursery is not None and self.nursery.is_idle


class Zygotes:
    """The zygotes of one engine, each made when it is first wanted. Safe to use from many threads."""

    def __init__(self, backend: NativeBackend, idle_s: float) -> None:
        """`idle_s`: how long one stays that has nothing to do."""
        self._backend = backend
        self._idle_s = idle_s
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._kinds: dict[ZygoteKey, _Kind] = {}
        self._starting: set[NativeSandbox] = set()
        self._closed = False

    def get(self, key: ZygoteKey) -> Nursery | None:
        """A zygote to make a sandbox with; None where there can be none now, and `problem` says why."""
        while True:
            kind = self._kind(key)
            with kind.lock:
                if not kind.is_gone:  # while we waited for it
                    return self._of(key, kind)

    def find(self, key: ZygoteKey) -> Nursery | None:
        """One that is there and young enough; never waits for one that is being made."""
        with self._lock:
            kind = self._kinds.get(key)
        nursery = kind.nursery if kind is not None else None
        if kind is None or nursery is None or _is_old(kind, nursery, time.monotonic()):
            return None
        kind.used_s = time.monotonic()
        return nursery

    def _of(self, key: ZygoteKey, kind: _Kind) -> Nursery | None:
        """With the lock of the kind."""
        now_s = time.monotonic()
        kind.used_s = now_s
        if kind.nursery is not None and not _is_old(kind, kind.nursery, now_s):
            return kind.nursery
        if kind.nursery is not None:
            kind.nursery.retire()
            kind.nursery = None
        if now_s >= kind.retry_s and not self._closed:
            self._make(key, kind)
        return kind.nursery

    def drop(self, key: ZygoteKey, nursery: Nursery, error: Exception) -> None:
        """It failed: let the next one who asks have another; for a while none, if this one was of no use at all."""
        kind = self._kind(key)
        with kind.lock:
            if kind.nursery is nursery:
                kind.nursery = None
                kind.problem = f"no zygote: {error}"
                kind.retry_s = time.monotonic() + (0.0 if nursery.has_worked else limits.POOL_RETRY_MAX_S)
        nursery.retire()

    def problem(self, key: ZygoteKey) -> str:
        """Why there is none, for people; empty if there is one, or was never asked for."""
        with self._lock:
            kind = self._kinds.get(key)
        return kind.problem if kind is not None else ""

    def report(self) -> tuple[WorkerInfo, ...]:
        """Those that there are, for the operator."""
        now_s = time.monotonic()
        with self._lock:
            kinds = [(key, kind, kind.nursery) for key, kind in self._kinds.items()]
        return tuple(
            WorkerInfo(
                id=f"zygote-{at}",
                kind=WorkerKind.ZYGOTE,
                label=" ".join(key.preload)[: limits.PUBLISHED_TEXT_MAX_CHARS],
                state=WorkerState.IDLE if nursery.is_idle else WorkerState.BUSY,
                age_s=now_s - kind.born_s,
                runs=nursery.made,
                memory_limit_bytes=limits.NURSERY_MEMORY_BYTES,
            )
            for at, (key, kind, nursery) in enumerate(kinds, 1)
            if nursery is not None
        )

    def clear(self) -> None:
        """Let all go that nobody needs any more; the next one who asks has another made."""
        for kind in self._take_all():
            kind.let_go()

    def _look_later(self) -> None:
        """One of them has nothing to do: if that stays so, it is let go."""
        with self._lock:
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(self._idle_s, self._let_idle_go)
                self._timer.daemon = True
                self._timer.start()

    def _let_idle_go(self) -> None:
        before_s = time.monotonic() - self._idle_s
        with self._lock:
            self._timer = None
            idle = [key for key, kind in self._kinds.items() if kind.is_idle_since(before_s)]
            kinds = [self._kinds.pop(key) for key in idle]
            left = any(kind.nursery is not None and kind.nursery.is_idle for kind in self._kinds.values())
        for kind in kinds:
            kind.let_go()
        if left:
            self._look_later()

    def close(self) -> None:
        """End all, and every sandbox that was made by one. Idempotent."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            for sandbox in self._starting:
                sandbox.kill()
        for kind in self._take_all():
            kind.let_go(at_once=True)

    def _take_all(self) -> list[_Kind]:
        with self._lock:
            kinds, self._kinds = list(self._kinds.values()), {}
        return kinds

    def _kind(self, key: ZygoteKey) -> _Kind:
        """The one that was longest not asked for makes room for a new one."""
        with self._lock:
            kind = self._kinds.pop(key, None) or _Kind()
            oldest = self._kinds.pop(next(iter(self._kinds))) if len(self._kinds) >= limits.ZYGOTES_MAX else None
            self._kinds[key] = kind
        if oldest is not None:
            oldest.let_go()
        return kind

    def _make(self, key: ZygoteKey, kind: _Kind) -> None:
        try:
            kind.nursery = drive(start_zygote(self._backend, key, self._started))
            kind.nursery.on_idle = self._look_later
            kind.born_s, kind.problem = time.monotonic(), ""
        except (CasemateError, OSError) as error:
            kind.problem = f"no zygote: {error}"
            kind.retry_s = time.monotonic() + limits.POOL_RETRY_MAX_S

    @contextmanager
    def _started(self, sandbox: NativeSandbox) -> Iterator[None]:
        """While a zygote imports, which may take long, closing the engine ends it."""
        with self._lock:
            if self._closed:
                raise SandboxClosed("the engine is closed")
            self._starting.add(sandbox)
        try:
            yield
        finally:
            with self._lock:
                self._starting.discard(sandbox)


def _is_old(kind: _Kind, nursery: Nursery, now_s: float) -> bool:
    if nursery.is_full:
        return True
    return nursery.made >= limits.ZYGOTE_CHILDREN_MAX or now_s - kind.born_s >= limits.ZYGOTE_AGE_MAX_S


def start_zygote(
    backend: NativeBackend,
    key: ZygoteKey,
    importing: Callable[[NativeSandbox], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Steps[Nursery]:
    """A zygote that has imported everything. Raises LaunchError with what it said last if it has not.

    `importing` is entered for as long as it does so.
    """
    sandbox = yield from backend.start_nursery(key.mounts, limited=bool(key.preload))
    with ExitStack() as stack:
        stack.callback(backend.bury, sandbox)
        argv = (*key.argv, *key.preload)
        command = Command(argv=argv, environment=dict(key.environment), cwd=_DIRECTORY, stdin=b"", socket=True)
        waiting = yield from start_process(sandbox, command)
        stack.callback(waiting.close)
        channel = socket.socket(fileno=os.dup(waiting.spawned.fds[-1]))
        stack.callback(channel.close)
        channel.settimeout(0)
        with importing(sandbox):
            yield from _await_zygote(sandbox, channel, waiting.spawned.fds[1:3])
        return Nursery(channel, backend.view_within(key.mounts), stack.pop_all().close)


def _await_zygote(sandbox: NativeSandbox, channel: socket.socket, outputs: tuple[int, ...]) -> Steps[None]:
    """What it prints meanwhile is taken, so that it does not wait for us, and the last of it kept for the error."""
    deadline_s = time.monotonic() + limits.ZYGOTE_START_TIMEOUT_S
    said, watched = dict.fromkeys(outputs, b""), {channel.fileno(), *outputs}
    while time.monotonic() < deadline_s:  # it may print without end
        ready = yield Wait((sandbox.pidfd, *watched), (), deadline_s)
        for fd in watched.intersection(outputs, ready):
            data = os.read(fd, limits.READ_CHUNK_BYTES)
            said[fd] = (said[fd] + data)[-limits.LAST_WORDS_BYTES :]
            if not data:
                watched.discard(fd)
        if channel.fileno() in watched & ready:
            if _is_ready(channel):
                return
            watched.discard(channel.fileno())
        if sandbox.pidfd in ready or watched.isdisjoint(outputs):
            raise LaunchError("start of the zygote", errno.EPROTO, f"it ends: {_last_line(said)}")
    raise LaunchError("start of the zygote", errno.ETIMEDOUT, f"it does not become ready: {_last_line(said)}")


def _is_ready(channel: socket.socket) -> bool:
    """Whether that is what it says; otherwise it has nothing more to say."""
    with suppress(OSError):
        return channel.recv(len(READY_FRAME)) == READY_FRAME
    return False


def _last_line(said: Mapping[int, bytes]) -> str:
    """For people, from a program that is not trusted: of what it printed to stderr, if it did, else to stdout."""
    stdout, stderr = said.values()
    lines = (stderr or stdout).decode(errors="replace").strip().splitlines()
    return ascii(lines[-1][: limits.ZYGOTE_WORDS_MAX])[1:-1] if lines else "without a word"
