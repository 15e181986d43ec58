"""The engine's side of the gateway: one process for all sandboxes with a network, started when the first one comes.

What it serves ends with it: a sandbox whose gateway has died has no network any more, and says so. The next sandbox
gets a new process.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from casemate import network_limits as bound
from casemate.egress.policy import Rules
from casemate.egress.wire import (
    SOCKETS,
    Begin,
    Closed,
    CloseWay,
    FlowEnded,
    Opened,
    OpenWay,
    Report,
    Settings,
    decode_report,
    encode,
)
from casemate.errors import InvalidInput, LaunchError
from casemate.kernel.descriptors import send_descriptors
from casemate.model.flow import Flow
from casemate.model.network import NetworkPolicy

COMMAND: Final = (sys.executable, "-I", "-m", "casemate.egress")
_DEAD: Final = "the gateway has ended"


class Sockets(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors of the sockets inside a sandbox, which a gateway takes over.

    `tcp` and `tcp6` are transparent listening sockets for all connections of IPv4 and IPv6; `dns` and `dns_tcp` get
    questions, `proxy` what speaks to an HTTP proxy. None: there is no such socket.
    """

    tcp: int | None = None
    tcp6: int | None = None
    dns: int | None = None
    dns_tcp: int | None = None
    proxy: int | None = None

    def given(self) -> dict[str, int]:
        """Those that there are, by name, in the order in which they are handed over."""
        found = ((name, getattr(self, name)) for name in SOCKETS)
        return {name: fd for name, fd in found if fd is not None}


class Way:
    """The way out of one sandbox, from `Gateways.open` to `close`."""

    def __init__(self, number: int, gateway: _Gateway, on_flow: Callable[[Flow], None]) -> None:
        self._number = number
        self._gateway = gateway
        self._on_flow = on_flow
        self._opened = threading.Event()
        self._closed = threading.Event()
        self._closing = False
        self.problem = ""
        self.sent_bytes = 0
        self.received_bytes = 0
        self.untold_flows = 0
        self.failed = False

    def close(self) -> None:
        """End it with its connections; afterwards its totals are there. Idempotent and bounded in time."""
        if not self._closing and not self.failed:
            self._closing = True
            self._gateway.send(CloseWay(self._number))
        if not self._closed.wait(bound.CLOSE_TIMEOUT_S):
            self._gateway.kill()

    def wait_open(self) -> None:
        """Raises LaunchError if it is not served."""
        if not self._opened.wait(bound.START_TIMEOUT_S):
            self._gateway.kill()
        if self.failed or self.problem or not self._opened.is_set():
            raise LaunchError("network", 0, self.problem or _DEAD)

    def took(self, report: Report) -> None:
        """One report about it; called by the thread that reads them."""
        if isinstance(report, FlowEnded):
            self._on_flow(report.flow)
        elif isinstance(report, Closed):
            self.sent_bytes, self.received_bytes = report.sent_bytes, report.received_bytes
            self.untold_flows = report.untold
            self._closed.set()
        else:
            self.problem = report.problem
            self._opened.set()

    def lost(self) -> None:
        """The process is gone, and all connections with it."""
        if not self._closed.is_set():
            self.failed = True
        self._opened.set()
        self._closed.set()


class _Gateway:
    """One process, and the thread that reads what it reports."""

    def __init__(self, command: Sequence[str], settings: Settings) -> None:
        self._lock = threading.Lock()
        self._ways: dict[int, Way] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self.is_dead = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for end in (self._channel, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * bound.MESSAGE_MAX_BYTES)
            self._process = _started(command, theirs.fileno())
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        self._channel.settimeout(bound.OPEN_TIMEOUT_S)
        self._reader = threading.Thread(target=self._read, name="casemate-gateway", daemon=True)
        self._reader.start()
        self.send(Begin(settings))

    @property
    def pid(self) -> int:
        return self._process.pid

    def add(self, policy: NetworkPolicy, sockets: Sockets, on_flow: Callable[[Flow], None]) -> Way:
        """Raises LaunchError."""
        with self._lock:
            if len(self._ways) >= bound.WAYS_MAX:
                raise LaunchError("network", 0, f"there are {bound.WAYS_MAX} sandboxes with a network already")
            number = next(self._numbers)
            way = self._ways[number] = Way(number, self, on_flow)
            if self.is_dead:
                way.lost()
        given = sockets.given()
        self.send(OpenWay(number, policy, tuple(given)), tuple(given.values()))
        return way

    def send(self, order: Begin | OpenWay | CloseWay, fds: Sequence[int] = ()) -> None:
        """A process that does not take it is as good as dead, and is ended."""
        try:
            with self._sending:
                send_descriptors(self._channel, encode(order), fds)
        except OSError:
            self.kill()

    def _read(self) -> None:
        try:
            while data := self._receive():
                self._dispatch(decode_report(data))
        except (OSError, msgspec.MsgspecError):
            pass
        finally:
            self._end()

    def _receive(self) -> bytes:
        while True:
            try:
                return self._channel.recv(bound.MESSAGE_MAX_BYTES)
            except TimeoutError:  # nothing to say is well
                continue

    def _dispatch(self, report: Report) -> None:
        with self._lock:
            way = self._ways.get(report.way)
            if isinstance(report, Closed) or (isinstance(report, Opened) and report.problem):
                self._ways.pop(report.way, None)
        if way is not None:
            way.took(report)

    def _end(self) -> None:
        self.kill()
        with self._lock:
            self.is_dead = True
            ways = list(self._ways.values())
            self._ways.clear()
        for way in ways:
            way.lost()

    def kill(self) -> None:
        """End the process now; the reader tells the ways."""
        with self._lock:
            self.is_dead = True
        with suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Let it end, and wait for that. Idempotent and bounded in time."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(bound.CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._reader:
            self._reader.join(bound.CLOSE_TIMEOUT_S)
        self._channel.close()


def _started(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*command, str(fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"LANG": "C.UTF-8"},
            pass_fds=(fd,),
            start_new_session=True,
        )
    except OSError as error:
        raise LaunchError("network", error.errno or 0, f"the gateway cannot be started: {error.strerror}") from error


class Gateways:
    """The ways out of an engine's sandboxes. Nothing is started before the first of them."""

    def __init__(self, settings: Settings | None = None, *, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings or Settings()
        self._command = command
        self._lock = threading.Lock()
        self._gateway: _Gateway | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process that serves just now."""
        return self._gateway.pid if self._gateway is not None and not self._gateway.is_dead else None

    def open(self, policy: NetworkPolicy, sockets: Sockets, on_flow: Callable[[Flow], None]) -> Way:
        """Serve a sandbox; it has a network when this returns. `on_flow` is called by a thread and must not raise.

        The descriptors are closed here, whatever happens. Raises InvalidInput for what is wrong with the policy, and
        LaunchError where there is no gateway.
        """
        try:
            Rules(policy)
            if len(encode(OpenWay(0, policy, SOCKETS))) > bound.POLICY_MAX_BYTES:
                raise InvalidInput("network", f"is larger than {bound.POLICY_MAX_BYTES} bytes")
            return self._opened(policy, sockets, on_flow)
        finally:
            for fd in sockets.given().values():
                os.close(fd)

    def _opened(self, policy: NetworkPolicy, sockets: Sockets, on_flow: Callable[[Flow], None]) -> Way:
        for number in itertools.count(1):
            way = self._running().add(policy, sockets, on_flow)
            try:
                way.wait_open()
            except LaunchError:
                way.close()
                if way.problem or number == bound.STARTS_MAX:
                    raise
            else:
                return way
        raise AssertionError("it has returned or raised")

    def _running(self) -> _Gateway:
        with self._lock:
            if self._is_closed:
                raise LaunchError("network", 0, "the engine is closed")
            if self._gateway is not None and self._gateway.is_dead:
                self._gateway.close()
                self._gateway = None
            if self._gateway is None:
                self._gateway = _Gateway(self._command, self._settings)
            return self._gateway

    def close(self) -> None:
        """End the process, and every way with it. Idempotent and bounded in time."""
        with self._lock:
            self._is_closed = True
            if self._gateway is not None:
                self._gateway.close()
                self._gateway = None
