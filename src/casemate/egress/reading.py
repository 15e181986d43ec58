"""A socket that is read and written with deadlines, and whose bytes are counted and paced on their way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from casemate import network_limits as bound
from casemate.egress.bucket import Bucket

_AT_ONCE: Final = struct.pack("ii", 1, 0)


class Totals:
    """What goes through one way: counted, paced by its bandwidth, and never more than the bound."""

    def __init__(self, bandwidth: int | None, now_s: float) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.connections = 0
        self.requests = Bucket(bound.WAY_REQUESTS_PER_S, bound.WAY_REQUESTS_BURST, now_s)
        rate = bandwidth
        self.up = Bucket(rate, max(rate / 4, bound.BANDWIDTH_MIN_BYTES_PER_S), now_s) if rate else None
        self.down = Bucket(rate, max(rate / 4, bound.BANDWIDTH_MIN_BYTES_PER_S), now_s) if rate else None

    @property
    def piece_bytes(self) -> int:
        """What one connection reads at once: the less, the more there are, for all of it may have to wait here."""
        share = bound.WAY_WAITING_MAX_BYTES // max(1, self.connections)
        return max(bound.COPY_MIN_BYTES, min(bound.COPY_BYTES, share))

    @property
    def left_bytes(self) -> int:
        return bound.WAY_TOTAL_MAX_BYTES - self.sent_bytes - self.received_bytes


class Counted:
    """How much one flow has carried; adds to the totals of its way."""

    def __init__(self, totals: Totals) -> None:
        self.totals = totals
        self.sent_bytes = 0
        self.received_bytes = 0

    def sent(self, count: int) -> None:
        self.sent_bytes += count
        self.totals.sent_bytes += count

    def received(self, count: int) -> None:
        self.received_bytes += count
        self.totals.received_bytes += count


class Stream:
    """One end of a connection. Raises TimeoutError where the other does not move, OSError where it is gone."""

    def __init__(self, sock: socket.socket, ready: bytes = b"") -> None:
        self.sock = sock
        self._ready = ready
        self._loop = asyncio.get_running_loop()

    async def read(self, timeout_s: float, most: int = bound.COPY_BYTES) -> bytes:
        """Bytes as they come; none at the end."""
        if self._ready:
            found, self._ready = self._ready, b""
            return found
        async with asyncio.timeout(timeout_s):
            return await self._loop.sock_recv(self.sock, most)

    def unread(self, data: bytes) -> None:
        """Put bytes back in front."""
        self._ready = data + self._ready

    @property
    def is_silent(self) -> bool:
        """Whether nothing was put back."""
        return not self._ready

    def take_ready(self) -> bytes:
        """The bytes that were put back."""
        found, self._ready = self._ready, b""
        return found

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(bound.IDLE_TIMEOUT_S):
            await self._loop.sock_sendall(self.sock, data)

    def close(self, *, reset: bool = False) -> None:
        """Close it; with `reset` so that the other end learns that something went wrong."""
        if reset:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.sock.close()


class Paced(Stream):
    """The end towards a server: what is written to it was sent, what is read from it was received."""

    def __init__(self, sock: socket.socket, counted: Counted) -> None:
        super().__init__(sock)
        self._counted = counted

    async def read(self, timeout_s: float, most: int = bound.COPY_BYTES) -> bytes:
        bucket = self._counted.totals.down
        count = await granted(bucket, min(most, self._counted.totals.piece_bytes), self._loop.time)
        found = await super().read(timeout_s, count)
        if bucket is not None:
            bucket.give_back(count - len(found))
        self._counted.received(len(found))
        return found

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = await granted(self._counted.totals.up, len(view), self._loop.time)
            await super().write(bytes(view[:count]) if count < len(data) else data)
            self._counted.sent(count)
            view = view[count:]


async def granted(bucket: Bucket | None, most: int, now_s: Callable[[], float]) -> int:
    """How many of `most` tokens there are, as soon as there is one."""
    if bucket is None:
        return most
    most = min(most, bound.PACED_COPY_BYTES)
    while True:
        found = bucket.take(most, now_s())
        if found:
            return found
        await asyncio.sleep(bucket.wait_s(most, now_s()))
