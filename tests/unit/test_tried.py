"""What an init tells unasked, which may be anything once a guest has taken it over."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from casemate import limits
from casemate.isolation.protocol import REPORT, ReportKind, receive_tried

KNOWN = frozenset({101, 165})
Ends: TypeAlias = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    with ours, theirs:
        yield ours, theirs


def told(number: int, count: int, kind: int = ReportKind.TRIED) -> bytes:
    return REPORT.pack(kind, number, count, 0, 0, 0, 0)


def test_the_last_count_of_each_known_call_holds(ends: Ends) -> None:
    ours, theirs = ends
    for number, count in ((101, 1), (101, 2), (165, 1), (7, 9), (101, 3)):
        theirs.send(told(number, count))
    assert receive_tried(ours, KNOWN) == {101: 3, 165: 1}
    assert receive_tried(ours, KNOWN) == {}


def test_what_was_told_is_read_also_after_the_end_with_requests_unread(ends: Ends) -> None:
    ours, theirs = ends
    ours.send(b"a request")
    theirs.send(told(101, 5))
    theirs.close()
    assert receive_tried(ours, KNOWN) == {101: 5}


def test_other_reports_and_negative_counts_say_nothing_and_descriptors_are_closed(ends: Ends) -> None:
    ours, theirs = ends
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK)
    socket.send_fds(theirs, [told(101, 5, ReportKind.DONE)], [write_fd])
    os.close(write_fd)
    theirs.send(told(165, -(2**31)))
    assert not any(receive_tried(ours, KNOWN).values())
    assert os.read(read_fd, 1) == b"", "nobody holds the other end any more"
    os.close(read_fd)


def test_no_more_is_read_in_one_go_than_a_socket_holds(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ends
    monkeypatch.setattr(limits, "TRIED_REPORTS_MAX", 2)
    for count in (1, 2, 3):
        theirs.send(told(101, count))
    assert receive_tried(ours, KNOWN) == {101: 2}
    assert receive_tried(ours, KNOWN) == {101: 3}
