"""The proxy over a listening socket: what it lets through, what it refuses, and that it records both."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from casemate import limits
from casemate.egress.proxy import Proxy
from casemate.egress.rules import HostRule, Policy
from casemate.model.flow import Flow

TIMEOUT_S = 10.0
LOOPBACK = "127.0.0.1"

Start = Callable[..., Proxy]


class Server:
    """Answers each connection with what `answer` makes of its first bytes, and remembers those."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self.socket.getsockname()[1]
        self.got: list[bytes] = []
        self._answer = answer
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                data = client.recv(65536)
                self.got.append(data)
                client.sendall(self._answer(data))

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(lambda data: b"answer to " + data)
    yield found
    found.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a proxy whose names all resolve to loopback, or to what is given."""
    with ExitStack() as stack:

        def begin(*rules: HostRule, addresses: tuple[str, ...] = (LOOPBACK,)) -> Proxy:
            listener = socket.create_server((LOOPBACK, 0))
            listener.setblocking(False)
            proxy = Proxy(listener, Policy(rules), lambda *_: addresses)
            proxy.address = listener.getsockname()  # type: ignore[attr-defined]
            return stack.enter_context(proxy)

        yield begin


def talk(proxy: Proxy, *pieces: bytes) -> bytes:
    """Everything that comes back for these bytes, until the other side ends."""
    with socket.create_connection(proxy.address, TIMEOUT_S) as client:  # type: ignore[attr-defined]
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def flow_of(proxy: Proxy) -> Flow:
    proxy.close()
    (flow,) = proxy.flows
    return flow


def test_a_tunnel_to_an_allowed_host_carries_bytes_both_ways(start: Start, server: Server) -> None:
    proxy = start(HostRule("index.example", server.port, anywhere=True))
    request = f"CONNECT index.example:{server.port} HTTP/1.1\r\n\r\n".encode()
    assert talk(proxy, request, b"hello") == b"HTTP/1.1 200 Connection established\r\n\r\nanswer to hello"
    flow = flow_of(proxy)
    assert (flow.host, flow.port, flow.allowed, flow.address, flow.problem) == (
        ("index.example", server.port, True, LOOPBACK, "")
    )
    assert (flow.sent_bytes, flow.received_bytes) == (5, len(b"answer to hello"))


def test_a_plain_request_reaches_an_allowed_host_without_what_follows_it(start: Start, server: Server) -> None:
    proxy = start(HostRule("index.example", server.port, anywhere=True))
    smuggled = b"GET http://other.example/ HTTP/1.1\r\n\r\n"
    answer = talk(proxy, f"GET http://index.example:{server.port}/x HTTP/1.1\r\n\r\n".encode(), smuggled)
    assert answer.startswith(b"answer to GET /x HTTP/1.1\r\n")
    assert b"other" not in b"".join(server.got)


@pytest.mark.parametrize(
    "target", ["other.example:443", "index.example:444", "sub.index.example:443", "127.0.0.1:443", "localhost:443"]
)
def test_what_no_rule_allows_is_refused_and_recorded(start: Start, target: str) -> None:
    proxy = start(HostRule("index.example", 443, anywhere=True))
    assert talk(proxy, f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 403 ")
    flow = flow_of(proxy)
    assert (f"{flow.host}:{flow.port}", flow.allowed, flow.address) == (target, False, "")
    assert "not allowed" in flow.problem


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "fd00:ec2::254", "::ffff:127.0.0.1"])
def test_a_name_that_leads_to_a_private_address_is_refused(start: Start, server: Server, address: str) -> None:
    proxy = start(HostRule("*.example", server.port), addresses=(address,))
    request = f"CONNECT rebound.example:{server.port} HTTP/1.1\r\n\r\n".encode()
    assert talk(proxy, request).startswith(b"HTTP/1.1 403 ")
    assert server.got == []
    assert "not public" in flow_of(proxy).problem


def test_a_server_that_is_not_there_is_said(start: Start) -> None:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
        proxy = start(HostRule("index.example", port, anywhere=True))
        assert talk(proxy, f"CONNECT index.example:{port} HTTP/1.1\r\n\r\n".encode()).startswith(b"HTTP/1.1 502 ")
        flow = flow_of(proxy)
    assert flow.allowed
    assert "cannot be reached" in flow.problem


@pytest.mark.parametrize("data", [b"", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000])
def test_what_is_no_request_is_refused(start: Start, data: bytes) -> None:
    proxy = start(HostRule("index.example", 443))
    try:
        assert talk(proxy, data).startswith(b"HTTP/1.1 400 ")
    except OSError:  # it has hung up on somebody who is still talking
        assert len(data) > limits.EGRESS_HEAD_MAX_BYTES
    assert not flow_of(proxy).allowed


def test_no_more_bytes_go_through_than_the_limit(start: Start, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EGRESS_TOTAL_MAX_BYTES", 3)
    proxy = start(HostRule("index.example", server.port, anywhere=True))
    answer = talk(proxy, f"CONNECT index.example:{server.port} HTTP/1.1\r\n\r\n".encode(), b"hello")
    assert b"answer" not in answer


def test_more_connections_than_the_limit_wait_for_their_turn(
    start: Start, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EGRESS_CONNECTIONS_MAX", 1)
    proxy = start(HostRule("index.example", server.port, anywhere=True))
    request = f"CONNECT index.example:{server.port} HTTP/1.1\r\n\r\n".encode()
    with socket.create_connection(proxy.address, TIMEOUT_S) as first:  # type: ignore[attr-defined]
        first.sendall(b"CONNECT ")
        results: list[bytes] = []
        second = threading.Thread(target=lambda: results.append(talk(proxy, request, b"second")))
        second.start()
        first.shutdown(socket.SHUT_RDWR)
        second.join(TIMEOUT_S)
    assert results[0].endswith(b"answer to second")


def test_closing_ends_open_connections(start: Start) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        port = silent.getsockname()[1]
        proxy = start(HostRule("index.example", port, anywhere=True))
        with socket.create_connection(proxy.address, TIMEOUT_S) as client:  # type: ignore[attr-defined]
            client.sendall(f"CONNECT index.example:{port} HTTP/1.1\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
            proxy.close()
            assert client.recv(100) == b""
    assert [flow.allowed for flow in proxy.flows] == [True]
    ours = {"casemate-egress", "casemate-flow"}
    assert [thread.name for thread in threading.enumerate() if thread.name in ours] == []


def test_nobody_can_connect_any_more_when_it_is_closed(start: Start) -> None:
    proxy = start()
    proxy.close()
    with pytest.raises(ConnectionError):
        talk(proxy, b"")
