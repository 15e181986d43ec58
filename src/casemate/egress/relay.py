"""Copying bytes both ways between two sockets, with one buffer for all connections and no task for any of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from casemate import network_limits as bound
from casemate.egress.bucket import Bucket
from casemate.egress.reading import Counted

_SCRATCH: Final = memoryview(bytearray(bound.COPY_BYTES))
"""What was read and has been passed on in the same breath; only what a slow reader leaves is kept elsewhere."""


class _Direction:
    """Bytes from one socket to the other."""

    def __init__(
        self,
        relay: Relay,
        source: socket.socket,
        target: socket.socket,
        bucket: Bucket | None,
        count: Callable[[int], None],
    ) -> None:
        self._relay = relay
        self._source = source
        self._target = target
        self._bucket = bucket
        self._count = count
        self._waiting = b""
        self._timer: asyncio.TimerHandle | None = None
        self._is_listening = False
        self.is_done = False

    def begin(self, data: bytes) -> None:
        """Pass on what was read already, then whatever comes."""
        if data:
            if self._bucket is not None:
                self._bucket.owe(len(data))
            self._pass_on(memoryview(data))
        self._listen()

    def _listen(self) -> None:
        if not (self._is_listening or self._waiting or self.is_done or self._relay.is_done):
            self._is_listening = True
            self._relay.loop.add_reader(self._source, self._readable)

    def _pause(self) -> None:
        if self._is_listening:
            self._is_listening = False
            self._relay.loop.remove_reader(self._source)

    def _readable(self) -> None:
        try:
            self._copy()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._relay.end(error)

    def _copy(self) -> None:
        room = self._room()
        if not room:
            return
        count = self._source.recv_into(_SCRATCH[:room])
        if self._bucket is not None:
            self._bucket.give_back(room - count)
        if count:
            self._pass_on(_SCRATCH[:count])
        else:
            self._finish()

    def _room(self) -> int:
        """How much may be read now; where nothing may, it goes on after a while."""
        if self._bucket is None:
            return self._relay.piece_bytes
        now_s = self._relay.loop.time()
        room = self._bucket.take(bound.PACED_COPY_BYTES, now_s)
        if not room:
            self._pause()
            self._timer = self._relay.loop.call_at(
                now_s + max(self._bucket.wait_s(bound.PACED_COPY_BYTES, now_s), 0.001), self._listen
            )
        return room

    def _pass_on(self, data: memoryview) -> None:
        self._relay.moved()
        self._count(len(data))
        sent = 0
        with suppress(BlockingIOError, InterruptedError):
            sent = self._target.send(data)
        if sent < len(data):
            self._waiting = bytes(data[sent:])
            self._pause()
            self._relay.loop.add_writer(self._target, self._writable)

    def _writable(self) -> None:
        try:
            sent = self._target.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._relay.end(error)
            return
        self._relay.moved()
        self._waiting = self._waiting[sent:]
        if not self._waiting:
            self._relay.loop.remove_writer(self._target)
            self._listen()

    def _finish(self) -> None:
        self.is_done = True
        self._pause()
        with suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)
        self._relay.one_is_done()

    def stop(self) -> None:
        self._pause()
        self._relay.loop.remove_writer(self._target)
        if self._timer is not None:
            self._timer.cancel()


class Relay:
    """Both directions of one connection, until both have ended, one fails, or nothing moves for long."""

    def __init__(self, client: socket.socket, server: socket.socket, counted: Counted) -> None:
        self.loop = asyncio.get_running_loop()
        self._counted = counted
        self._ended: asyncio.Future[None] = self.loop.create_future()
        totals = counted.totals
        self._up = _Direction(self, client, server, totals.up, counted.sent)
        self._down = _Direction(self, server, client, totals.down, counted.received)
        self._moved_s = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_done(self) -> bool:
        return self._ended.done()

    @property
    def piece_bytes(self) -> int:
        """What is read at once."""
        return self._counted.totals.piece_bytes

    async def run(self, *, up: bytes = b"", down: bytes = b"") -> None:
        """Copy, first what was read already. Raises OSError, of which TimeoutError is one."""
        try:
            self._watch()
            self._up.begin(up)
            self._down.begin(down)
            await self._ended
        finally:
            self._ended.cancel()
            self._up.stop()
            self._down.stop()
            if self._timer is not None:
                self._timer.cancel()

    def moved(self) -> None:
        """Something went through. Too much of it ends the connection."""
        self._moved_s = self.loop.time()
        if self._counted.totals.left_bytes < 0:
            self.end(OSError("more went through than the limit"))

    def end(self, error: OSError) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def one_is_done(self) -> None:
        if self._up.is_done and self._down.is_done and not self._ended.done():
            self._ended.set_result(None)

    def _watch(self) -> None:
        """Look now and then whether anything has moved; a timer a connection that is seldom set anew."""
        left_s = self._moved_s + bound.IDLE_TIMEOUT_S - self.loop.time()
        if left_s <= 0:
            self.end(TimeoutError("nothing moved for long"))
        else:
            self._timer = self.loop.call_later(left_s, self._watch)
