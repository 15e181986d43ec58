"""An HTTP proxy over a listening socket inside a sandbox: the only way out of it, and only to what a policy allows.

It runs in the engine's process: one thread takes connections, one more serves each. A name is resolved once, what it
resolves to is checked, and that very address is connected to. Names and addresses of every attempt are recorded.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Final, Self

import msgspec

from casemate import limits
from casemate.egress.request import HEAD_END, BadRequest, ProxyRequest, parse_request
from casemate.egress.rules import Policy, reachable
from casemate.model.flow import Flow

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
UNREACHABLE: Final = 502
_WORDS: Final = {BAD_REQUEST: "Bad Request", FORBIDDEN: "Forbidden", UNREACHABLE: "Bad Gateway"}

Resolve = Callable[[str, int], Iterable[str]]


class _Refused(Exception):
    """The client gets this status and the problem as text."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the machine resolves it."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Proxy:
    """Serves one listening socket, which it takes over, from `with` to its end."""

    def __init__(self, listener: socket.socket, policy: Policy, resolve: Resolve = resolve) -> None:
        self._listener = listener
        self._policy = policy
        self._resolve = resolve
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(limits.EGRESS_CONNECTIONS_MAX)
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._flows: list[Flow] = []
        self._left_bytes = limits.EGRESS_TOTAL_MAX_BYTES
        self._ended = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name="casemate-egress", daemon=True)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """What was attempted so far, in the order in which it ended."""
        with self._lock:
            return tuple(self._flows)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection and wait for the threads. Idempotent and bounded in time."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._wake.close()
        deadline_s = time.monotonic() + limits.EGRESS_CLOSE_TIMEOUT_S
        self._hang_up()
        self._acceptor.join(limits.EGRESS_CLOSE_TIMEOUT_S)
        for thread in self._hang_up():  # once more: one may have been taken meanwhile
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self._woken.close()
        self._listener.close()

    def _hang_up(self) -> list[threading.Thread]:
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            return list(self._threads)

    def _accept(self) -> None:
        while self._woken not in _readable([self._listener, self._woken], None):
            # The kernel keeps the others waiting, a bounded number of them.
            if not self._room.acquire(timeout=limits.EGRESS_IDLE_TIMEOUT_S) or self._ended.is_set():
                continue
            self._take()

    def _take(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            self._room.release()
            return
        thread = threading.Thread(target=self._serve, args=(client,), name="casemate-flow", daemon=True)
        with self._lock:
            self._open.add(client)
            self._threads.add(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                self._answer(client)
        finally:
            with self._lock:
                self._open.discard(client)
                self._threads.discard(threading.current_thread())
            self._room.release()

    def _answer(self, client: socket.socket) -> None:
        started_s = time.monotonic()
        flow = Flow(host="", port=0, allowed=False)
        with ExitStack() as stack:
            try:
                request, rest = self._request(client)
                flow = msgspec.structs.replace(flow, host=request.host, port=request.port)
                addresses = self._allowed(request)
                server, address = self._connected(addresses, request.port)
                self._keep(server, stack)
                flow = msgspec.structs.replace(flow, allowed=True, address=address)
                sent, received = self._relay(client, server, request, rest)
                flow = msgspec.structs.replace(flow, sent_bytes=sent, received_bytes=received)
            except _Refused as refused:
                allowed = refused.status == UNREACHABLE
                flow = msgspec.structs.replace(flow, allowed=allowed, problem=str(refused))
                _say(client, refused)
            except OSError as error:
                flow = msgspec.structs.replace(flow, problem=error.strerror or str(error))
        self._record(msgspec.structs.replace(flow, wall_s=time.monotonic() - started_s))

    def _request(self, client: socket.socket) -> tuple[ProxyRequest, bytes]:
        """The request, and what the client has sent behind its head."""
        deadline_s = time.monotonic() + limits.EGRESS_REQUEST_TIMEOUT_S
        data = b""
        while HEAD_END not in data:
            client.settimeout(max(0.001, deadline_s - time.monotonic()))
            piece = client.recv(limits.EGRESS_HEAD_MAX_BYTES)
            data += piece
            if not piece or (HEAD_END not in data and len(data) > limits.EGRESS_HEAD_MAX_BYTES):
                raise _Refused(BAD_REQUEST, "no HTTP request")
        head, _, rest = data.partition(HEAD_END)
        try:
            return parse_request(head), rest
        except BadRequest as error:
            raise _Refused(BAD_REQUEST, str(error)) from error

    def _allowed(self, request: ProxyRequest) -> list[str]:
        rule = self._policy.rule_for(request.host, request.port)
        if rule is None:
            raise _Refused(FORBIDDEN, f"{request.host}:{request.port} is not allowed")
        try:
            addresses = list(self._resolve(request.host, request.port))
        except OSError as error:
            raise _Refused(UNREACHABLE, f"{request.host} has no address: {error.strerror}") from error
        found = reachable(rule, addresses)
        if not found:
            raise _Refused(FORBIDDEN, f"{request.host} leads to an address that is not public")
        return found

    def _connected(self, addresses: list[str], port: int) -> tuple[socket.socket, str]:
        problem = ""
        for address in addresses:
            try:
                return socket.create_connection((address, port), limits.EGRESS_CONNECT_TIMEOUT_S), address
            except OSError as error:
                problem = f"{address} cannot be reached: {error.strerror or error}"
        raise _Refused(UNREACHABLE, problem)

    def _keep(self, server: socket.socket, stack: ExitStack) -> None:
        stack.enter_context(server)
        stack.callback(self._forget, server)
        with self._lock:
            self._open.add(server)
        if self._ended.is_set():
            raise _Refused(UNREACHABLE, "the sandbox has ended")

    def _forget(self, server: socket.socket) -> None:
        with self._lock:
            self._open.discard(server)

    def _relay(
        self, client: socket.socket, server: socket.socket, request: ProxyRequest, rest: bytes
    ) -> tuple[int, int]:
        """Bytes both ways until both ends are done. Of a plain request nothing follows the head."""
        for each in (client, server):
            each.settimeout(limits.EGRESS_IDLE_TIMEOUT_S)
        if request.head:
            server.sendall(request.head)
            return len(request.head), self._copied({server: client})[server]
        client.sendall(ESTABLISHED)
        server.sendall(rest)
        copied = self._copied({client: server, server: client})
        return copied[client] + len(rest), copied[server]

    def _copied(self, ways: dict[socket.socket, socket.socket]) -> dict[socket.socket, int]:
        """How much went each way, until every source has ended, nothing comes for long, or too much came."""
        counts = dict.fromkeys(ways, 0)
        pending = set(ways)
        while pending:
            ready = _readable(pending, limits.EGRESS_IDLE_TIMEOUT_S)
            if not ready:
                break
            for source in ready:
                data = source.recv(limits.READ_CHUNK_BYTES)
                counts[source] += len(data)
                if not data:
                    pending.discard(source)
                    with suppress(OSError):
                        ways[source].shutdown(socket.SHUT_WR)
                elif self._spend(len(data)):
                    ways[source].sendall(data)
                else:
                    return counts
        return counts

    def _spend(self, count: int) -> bool:
        with self._lock:
            self._left_bytes -= count
            return self._left_bytes >= 0

    def _record(self, flow: Flow) -> None:
        with self._lock:
            if len(self._flows) < limits.EGRESS_FLOWS_MAX:
                self._flows.append(flow)


def _readable(sockets: Iterable[socket.socket], timeout_s: float | None) -> list[socket.socket]:
    """Those with something to read; unlike `select` it knows descriptors of any number."""
    numbers = {each.fileno(): each for each in sockets}
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    return [numbers[number] for number, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


def _say(client: socket.socket, refused: _Refused) -> None:
    body = f"{refused}\n".encode("ascii", "replace")
    head = f"HTTP/1.1 {refused.status} {_WORDS[refused.status]}\r\nContent-Length: {len(body)}\r\nConnection: close"
    with suppress(OSError):
        client.sendall(head.encode() + HEAD_END + body)
