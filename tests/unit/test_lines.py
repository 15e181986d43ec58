"""Lines of many, and one who takes from all: whoever floods stands in nobody's way."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from casemate.egress.names import Names
from casemate.egress.process import Process
from casemate.egress.wire import Closed, FlowEnded, decode_report
from casemate.lines import Lines
from casemate.model.flow import Flow

MOST = 64
FLOW = Flow(host="a.example", port=443, allowed=False)
WHOSE = st.integers(0, 3)


def flood(lines: Lines[str, int], whose: str) -> int:
    """How many are taken of somebody who brings more than there is room for."""
    count = 0
    while lines.has_room(whose):
        lines.add(whose, count)
        count += 1
    return count


@given(st.lists(st.tuples(WHOSE, st.booleans())))
def test_each_line_keeps_its_order_and_all_of_it_is_taken_once(steps: list[tuple[int, bool]]) -> None:
    lines: Lines[int, tuple[int, int]] = Lines(MOST)
    brought: Counter[int] = Counter()
    taken: list[tuple[int, int]] = []
    for whose, is_taking in steps:
        if is_taking:
            taken += lines.take(2)
        elif lines.has_room(whose):
            lines.add(whose, (whose, brought[whose]))
            brought[whose] += 1
        assert len(lines) == brought.total() - len(taken)
    taken += lines.take(len(lines))
    assert not lines
    for whose, count in brought.items():
        assert [number for name, number in taken if name == whose] == list(range(count))


def test_whoever_floods_leaves_as_much_room_as_it_takes() -> None:
    lines: Lines[str, int] = Lines(MOST)
    assert [flood(lines, whose) for whose in "abc"] == [MOST // 2, MOST // 4, MOST // 8]
    assert len(lines) < MOST


def test_turns_go_round_among_the_lines() -> None:
    lines: Lines[str, str] = Lines(MOST)
    for item in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
        lines.add(item[0], item)
    assert lines.take(4) == ["a1", "b1", "c1", "a2"]
    lines.add("c", "c2")
    assert lines.take(99) == ["b2", "a3", "c2", "a4"]
    assert lines.take(1) == []


def test_s2_61_the_flows_of_a_sandbox_that_floods_its_gateway_delay_and_drop_no_others() -> None:
    async def reported() -> list[FlowEnded | Closed]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            gateway = Process(theirs, Names([]), rest_s=60.0)
            while gateway._tell(1, FLOW):
                pass
            assert gateway._tell(2, FLOW)
            gateway._report(Closed(2, 0, 0))
            speaking = asyncio.create_task(gateway._speak())
            loop = asyncio.get_running_loop()
            found = [decode_report(await loop.sock_recv(ours, 65536)) for _ in range(4)]
            speaking.cancel()
            await asyncio.wait([speaking])
            return found

    found = asyncio.run(reported())
    assert [report.way for report in found] == [1, 2, 1, 2]
    assert isinstance(found[1], FlowEnded)
    assert isinstance(found[3], Closed)
