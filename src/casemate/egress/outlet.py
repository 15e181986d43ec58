"""One way out, inside the gateway: five sockets of a sandbox, and every connection that comes over them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import h11

from casemate import network_limits as bound
from casemate.egress.attempt import Attempt
from casemate.egress.bucket import Bucket
from casemate.egress.connecting import Connector, Unreachable
from casemate.egress.exchange import Exchanges
from casemate.egress.judge import Place, Reason, Refused, judge, may_be_raw, precheck
from casemate.egress.lookups import Lookups
from casemate.egress.names import Names
from casemate.egress.policy import WEB_PORTS, Rules, address_of
from casemate.egress.reading import Paced, Stream, Totals
from casemate.egress.relay import Relay
from casemate.egress.sniff import Kind, Seen, settle, sniff
from casemate.egress.wire import Closed
from casemate.model.flow import Flow
from casemate.model.network import NetworkPolicy

_ACCESS_DENIED: Final = bytes.fromhex("15030100020231")
"""A TLS alert: the client says what happened, and not that its connection was lost."""

Destination = Callable[[socket.socket], tuple[str, int]]


def original_destination(sock: socket.socket) -> tuple[str, int]:
    """Where a connection was to go: the listening socket is transparent, so that is the connection's own end.

    Whoever connects to the socket itself has asked for an address that is none of the public Internet.
    """
    address, port = sock.getsockname()[:2]
    return str(address_of(address)), port


class Way:
    """Serves from `begin` to `close`. Everything that it has made ends with it."""

    def __init__(
        self,
        number: int,
        policy: NetworkPolicy,
        names: Names,
        tell: Callable[[int, Flow], bool],
        destination: Destination = original_destination,
    ) -> None:
        self.policy = policy
        self.rules = Rules(policy)
        self._number = number
        self._tell = tell
        self._destination = destination
        self._loop = asyncio.get_running_loop()
        self._totals = self.totals = Totals(policy.bandwidth_bytes_per_s, self._loop.time())
        self._beginnings = Bucket(bound.WAY_CONNECTIONS_PER_S, bound.WAY_CONNECTIONS_BURST, self._loop.time())
        self._connector = Connector(self.rules, names, self._loop.time())
        self._lookups = Lookups(self.rules, self._connector, self._totals, self._note)
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting = 0
        self._listeners: list[socket.socket] = []
        self._told = 0
        self._untold = 0

    def begin(self, sockets: Mapping[str, socket.socket]) -> None:
        """Serve them, by what they are for; they are ours from now on."""
        self._listeners = list(sockets.values())
        for listener in self._listeners:
            listener.setblocking(False)  # noqa: FBT003 - the method's own form
        served = {"tcp": self._serve_redirected, "tcp6": self._serve_redirected}
        served |= {"dns_tcp": self._serve_questions, "proxy": self._serve_proxy}
        for name, listener in sockets.items():
            if name in served:
                self._listen(listener, served[name])
            else:
                self._lookups.serve(listener)

    async def close(self) -> Closed:
        """End everything. Idempotent."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        self._lookups.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=bound.CLOSE_TIMEOUT_S / 2)
        totals = self._totals
        return Closed(self._number, totals.sent_bytes, totals.received_bytes, self._untold)

    # What connections use ----------------------------------------------------------------------------

    def attempt(self, protocol: str, *, host: str = "", port: int = 0) -> Attempt:
        return Attempt(self._totals, protocol, host=host, port=port)

    def record(self, attempt: Attempt) -> None:
        self._note(attempt.flow())

    def _note(self, flow: Flow) -> None:
        self._told += 1
        if self._told > bound.WAY_FLOWS_MAX or not self._tell(self._number, flow):
            self._untold += 1

    async def connect(self, attempt: Attempt, host: str, preferred: str = "") -> Paced:
        """Connect to a host that a rule allows. Raises Refused and Unreachable."""
        if self._connecting >= bound.WAY_CONNECTING_MAX:
            raise Refused(Reason.LIMIT, "too many connections at once")
        self._connecting += 1
        try:
            sock, attempt.address = await self._connector.connect(host, attempt.port, preferred)
        finally:
            self._connecting -= 1
        return Paced(sock, attempt.counted)

    # Connections --------------------------------------------------------------------------------------

    def _listen(self, listener: socket.socket, serve: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
        self._loop.add_reader(listener, self._accept, listener, serve)

    def _accept(self, listener: socket.socket, serve: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
        for _ in range(bound.ACCEPTED_AT_ONCE):
            if not self._beginnings.take(1, self._loop.time()):
                self._rest(listener, serve, self._beginnings.wait_s(1, self._loop.time()))
                return
            try:
                client, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    self._rest(listener, serve, 1.0)
                    return
                continue  # the client is gone already
            self._take(client, serve)

    def _rest(
        self, listener: socket.socket, serve: Callable[[Stream], Coroutine[Any, Any, None]], wait_s: float
    ) -> None:
        """There is no descriptor for one more, or too many have come: the kernel keeps whoever waits."""
        self._loop.remove_reader(listener)
        self._loop.call_later(wait_s, lambda: self._listen(listener, serve) if listener in self._listeners else None)

    def _take(self, client: socket.socket, serve: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
        client.setblocking(False)  # noqa: FBT003 - the method's own form
        stream = Stream(client)
        if len(self._tasks) >= bound.WAY_CONNECTIONS_MAX:
            attempt = self.attempt("tcp")
            attempt.refuse(Reason.LIMIT, "too many connections at once")
            self.record(attempt)
            stream.close(reset=True)
            return
        with suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(self._serve(stream, serve))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._totals.connections = len(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._totals.connections = len(self._tasks)

    async def _serve(self, client: Stream, serve: Callable[[Stream], Coroutine[Any, Any, None]]) -> None:
        """Whatever happens to a connection, it ends with it and harms no other."""
        is_well = False
        try:
            await serve(client)
            is_well = True
        except (OSError, h11.ProtocolError):  # the client is gone, or says what is no HTTP
            return
        finally:
            client.close(reset=not is_well)

    async def _serve_questions(self, client: Stream) -> None:
        await self._lookups.serve_stream(client)

    async def _serve_proxy(self, client: Stream) -> None:
        exchanges: Exchanges

        async def tunnel(place: Place, attempt: Attempt) -> None:
            server = await self.connect(attempt, place.shown)
            try:
                client.unread(await exchanges.established())
                await self._carry(client, place, attempt, server)
            finally:
                server.close()

        exchanges = Exchanges(self, client, None, tunnel)
        await exchanges.run()

    async def _serve_redirected(self, client: Stream) -> None:
        address, port = self._destination(client.sock)
        place = Place(port=port, address=address, told=self._lookups.told(address))
        await self._carry(client, place, self.attempt("tcp", host=address, port=port), None)

    async def _carry(self, client: Stream, place: Place, attempt: Attempt, server: Paced | None) -> None:
        """Find out what a connection is, and let it go on as that; `server` is there already for a tunnel."""
        seen = Seen(Kind.MORE)
        try:
            precheck(self.rules, place)
            seen = await self._sniffed(client, place)
            if seen.kind is Kind.HTTP:
                await self._exchange(client, place)
                return
            attempt.protocol = attempt.protocol if server or seen.kind is not Kind.TLS else "tls"
            attempt.host = seen.name or place.host or next(iter(place.told), "") or place.address
            attempt.host = host = judge(self.rules, place, seen)
            attempt.allowed = True
            stream = server or await self.connect(attempt, host, place.address)
            await self._relay(client, stream, attempt)
        except (Refused, Unreachable, OSError) as error:
            if isinstance(error, Refused) and error.reason is Reason.PROTOCOL and client.is_silent:
                attempt.allowed = True  # the host is; it was only looked whether it is there
                error = Unreachable("nothing was sent")
            attempt.went_wrong(error)
            await self._turn_away(client, seen)
        finally:  # also when all is closed
            if seen.kind is not Kind.HTTP:
                self.record(attempt)

    async def _exchange(self, client: Stream, place: Place) -> None:
        await Exchanges(self, client, place).run()

    async def _relay(self, client: Stream, server: Paced, attempt: Attempt) -> None:
        try:
            await Relay(client.sock, server.sock, attempt.counted).run(up=client.take_ready())
        finally:
            server.close()

    async def _sniffed(self, client: Stream, place: Place) -> Seen:
        """What the first bytes are; they stay in front of the stream."""
        data, raw = b"", may_be_raw(self.rules, place)
        waits = raw and place.port not in WEB_PORTS  # there a client speaks first
        try:
            async with asyncio.timeout(bound.SILENCE_S if waits else bound.HEAD_TIMEOUT_S):
                while (seen := sniff(data, raw=raw)).kind is Kind.MORE:
                    piece = await self._more(client, seen.needs - len(data))
                    if not piece:
                        break
                    data += piece
        except TimeoutError:
            if not waits:
                raise
            seen = Seen(Kind.MORE)
        client.unread(data)
        return settle(data) if seen.kind is Kind.MORE else seen

    async def _more(self, client: Stream, least: int) -> bytes:
        """At least so many bytes; fewer at the end, or where a byte may say something."""
        data = b""
        try:
            while piece := await client.read(bound.HEAD_TIMEOUT_S, bound.HELLO_MAX_BYTES):
                data += piece
                if len(data) >= least:
                    break
        except asyncio.CancelledError:  # there is no more time: what has come is not lost
            client.unread(data)
            raise
        return data

    async def _turn_away(self, client: Stream, seen: Seen) -> None:
        if seen.kind is Kind.TLS:
            with suppress(OSError):
                await client.write(_ACCESS_DENIED)
                return
        client.close(reset=True)
