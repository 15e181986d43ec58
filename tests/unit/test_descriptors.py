from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from casemate.kernel.descriptors import own_end


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_nobody_else_can_let_an_end_of_our_own_block(pipe: tuple[int, int]) -> None:
    ours = own_end(pipe[0], os.O_RDONLY)
    try:
        os.set_blocking(pipe[0], True)
        with pytest.raises(BlockingIOError):
            os.read(ours, 1)
        os.write(pipe[1], b"x")
        assert os.read(ours, 2) == b"x"
        assert not os.get_inheritable(ours)
    finally:
        os.close(ours)


def test_an_end_to_write_to_that_nobody_reads_is_a_broken_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    ours = own_end(write, os.O_WRONLY)
    try:
        with pytest.raises(BrokenPipeError):
            os.write(ours, b"x")
    finally:
        os.close(ours)
        os.close(write)


def test_what_is_no_pipe_has_no_ends() -> None:
    for fd in (os.open("/dev/null", os.O_RDWR), os.eventfd(0), os.memfd_create("file")):
        try:
            with pytest.raises(OSError, match="Protocol error"):
                own_end(fd, os.O_RDONLY)
        finally:
            os.close(fd)
