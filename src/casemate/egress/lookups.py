"""The names that one sandbox asks for: over UDP and TCP, bounded, and remembered by the address that was told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from casemate import network_limits as bound
from casemate.egress.attempt import Attempt
from casemate.egress.bucket import Bucket
from casemate.egress.connecting import Connector, Unreachable
from casemate.egress.dns import Question, answer, read_question, refusal
from casemate.egress.judge import Reason, Refused
from casemate.egress.policy import Rules, address_of
from casemate.egress.reading import Stream, Totals, granted
from casemate.model.flow import Flow

DNS_PORT = 53
_SIZE_BYTES = 2


class Lookups:
    """Serves the DNS of one sandbox."""

    def __init__(self, rules: Rules, connector: Connector, totals: Totals, note: Callable[[Flow], None]) -> None:
        self._rules = rules
        self._totals = totals
        self._connector = connector
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, dict[str, None]] = {}
        self._noted: dict[str, None] = {}
        self._questions = Bucket(bound.DNS_QUESTIONS_PER_S, bound.DNS_QUESTIONS_BURST, self._loop.time())

    def told(self, address: str) -> tuple[str, ...]:
        """The names for which the sandbox was told this address, the last one first."""
        return tuple(reversed(self._told.get(address, ())))

    def serve(self, sock: socket.socket) -> None:
        """Answer the datagrams of a socket, until `close`."""
        self._sock = sock
        self._loop.add_reader(sock, self._readable, sock)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(bound.ACCEPTED_AT_ONCE):
            try:
                data, sender = sock.recvfrom(bound.DNS_MESSAGE_MAX_BYTES + 1)
            except OSError:
                return
            is_read = len(self._tasks) < bound.DNS_WAITING_MAX and self._questions.take(1, self._loop.time())
            if is_read:  # whoever asks too much at once asks again
                task = asyncio.create_task(self._reply(sock, data, sender))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _reply(self, sock: socket.socket, data: bytes, sender: object) -> None:
        found = await self.answer(data)
        if found:
            with suppress(OSError):
                sock.sendto(found, sender)  # type: ignore[call-overload]

    async def serve_stream(self, client: Stream) -> None:
        """Answer the questions of a connection, one after the other."""
        for _ in range(bound.DNS_TCP_QUESTIONS_MAX):
            async with asyncio.timeout(bound.HEAD_TIMEOUT_S):
                size = int.from_bytes(await _exactly(client, _SIZE_BYTES), "big")
                data = await _exactly(client, size)
            await granted(self._questions, 1, self._loop.time)
            found = await self.answer(data) if data else b""
            if not found:
                return
            await client.write(len(found).to_bytes(_SIZE_BYTES, "big") + found)

    async def answer(self, data: bytes) -> bytes:
        """The bytes to answer with, or none."""
        question = read_question(data)
        if question is None:
            return b""
        try:
            addresses = await self._addresses(question)
        except Refused as error:
            self._remember(question, error)
            return refusal(question, exists=error.reason is Reason.LIMIT)
        except Unreachable as error:
            self._remember(question, error)
            return refusal(question)
        for address in addresses:
            self._tell(str(address_of(address)), question.name)
        return answer(question, addresses)

    async def _addresses(self, question: Question) -> list[str]:
        grant = self._rules.allows(question.name, None)
        if grant is None or address_of(question.name) is not None:
            raise Refused(Reason.HOST, f"{question.name or 'what is no name'} is not allowed")
        return await self._connector.admitted(question.name) if question.version else []

    def _tell(self, address: str, name: str) -> None:
        names = self._told.pop(address, {})
        names.pop(name, None)
        names[name] = None
        self._told[address] = dict(list(names.items())[-bound.ADDRESSES_MAX :])
        while len(self._told) > bound.NAMES_KEPT_MAX:
            del self._told[next(iter(self._told))]

    def _remember(self, question: Question, error: Exception) -> None:
        """Record what was refused or not found, each name once."""
        if question.name in self._noted or len(self._noted) >= bound.NAMES_KEPT_MAX:
            return
        self._noted[question.name] = None
        attempt = Attempt(self._totals, "dns", host=question.name, port=DNS_PORT)
        attempt.allowed = True
        attempt.went_wrong(error)
        self._note(attempt.flow())


async def _exactly(client: Stream, count: int) -> bytes:
    """So many bytes; none where the client has ended."""
    data = b""
    while len(data) < count:
        piece = await client.read(bound.HEAD_TIMEOUT_S, count - len(data))
        if not piece:
            return b""
        data += piece
    return data
