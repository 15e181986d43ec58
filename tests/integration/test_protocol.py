"""Connections of clients that send without an end, or not at all, or take nothing: each is cut off."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from casemate import object_limits
from casemate import service_limits as limits
from casemate.api.protocol import BoundedProtocol

WAIT_S = 20.0
LARGE = b"x" * (64 << 20)
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    size = 0
    while scope["path"] != "/v1/objects/early" and (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    body = LARGE if scope["path"] == "/large" else str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A server whose patience is short."""
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.6)
    monkeypatch.setattr(limits, "TAKING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(object_limits, "UPLOAD_STEP_S", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=BoundedProtocol, lifespan="off", log_config=None, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(WAIT_S)
    listener.close()


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=WAIT_S) as connection:
        yield connection


def until_cut_off(client: socket.socket) -> bytes:
    """All that comes before the connection ends; it must end before the client loses its patience."""
    found = b""
    try:
        while piece := client.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GE", b"GET / HTTP/1.1\r\nhost: x\r\n", GET + b"\r\n", GET + b"GET /"])
def test_s9_who_never_ends_a_request_is_cut_off(client: socket.socket, sent: bytes) -> None:
    client.sendall(sent)
    assert until_cut_off(client).count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


@pytest.mark.parametrize("head", [b"content-length: 100", b"transfer-encoding: chunked"])
def test_s9_a_body_that_does_not_come_is_not_waited_for(client: socket.socket, head: bytes) -> None:
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n1")
    assert until_cut_off(client) == b""


def test_s9_a_slow_head_is_cut_off_though_bytes_keep_coming(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\n")
    assert any(is_cut_off(client) for _ in range(1000))


def is_cut_off(client: socket.socket, more: bytes = b"a: b\r\n") -> bool:
    """Whether it is, after one more header, or whatever else."""
    try:
        client.sendall(more)
        client.settimeout(0.02)
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def dripped(client: socket.socket, begin: bytes, piece: bytes) -> bytes:
    """What is answered to a request that never comes to its end."""
    answer = b""
    try:
        client.sendall(begin)
        for _ in range(64):
            client.sendall(piece * (1 << 16))
        answer = until_cut_off(client)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return answer


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"x"),
        (b"GET / HTTP/1.1\r\na: ", b"x"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;", b"x"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n"),
    ],
)
def test_s9_heads_extensions_and_trailers_have_an_end(client: socket.socket, begin: bytes, piece: bytes) -> None:
    assert b"200 OK" not in dripped(client, begin, piece)


def test_s9_an_answer_that_nobody_takes_is_not_kept(client: socket.socket) -> None:
    client.sendall(GET.replace(b"/ ", b"/large "))
    time.sleep(1.5)  # nothing of it is taken: that is the attack
    assert len(until_cut_off(client)) < len(LARGE)


def test_a_large_body_in_many_pieces_comes_through(client: socket.socket) -> None:
    pieces = b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(100))
    client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
    assert until_cut_off(client).endswith(b"\r\n\r\n409600")


@pytest.mark.parametrize(
    "head",
    [
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b"content-length: 3\r\ncontent-length: 30",
        b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked, identity",
        b"content-length: +3",
        b"content-length : 3",
    ],
)
def test_n6_a_request_whose_end_can_be_taken_in_two_ways_is_refused(client: socket.socket, head: bytes) -> None:
    client.sendall(
        b"POST / HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    assert b"200 OK" not in until_cut_off(client)


UPLOAD = b"PUT /v1/objects/shared/x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


def test_an_upload_may_take_long_as_long_as_it_comes(client: socket.socket) -> None:
    """Longer than any other body, here 0.6 s."""
    count, piece = 16, b"x" * (256 << 10)
    client.sendall(UPLOAD % (count * len(piece)))
    began_s = time.monotonic()
    for _ in range(count):
        client.sendall(piece)
        threading.Event().wait(0.1)  # it is the time that is tested
    assert time.monotonic() - began_s > 1
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_s9_an_upload_that_hardly_comes_is_cut_off(client: socket.socket) -> None:
    client.sendall(UPLOAD % 1_000_000 + b"x" * 100)
    assert until_cut_off(client) == b""


def test_s9_an_upload_that_drips_is_cut_off(client: socket.socket) -> None:
    client.sendall(UPLOAD % 1_000_000)
    assert any(is_cut_off(client) for _ in range(1000))


def test_s9_what_comes_of_an_upload_that_was_answered_is_not_read_for_long(client: socket.socket) -> None:
    client.sendall(b"PUT /v1/objects/early HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n\r\n")
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
    piece = b"x" * object_limits.UPLOAD_STEP_MIN_BYTES
    assert any(is_cut_off(client, piece) for _ in range(1000))


def test_s9_an_upload_ends_at_some_time(client: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_limits, "UPLOAD_MAX_S", 0.1)
    assert dripped(client, UPLOAD % (1 << 40), b"x") == b""
