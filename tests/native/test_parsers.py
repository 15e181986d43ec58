"""The launcher's parsers under the sanitizers: any bytes at all, and the same verdict as a second reading."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.native.mutations import damaged
from tests.native.plans import CLONE_FLAGS, HEAD, plan_is_sound, real_plans, real_requests, request_is_sound

from casemate import limits

PLAN = 0
REQUEST = 1
CASES_PER_SEED = 8000
FLAGS_AT = 16
UID_INSIDE_AT = 20
GID_INSIDE_AT = 28

Record = tuple[int, int, bytes]


@pytest.fixture(scope="session")
def parsers(sanitized_build: Path) -> Path:
    return sanitized_build / "parsers"


def verdicts(parsers: Path, records: Sequence[Record]) -> list[bool]:
    stream = b"".join(struct.pack("<III", kind, fds, len(data)) + data for kind, fds, data in records)
    done = subprocess.run([parsers], input=stream, capture_output=True, check=False, timeout=100)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert len(done.stdout) == len(records)
    return [digit == ord("1") for digit in done.stdout]


def test_real_plans_are_accepted_with_exactly_their_descriptors(parsers: Path) -> None:
    records = [(PLAN, fds + more, plan) for plan, fds in real_plans() for more in (-1, 0, 1)]
    assert verdicts(parsers, records) == [False, True, False] * len(real_plans())


def test_real_requests_are_accepted(parsers: Path) -> None:
    assert all(verdicts(parsers, [(REQUEST, 1, request) for request in real_requests()]))


def test_every_truncation_of_a_plan_is_refused(parsers: Path) -> None:
    plan, fds = real_plans()[0]
    shorter = [plan[:length] for length in range(0, len(plan), 7)]
    honest = [data[:8] + struct.pack("<I", len(data)) + data[12:] for data in shorter if len(data) >= HEAD.size]
    assert not any(verdicts(parsers, [(PLAN, fds, data) for data in [*shorter, *honest]]))


def test_every_truncation_and_extension_of_a_request_is_refused(parsers: Path) -> None:
    records = []
    for request in real_requests():
        records += [(REQUEST, 1, request[:length]) for length in range(0, len(request), 1 + len(request) // 500)]
        records.append((REQUEST, 1, request + b"\0"))
    assert not any(verdicts(parsers, records))


def test_plan_over_the_largest_size_is_refused(parsers: Path) -> None:
    plan, fds = real_plans()[0]
    size = limits.PLAN_MAX_BYTES + 1
    longer = plan[:8] + struct.pack("<I", size) + plan[12:] + bytes(size - len(plan))
    assert verdicts(parsers, [(PLAN, fds, longer)]) == [False]


def test_a_plan_without_one_of_the_namespaces_or_with_any_other_flag_is_refused(parsers: Path) -> None:
    plan, fds = real_plans()[0]
    flags = [CLONE_FLAGS ^ 1 << bit for bit in range(32)] + [0, 2**32 - 1]
    changed = [plan[:FLAGS_AT] + struct.pack("<I", value) + plan[FLAGS_AT + 4 :] for value in flags]
    assert not any(verdicts(parsers, [(PLAN, fds, data) for data in changed]))


@pytest.mark.parametrize("at", [UID_INSIDE_AT, GID_INSIDE_AT])
def test_a_plan_with_a_root_inside_is_refused(parsers: Path, at: int) -> None:
    plan, fds = real_plans()[0]
    assert verdicts(parsers, [(PLAN, fds, plan[:at] + bytes(4) + plan[at + 4 :])]) == [False]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_plans_are_judged_as_by_the_second_reading(parsers: Path, seed: int) -> None:
    chance = random.Random(seed)
    plans = real_plans()
    fds = dict(plans)
    records = []
    for _ in range(CASES_PER_SEED):
        data = damaged(list(fds), chance)
        if chance.random() < 0.7 and len(data) >= HEAD.size:
            data = data[:8] + struct.pack("<I", len(data)) + data[12:]
        records.append((PLAN, chance.choice(plans)[1], data))
    expected = [plan_is_sound(data, count) for _, count, data in records]
    assert verdicts(parsers, records) == expected
    assert set(expected) == {True, False}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_requests_are_judged_as_by_the_second_reading(parsers: Path, seed: int) -> None:
    chance = random.Random(1000 + seed)
    sources = real_requests()
    records = [(REQUEST, 1, damaged(sources, chance)) for _ in range(CASES_PER_SEED)]
    expected = [request_is_sound(data) for _, _, data in records]
    assert verdicts(parsers, records) == expected
    assert set(expected) == {True, False}


def test_noise_is_refused(parsers: Path) -> None:
    chance = random.Random(4711)
    noise = [chance.randbytes(chance.randrange(3000)) for _ in range(2000)]
    records = [(kind, 1, data) for data in noise for kind in (PLAN, REQUEST)]
    assert verdicts(parsers, records) == [
        plan_is_sound(data, 1) if kind == PLAN else request_is_sound(data) for kind, _, data in records
    ]
