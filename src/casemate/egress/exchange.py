"""Plain HTTP between a client and servers: every request judged anew, every message parsed and written anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias

import h11

from casemate import network_limits as bound
from casemate.egress.attempt import Attempt
from casemate.egress.connecting import Unreachable
from casemate.egress.http import CONNECT, Wanted, incoming, outgoing, place_of, read_request
from casemate.egress.judge import Place, Reason, Refused, judge_request
from casemate.egress.policy import Rules
from casemate.egress.reading import Paced, Stream, Totals, granted
from casemate.egress.relay import Relay
from casemate.model.network import NetworkPolicy

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_UNREACHABLE: Final = 502
_SWITCHING: Final = 101
_OK: Final = 200

Answer: TypeAlias = h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage


class Outlet(Protocol):
    """What a connection needs of the way that it belongs to."""

    @property
    def policy(self) -> NetworkPolicy: ...

    @property
    def rules(self) -> Rules: ...

    def attempt(self, protocol: str, *, host: str = "", port: int = 0) -> Attempt: ...

    @property
    def totals(self) -> Totals: ...

    def record(self, attempt: Attempt) -> None: ...

    async def connect(self, attempt: Attempt, host: str, preferred: str = "") -> Paced:
        """Connect to an allowed host on the port of the attempt. Raises Refused and Unreachable."""


class Upstream:
    """A connection to a server that requests of one host go to."""

    def __init__(self, wanted: Wanted, host: str, stream: Paced, attempt: Attempt) -> None:
        self.host = host
        self.goes_to = (wanted.host, wanted.port)
        self.stream = stream
        self.attempt = attempt
        self.conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=bound.HEAD_MAX_BYTES)

    def is_for(self, wanted: Wanted) -> bool:
        """Whether a further request may go over it."""
        done = self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE
        return done and self.goes_to == (wanted.host, wanted.port)

    async def send(self, event: h11.Event) -> None:
        data = self.conn.send(event)
        if data:
            await self.stream.write(data)

    async def next(self) -> Answer:
        """Raises h11.RemoteProtocolError for anything but an answer."""
        while True:
            event = self.conn.next_event()
            if event is h11.NEED_DATA:
                self.conn.receive_data(await self.stream.read(bound.IDLE_TIMEOUT_S))
            elif isinstance(event, Answer):
                return event
            else:
                raise h11.RemoteProtocolError("the server has hung up")


class Exchanges:
    """The requests of one connection, one after the other. `place`: where it goes already; None for the proxy."""

    def __init__(
        self,
        outlet: Outlet,
        client: Stream,
        place: Place | None,
        tunnel: Callable[[Place, Attempt], Awaitable[None]] | None = None,
    ) -> None:
        self._outlet = outlet
        self._client = client
        self._place = place
        self._tunnel = tunnel
        self._conn = h11.Connection(h11.SERVER, max_incomplete_event_size=bound.HEAD_MAX_BYTES)
        self._upstream: Upstream | None = None

    async def run(self) -> None:
        """Until the client ends, or what it says must not go on. Raises OSError where it is gone."""
        try:
            wait_s = bound.HEAD_TIMEOUT_S
            while await self._serve_one(wait_s):
                self._conn.start_next_cycle()
                wait_s = bound.IDLE_TIMEOUT_S
        finally:
            self._leave_upstream()

    async def _serve_one(self, wait_s: float) -> bool:
        """Whether there may be one more."""
        attempt = self._outlet.attempt("http", host=self._place.shown if self._place else "")
        attempt.port = self._place.port if self._place else 0
        try:
            request = await self._request(wait_s)
            if request is None:
                return False
            await granted(self._outlet.totals.requests, 1, asyncio.get_running_loop().time)
            wanted = read_request(request, self._place)
            attempt.host, attempt.port = wanted.host, wanted.port
            if wanted.method == CONNECT:
                await self._connect(wanted, attempt)
                return False
            upstream = await self._upstream_for(wanted, attempt)
        except (Refused, Unreachable, h11.RemoteProtocolError) as error:
            await self._say(attempt, _as_refused(error))
            return False
        try:
            return await self._exchange(upstream, request, wanted)
        except (OSError, h11.RemoteProtocolError) as error:
            upstream.attempt.went_wrong(error)
            raise

    async def _request(self, wait_s: float) -> h11.Request | None:
        """The head of the next request; None where the client has ended."""
        async with asyncio.timeout(wait_s) as deadline:
            while (event := self._conn.next_event()) is h11.NEED_DATA:
                data = await self._client.read(wait_s, bound.HEAD_MAX_BYTES)
                deadline.reschedule(min(deadline.when() or 0, asyncio.get_running_loop().time() + bound.HEAD_TIMEOUT_S))
                self._conn.receive_data(data)
        if isinstance(event, h11.Request):
            return event
        return None

    async def _upstream_for(self, wanted: Wanted, attempt: Attempt) -> Upstream:
        host = self._judged(wanted)
        if self._upstream is not None and self._upstream.is_for(wanted):
            self._upstream.conn.start_next_cycle()
            return self._upstream
        self._leave_upstream()
        attempt.allowed = True
        stream = await self._outlet.connect(attempt, host, self._place.address if self._place else "")
        self._upstream = Upstream(wanted, host, stream, attempt)
        return self._upstream

    def _judged(self, wanted: Wanted) -> str:
        place = self._place or place_of(wanted)
        if not self._outlet.rules.opens(wanted.port):
            raise Refused(Reason.PORT, f"port {wanted.port} is not allowed")
        return judge_request(self._outlet.rules, place, wanted.host)

    async def _connect(self, wanted: Wanted, attempt: Attempt) -> None:
        attempt.protocol = "connect"
        place = place_of(wanted)
        if self._tunnel is None:
            raise Refused(Reason.PROTOCOL, "CONNECT inside a connection")
        self._judged(wanted)
        attempt.allowed = True
        await self._tunnel(place, attempt)

    async def established(self) -> bytes:
        """Tell the client that its tunnel is there; what it has sent already."""
        await self._client.write(
            self._conn.send(h11.Response(status_code=_OK, headers=[], reason=b"Connection established")) or b""
        )
        return self._conn.trailing_data[0]

    async def _exchange(self, upstream: Upstream, request: h11.Request, wanted: Wanted) -> bool:
        await upstream.send(outgoing(request, wanted, self._outlet.policy, upstream.host))
        body = asyncio.create_task(self._send_body(upstream))
        try:
            switched = await self._send_answer(upstream)
            if not switched:  # an answer may come before the body has gone, and stay the only one
                await asyncio.wait({body}, timeout=bound.BODY_AFTER_ANSWER_S)
        finally:
            was_sent = body.done() and not body.cancelled() and body.exception() is None
            body.cancel()
            with suppress(asyncio.CancelledError, OSError, h11.ProtocolError):
                await body
        if switched:
            await self._switch(upstream)
            return False
        return was_sent and self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE

    async def _send_body(self, upstream: Upstream) -> None:
        while True:
            await asyncio.sleep(0)  # what can be read and written at once lets nobody else have a turn
            event = self._conn.next_event()
            if event is h11.NEED_DATA:
                self._conn.receive_data(await self._client.read(bound.IDLE_TIMEOUT_S, self._outlet.totals.piece_bytes))
            elif isinstance(event, h11.Data):
                await upstream.send(h11.Data(data=bytes(event.data)))
            elif isinstance(event, h11.EndOfMessage):
                await upstream.send(h11.EndOfMessage())
                return
            else:
                raise h11.RemoteProtocolError("the client has hung up")

    async def _send_answer(self, upstream: Upstream) -> bool:
        """Whether both have gone over to another protocol."""
        while True:
            await asyncio.sleep(0)
            event = await upstream.next()
            if isinstance(event, h11.InformationalResponse):
                answer: h11.Event = h11.InformationalResponse(
                    status_code=event.status_code, headers=incoming(event), reason=event.reason
                )
            elif isinstance(event, h11.Response):
                answer = h11.Response(status_code=event.status_code, headers=incoming(event), reason=event.reason)
            else:
                answer = h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event
            await self._client.write(self._conn.send(answer) or b"")
            if isinstance(event, h11.EndOfMessage):
                return False
            if isinstance(event, h11.InformationalResponse) and event.status_code == _SWITCHING:
                return True

    async def _switch(self, upstream: Upstream) -> None:
        relay = Relay(self._client.sock, upstream.stream.sock, upstream.attempt.counted)
        up, down = self._conn.trailing_data[0], upstream.conn.trailing_data[0]
        await relay.run(up=up + self._client.take_ready(), down=down)

    async def _say(self, attempt: Attempt, refused: tuple[int, Exception]) -> None:
        """Answer with a problem, and hang up."""
        status, error = refused
        attempt.went_wrong(error)
        self._outlet.record(attempt)
        if self._conn.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = f"{error}\n".encode("ascii", "replace")
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
        with suppress(h11.LocalProtocolError):
            answer = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
            data = self._conn.send(answer) or b""
            await self._client.write(data + (self._conn.send(h11.Data(data=body)) or b""))

    def _leave_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.stream.close()
            self._outlet.record(self._upstream.attempt)
            self._upstream = None


def _as_refused(error: Exception) -> tuple[int, Exception]:
    if isinstance(error, h11.RemoteProtocolError):
        return _BAD_REQUEST, Refused(Reason.MALFORMED, f"a malformed request: {error}")
    if isinstance(error, Refused):
        return (_BAD_REQUEST if error.reason is Reason.MALFORMED else _FORBIDDEN), error
    return _UNREACHABLE, error
