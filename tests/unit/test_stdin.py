"""What a program reads: all of it, in order, without ever blocking us."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine.stdin import BytesOrFd, Feeder, unread_bytes
from casemate.errors import FileTransferError

PIPE_BYTES = 65_536


class Reader:
    """The program's side of the pipe."""

    def __init__(self) -> None:
        self.fd, self.pipe_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.received = b""
        self.ended = False

    def read(self, size: int = 2**20) -> None:
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return
        self.received += data
        self.ended = not data

    def take_all(self, source: BytesOrFd) -> Feeder:
        """Feed and read in turn, as the engine and a program would."""
        feeder = Feeder(self.pipe_fd, source)
        while not self.ended:
            feeder.advance(ready_of(feeder))
            self.read()
        return feeder


def ready_of(feeder: Feeder) -> frozenset[int]:
    poll = select.poll()
    for fd in feeder.reads:
        poll.register(fd, select.POLLIN)
    for fd in feeder.writes:
        poll.register(fd, select.POLLOUT)
    return frozenset(fd for fd, _ in poll.poll(0))


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    os.close(made.fd)


@given(st.binary(max_size=200) | st.integers(1, 400_000).map(lambda size: os.urandom(1) * size))
def test_bytes_of_any_length_arrive_whole_and_then_the_end(data: bytes) -> None:
    made = Reader()
    feeder = made.take_all(data)
    os.close(made.fd)
    assert made.received == data
    assert feeder.done


def test_a_file_arrives_from_where_it_stands(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 30_000)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.seek(10)
        reader.take_all(file.fileno())
    assert reader.received == b"0123456789" * 29_999


@given(st.lists(st.binary(min_size=1, max_size=5000), max_size=8))
def test_a_stream_arrives_as_it_comes(pieces: list[bytes]) -> None:
    made = Reader()
    source, ours = os.pipe2(os.O_CLOEXEC)
    feeder = Feeder(made.pipe_fd, source)
    for piece in pieces:
        os.write(ours, piece)
        while feeder.reads == (source,) and source in ready_of(feeder):
            feeder.advance(ready_of(feeder))
            while feeder.writes:
                feeder.advance(ready_of(feeder))
            made.read()
    assert not feeder.done
    os.close(ours)
    while not made.ended:
        feeder.advance(ready_of(feeder))
        made.read()
    os.close(source)
    os.close(made.fd)
    assert made.received == b"".join(pieces)


def test_a_source_with_nothing_to_give_is_the_end(reader: Reader) -> None:
    with Path("/dev/null").open("rb") as source:
        reader.take_all(source.fileno())
    assert reader.received == b""


def test_a_connection_that_is_reset_is_not_taken_for_the_end(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        source, _ = server.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    feeder = Feeder(reader.pipe_fd, source.fileno())
    with source, pytest.raises(FileTransferError, match="reset"):
        feeder.advance(ready_of(feeder))
    feeder.close()


def test_a_source_that_another_has_emptied_is_waited_for_again(reader: Reader) -> None:
    source, ours = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    feeder = Feeder(reader.pipe_fd, source)
    feeder.advance(frozenset({source}))
    assert (feeder.reads, feeder.writes, feeder.done) == ((source,), (), False)
    os.write(ours, b"later")
    os.close(ours)
    while not reader.ended:
        feeder.advance(ready_of(feeder))
        reader.read()
    os.close(source)
    assert reader.received == b"later"


def test_nothing_is_the_end_at_once(reader: Reader) -> None:
    assert Feeder(reader.pipe_fd, b"").done
    reader.read()
    assert reader.ended


def test_while_a_stream_has_nothing_we_wait_for_it_alone(reader: Reader) -> None:
    source, ours = os.pipe2(os.O_CLOEXEC)
    feeder = Feeder(reader.pipe_fd, source)
    assert (feeder.reads, feeder.writes) == ((source,), ())
    feeder.advance(frozenset())
    assert not feeder.done
    feeder.close()
    os.close(ours)
    os.close(source)


def test_a_program_that_does_not_read_holds_up_nothing(reader: Reader) -> None:
    feeder = Feeder(reader.pipe_fd, bytes(4 * PIPE_BYTES))
    for _ in range(10):
        feeder.advance(frozenset({reader.pipe_fd}))
    assert not feeder.done
    assert feeder.writes == (reader.pipe_fd,)
    feeder.close()


def test_a_program_that_has_closed_its_stdin_ends_the_feeding() -> None:
    made = Reader()
    feeder = Feeder(made.pipe_fd, bytes(4 * PIPE_BYTES))
    os.close(made.fd)
    feeder.advance(frozenset({made.pipe_fd}))
    assert feeder.done
    assert (feeder.reads, feeder.writes) == ((), ())


def test_closing_twice_closes_once(reader: Reader) -> None:
    feeder = Feeder(reader.pipe_fd, bytes(4 * PIPE_BYTES))
    feeder.close()
    taken = os.open("/dev/null", os.O_RDONLY)
    feeder.close()
    feeder.advance(frozenset({reader.pipe_fd}))
    os.close(taken)


def test_what_was_not_read_can_be_told_also_of_a_program_that_has_ended() -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    kept = os.dup(writing)
    Feeder(writing, b"x" * 1000).advance(frozenset({writing}))
    os.read(reading, 400)
    assert unread_bytes(kept) == 600
    os.close(reading)
    assert unread_bytes(kept) == 600
    os.close(kept)


def test_it_is_known_that_nobody_could_read_and_that_something_was_taken(tmp_path: Path) -> None:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.close(reading)
    refused = Feeder(writing, b"x")
    refused.advance(frozenset({writing}))
    assert (refused.is_refused, refused.has_taken) == (True, False)
    (tmp_path / "source").write_bytes(b"x")
    with (tmp_path / "source").open("rb") as file:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        taking = Feeder(writing, file.fileno())
        taking.advance(frozenset({file.fileno()}))
        assert taking.has_taken
        taking.close()
        os.close(reading)
