"""The wire form of plans and requests, read back by a decoder of the test's own."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.errors import CapacityError, InternalError
from casemate.isolation import protocol
from casemate.isolation.protocol import REPORT, ReportKind, RequestKind, SpawnFlag, receive_report
from casemate.isolation.steps import PLAN_MAGIC, PLAN_VERSION, SHAPES, LaunchPlan, Step, StepKind, encode_plan

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
WORDS = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "u": U32,
    "q": U64,
    "s": WORDS,
    "b": st.binary(max_size=20),
    "r": st.lists(st.tuples(WORDS, U64), max_size=4).map(tuple),
}
STEPS = st.sampled_from(list(StepKind)).flatmap(
    lambda kind: st.tuples(*(VALUES[letter] for letter in SHAPES[kind])).map(lambda values: Step(kind, values))
)
PLANS = st.builds(
    LaunchPlan,
    clone_flags=U32,
    uid_inside=U32,
    uid_outside=U32,
    gid_inside=U32,
    gid_outside=U32,
    steps=st.lists(STEPS, max_size=20).map(tuple),
)


class Decoder:
    """Reads what `encode_*` writes, one value after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, length: int) -> bytes:
        assert length <= len(self.data)
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def value(self, shape: str) -> Any:
        readers = {"u": self.u32, "q": self.u64, "s": self.string, "b": self.block, "v": self.strings, "r": self.pairs}
        return readers[shape]()

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def block(self) -> bytes:
        return self.take(self.u32())

    def string(self) -> str:
        raw = self.take(self.u32() + 1)
        assert raw.index(b"\0") == len(raw) - 1
        return os.fsdecode(raw[:-1])

    def strings(self) -> tuple[str, ...]:
        return tuple(self.string() for _ in range(self.u32()))

    def pairs(self) -> tuple[tuple[str, int], ...]:
        return tuple((self.string(), self.u64()) for _ in range(self.u32()))

    def step(self) -> Step:
        kind, payload = StepKind(self.u32()), Decoder(self.block())
        step = Step(kind, tuple(payload.value(letter) for letter in SHAPES[kind]))
        assert not payload.data
        return step


def decode_plan(data: bytes) -> tuple[LaunchPlan, int, int, int]:
    reader = Decoder(data)
    magic, version, length, count, flags, *ids, kind, fds, devices = (reader.u32() for _ in range(12))
    assert (magic, version, length) == (PLAN_MAGIC, PLAN_VERSION, len(data))
    steps = tuple(reader.step() for _ in range(count))
    assert not reader.data
    names = ("uid_inside", "uid_outside", "gid_inside", "gid_outside")
    return LaunchPlan(clone_flags=flags, steps=steps, **dict(zip(names, ids, strict=True))), kind, fds, devices


@given(PLANS, st.integers(0, 2), st.integers(0, 15), st.integers(0, 1))
def test_a_plan_reads_back_as_it_was(plan: LaunchPlan, kind: int, fds: int, devices: int) -> None:
    encoded = encode_plan(plan, cgroup_kind=kind, cgroup_fds=fds, devices_fds=devices)
    assert decode_plan(encoded) == (plan, kind, fds, devices)


@given(PLANS)
def test_the_same_plan_is_the_same_bytes(plan: LaunchPlan) -> None:
    again = LaunchPlan(**{name: getattr(plan, name) for name in plan.__struct_fields__})
    assert encode_plan(plan, cgroup_kind=0, cgroup_fds=0) == encode_plan(again, cgroup_kind=0, cgroup_fds=0)


def plan_of(steps: Sequence[Step]) -> LaunchPlan:
    return LaunchPlan(clone_flags=0, uid_inside=0, uid_outside=0, gid_inside=0, gid_outside=0, steps=tuple(steps))


@pytest.mark.parametrize(
    "steps",
    [
        [Step(StepKind.IDENTITY)] * (limits.PLAN_STEPS_MAX + 1),
        [Step(StepKind.SECCOMP, (bytes(limits.PLAN_MAX_BYTES),))],
        [Step(StepKind.SOURCE, ("/a\0b",))],
    ],
    ids=["too many steps", "too long", "NUL in a path"],
)
def test_a_plan_that_the_launcher_would_refuse_is_never_sent(steps: list[Step]) -> None:
    with pytest.raises(InternalError):
        encode_plan(plan_of(steps), cgroup_kind=0, cgroup_fds=0)


@pytest.mark.parametrize("arguments", [(), ("/a",), ("/a", "/b")])
def test_arguments_follow_the_shape_of_their_step(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, TypeError, struct.error)):
        encode_plan(plan_of([Step(StepKind.READ_ONLY, arguments)]), cgroup_kind=0, cgroup_fds=0)


def test_a_step_is_shown_by_its_words_and_never_by_its_bytes() -> None:
    assert str(Step(StepKind.FILE, ("etc/hosts", 0o444, b"secret"))) == "file etc/hosts"
    assert str(Step(StepKind.NO_NEW_PRIVILEGES)) == "no new privileges"


# Requests -----------------------------------------------------------------------------------------


@given(st.tuples(U32, st.sampled_from(list(SpawnFlag)), U32, U32), st.lists(WORDS), st.lists(WORDS), WORDS)
def test_a_request_to_start_a_process_reads_back_as_it_was(
    numbers: tuple[int, SpawnFlag, int, int], argv: list[str], environment: list[str], cwd: str
) -> None:
    number, flag, rows, columns = numbers
    flags = flag | SpawnFlag.STDIN
    message = protocol.encode_spawn(number, argv, environment, cwd=cwd, flags=flags, rows=rows, columns=columns)
    reader = Decoder(message)
    assert [reader.u32() for _ in range(5)] == [RequestKind.SPAWN, number, flags, rows, columns]
    assert (reader.string(), reader.strings(), reader.strings()) == (cwd, tuple(argv), tuple(environment))
    assert not reader.data


@given(WORDS, WORDS, U32, U32)
def test_the_other_requests_read_back_as_they_were(path: str, name: str, flags: int, mode: int) -> None:
    expected: dict[bytes, list[Any]] = {
        protocol.encode_open(path, flags=flags, mode=mode): ["u", RequestKind.OPEN, "u", 0, "u", flags, "u", mode],
        protocol.encode_mkdir(path, name, mode=mode): ["u", RequestKind.MKDIR, "u", 0, "u", mode],
        protocol.encode_signal(flags, mode): ["u", RequestKind.SIGNAL, "u", 0, "u", flags, "u", mode],
    }
    texts = [["s", path], ["s", path, "s", name], []]
    for (message, numbers), words in zip(expected.items(), texts, strict=True):
        reader = Decoder(message)
        both = [*numbers, *words]
        assert [reader.value(shape) for shape in both[::2]] == both[1::2]
        assert not reader.data


# Reports ------------------------------------------------------------------------------------------


def received(data: bytes, fds: Sequence[int] = ()) -> protocol.Report | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [data], list(fds))
        return receive_report(ours)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_report_brings_its_numbers_and_descriptors() -> None:
    report = received(REPORT.pack(ReportKind.EXITED, 7, 256, 0, 1_500_000, 250_000, 2048), [0])
    assert report is not None
    assert (report.kind, report.id, report.value, report.error) == (ReportKind.EXITED, 7, 256, 0)
    assert (report.user_s, report.system_s, report.maxrss_bytes) == (1.5, 0.25, 2048 * 1024)
    assert len(report.fds) == 1
    assert not os.get_inheritable(report.fds[0])
    os.close(report.fds[0])


def test_the_end_of_the_connection_is_no_report() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        theirs.close()
        assert receive_report(ours) is None


@given(st.binary(max_size=60))
def test_any_other_bytes_are_no_report_and_leave_no_descriptor(data: bytes) -> None:
    before = open_descriptors()
    if len(data) != REPORT.size or struct.unpack_from("<I", data)[0] not in set(ReportKind):
        assert received(data or b"x", [0, 1]) is None
    assert open_descriptors() == before


@given(st.sampled_from(list(ReportKind)), U32, st.integers(-(2**31), 2**31 - 1), U64)
def test_every_number_that_fits_is_taken(kind: ReportKind, number: int, value: int, amount: int) -> None:
    report = received(REPORT.pack(kind, number, value, -value if value > -(2**31) else 0, amount, amount, amount))
    assert report is not None
    assert (report.kind, report.id, report.value) == (kind, number, value)


def test_more_descriptors_than_there_is_room_for_are_told_and_none_is_left() -> None:
    before = open_descriptors()
    with pytest.raises(CapacityError):
        received(REPORT.pack(ReportKind.SPAWNED, 1, 1, 0, 0, 0, 0), [0] * (limits.REPORT_FDS_MAX + 2))
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("kind", "error", "fds", "is_expected"),
    [
        (ReportKind.SPAWNED, 0, 2, True),
        (ReportKind.SPAWNED, 2, 0, True),
        (ReportKind.SPAWNED, 0, 1, False),
        (ReportKind.SPAWNED, 0, 3, False),
        (ReportKind.SPAWNED, 2, 2, False),
        (ReportKind.DONE, 0, 2, False),
        (ReportKind.EXITED, 0, 0, False),
    ],
)
def test_a_report_of_another_kind_or_with_other_descriptors_is_refused(
    kind: ReportKind, error: int, fds: int, is_expected: bool
) -> None:
    before = open_descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [REPORT.pack(kind, 1, 1, error, 0, 0, 0)], [0] * fds)
        if is_expected:
            report = protocol.expect_report(ours, ReportKind.SPAWNED, fds=2)
            assert report is not None
            for fd in report.fds:
                os.close(fd)
        else:
            with pytest.raises(InternalError):
                protocol.expect_report(ours, ReportKind.SPAWNED, fds=2)
    assert open_descriptors() == before
