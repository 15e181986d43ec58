"""The gateway's process: all ways out of the sandboxes of one engine, until that engine ends.

It reads what guests send, so it gives up what it can before the first byte: the rights of root, new privileges, and
descriptors that are not its own. It holds no credentials but the values of policies that inject some.
"""

from __future__ import annotations

import array
import asyncio
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

import msgspec

from casemate import network_limits as bound
from casemate.egress.names import SYSTEM_HOSTS, HostsFile, Names
from casemate.egress.outlet import Way
from casemate.egress.wire import (
    SOCKETS,
    Begin,
    CloseWay,
    FlowEnded,
    Opened,
    OpenWay,
    Report,
    decode_order,
    encode,
)
from casemate.errors import InvalidInput
from casemate.kernel.privileges import give_up_privileges
from casemate.lines import Lines
from casemate.model.flow import Flow

_NOBODY: Final = 65534


class Process:
    """Takes orders from the channel and reports over it."""

    def __init__(self, channel: socket.socket, names: Names, rest_s: float) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._names = names
        self._rest_s = rest_s
        self._rest: asyncio.TimerHandle | None = None
        self._ways: dict[int, Way] = {}
        self._reports: Lines[int, Report] = Lines(bound.ANSWERS_WAITING_MAX)
        self._has_reports = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Until the channel's other end is closed. Raises what is wrong with an order: then nothing is served."""
        self._channel.setblocking(False)  # noqa: FBT003 - the method's own form
        self._loop.add_reader(self._channel, self._readable)
        self._rested()
        async with asyncio.TaskGroup() as tasks:
            speaker = tasks.create_task(self._speak())
            try:
                await self._ended
            finally:
                speaker.cancel()

    def _readable(self) -> None:
        try:
            while not self._ended.done():
                data, fds = _receive(self._channel)
                if not data:
                    self._end()
                    return
                self._obey(data, fds)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            self._ended.set_exception(error)

    def _obey(self, data: bytes, fds: list[int]) -> None:
        sockets = [socket.socket(fileno=fd) for fd in fds]
        order = decode_order(data)
        if isinstance(order, OpenWay):
            self._open(order, sockets)
        elif isinstance(order, CloseWay):
            task = self._loop.create_task(self._close(order.way))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        else:
            self._ended.set_exception(ValueError("an order that comes once has come again"))

    def _rested(self) -> None:
        """Whoever serves nobody ends after a while."""
        if self._rest is not None:
            self._rest.cancel()
        self._rest = None if self._ways else self._loop.call_later(self._rest_s, self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _open(self, order: OpenWay, sockets: list[socket.socket]) -> None:
        problem = ""
        named = dict(zip(order.sockets, sockets, strict=True))
        if len(named) != len(sockets) or not named.keys() <= set(SOCKETS) or order.way in self._ways:
            raise ValueError("an order without its sockets")
        try:
            way = Way(order.way, order.policy, self._names, self._tell)
            way.begin(named)
            self._ways[order.way] = way
        except (InvalidInput, OSError) as error:
            problem = str(error)
            for each in sockets:
                each.close()
        self._report(Opened(order.way, problem))
        self._rested()

    async def _close(self, number: int) -> None:
        way = self._ways.pop(number, None)
        if way is not None:
            self._report(await way.close())
            self._rested()

    def _tell(self, way: int, flow: Flow) -> bool:
        """Whether there was room for it: a parent that does not read is not waited for.

        Every way has a line of its own, and its turn: what one sandbox does keeps no record of another's away.
        """
        has_room = self._reports.has_room(way)
        if has_room:
            self._report(FlowEnded(way, flow))
        return has_room

    def _report(self, report: Report) -> None:
        self._reports.add(report.way, report)
        self._has_reports.set()

    async def _speak(self) -> None:
        while True:
            await self._has_reports.wait()
            self._has_reports.clear()
            while found := self._reports.take(1):
                try:
                    await self._loop.sock_sendall(self._channel, encode(found[0]))
                except OSError:
                    return  # whoever listened is gone; reading notices that


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, flags, _ = channel.recvmsg(
        bound.MESSAGE_MAX_BYTES, socket.CMSG_SPACE(len(SOCKETS) * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, piece in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(piece[: len(piece) - len(piece) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise ValueError("an order that is too long")
    return data, list(fds)


def prepare() -> None:
    """Become a process that can do little: no core, no new privileges, no rights of root."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for our parent, with whom we end
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = bound.OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, bound.OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_up_privileges(_NOBODY)


def main(fd: int) -> int:
    """Serve the channel behind this descriptor."""
    channel = socket.socket(fileno=fd)
    data, _ = _receive(channel)
    if not data:
        return 0
    begin = decode_order(data)
    if not isinstance(begin, Begin):
        return 2
    files = [HostsFile(path) for path in (begin.settings.hosts, SYSTEM_HOSTS) if path]
    prepare()
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(channel, Names(files, begin.settings.resolvers), begin.settings.rest_s))
    return 0


async def _serve(channel: socket.socket, names: Names, rest_s: float) -> None:
    await Process(channel, names, rest_s).run()
    sys.stderr.flush()
    os._exit(0)  # nothing of it is worth waiting for: whoever it served is gone
