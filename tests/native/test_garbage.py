"""Nonsense on the launcher's and on init's socket: nothing is lost but, at most, the one sandbox it was sent to."""

from __future__ import annotations

import os
import random
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.native.mutations import damaged
from tests.native.plans import real_plans, real_requests

import casemate
from casemate import limits
from casemate.engine.drive import drive
from casemate.isolation.native import NativeSandbox
from casemate.isolation.protocol import Report, ReportKind, receive_report
from casemate.model.spec import SandboxSpec

FAILED_PLAN = -1
FDS_PER_MESSAGE_MAX = 253
ANSWER_TIMEOUT_MS = 10_000


@pytest.fixture
def sandbox(engine: casemate.Engine) -> Iterator[NativeSandbox]:
    started = drive(engine.start(SandboxSpec()))
    yield started
    started.close()


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def answer_to(engine: casemate.Engine, message: bytes, more_fds: int = 0) -> Report | None:
    """What the launcher answers on the control socket that comes with a plan; None: it drops the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            engine.backend.launcher.send(message, [theirs.fileno()] * (1 + more_fds))
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        assert poll.poll(ANSWER_TIMEOUT_MS), "the launcher neither answers nor lets go"
        return receive_report(ours)


def test_launcher_answers_damaged_plans_and_lives(engine: casemate.Engine) -> None:
    pid, before = engine.backend.launcher.pid, descriptors_of(engine.backend.launcher.pid)
    chance = random.Random(7)
    for _ in range(300):
        report = answer_to(engine, b"\0\0\0\0" + damaged([plan for plan, _ in real_plans()], chance))
        assert report is not None
        assert (report.kind, report.value) == (ReportKind.FAILED, FAILED_PLAN)
    assert casemate.execute(["true"], engine=engine).ok
    assert (engine.backend.launcher.pid, descriptors_of(pid)) == (pid, before)


def test_launcher_drops_what_is_too_large_or_brings_too_many_descriptors(engine: casemate.Engine) -> None:
    pid, before = engine.backend.launcher.pid, descriptors_of(engine.backend.launcher.pid)
    assert answer_to(engine, bytes(limits.PLAN_MAX_BYTES + 1)) is None
    assert answer_to(engine, real_plans()[0][0], more_fds=20) is None
    assert answer_to(engine, real_plans()[0][0], more_fds=FDS_PER_MESSAGE_MAX - 1) is None
    assert casemate.execute(["true"], engine=engine).ok
    assert (engine.backend.launcher.pid, descriptors_of(pid)) == (pid, before)


def test_launcher_ignores_plans_without_descriptors(engine: casemate.Engine) -> None:
    pid, before = engine.backend.launcher.pid, descriptors_of(engine.backend.launcher.pid)
    for plan, _ in real_plans():
        engine.backend.launcher.send(plan, [])
        engine.backend.launcher.send(plan[: len(plan) // 2], [])
    assert casemate.execute(["true"], engine=engine).ok
    assert (engine.backend.launcher.pid, descriptors_of(pid)) == (pid, before)


def test_launcher_ends_with_an_empty_message_and_is_replaced(engine: casemate.Engine) -> None:
    before = engine.backend.launcher.pid
    ended = os.pidfd_open(before)
    engine.backend.launcher.send(b"", [])
    select.select([ended], [], [], 10)
    os.close(ended)
    assert casemate.execute(["true"], engine=engine).ok
    assert engine.backend.launcher.pid != before


def test_init_drops_requests_that_it_could_not_answer(sandbox: NativeSandbox) -> None:
    for request in real_requests():
        sandbox._control.send(request)
    with sandbox.request(bytes(limits.MESSAGE_MAX_BYTES + 1)) as channel:
        assert receive_report(channel) is None
    socket.send_fds(sandbox._control, [real_requests()[0]], [sandbox.work_fd] * 20)
    with sandbox.request(real_requests()[-1]) as channel:
        answer = receive_report(channel)
        assert answer is not None
        assert answer.kind is ReportKind.DONE
    assert sandbox.is_alive()


@pytest.mark.parametrize("data", [b"\0", b"\xff" * 64, real_requests()[0][:-1], real_requests()[3] + b"\0"])
def test_init_ends_the_sandbox_on_a_request_that_makes_no_sense(
    engine: casemate.Engine, sandbox: NativeSandbox, data: bytes
) -> None:
    """Only the engine can write there: whatever sends nonsense is not the engine that we know."""
    with sandbox.request(data) as channel:
        assert receive_report(channel) is None
    sandbox.wait_dead()
    assert not sandbox.is_alive()
    with pytest.raises(casemate.SandboxClosed):
        sandbox.request(real_requests()[0])
    assert casemate.execute(["true"], engine=engine).ok
