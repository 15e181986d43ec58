"""What the command line makes of a Result."""

from __future__ import annotations

import msgspec
import pytest

from casemate.cli.report import exit_status, side_line, verdict_line
from casemate.model.resources import Limits
from casemate.model.result import Event, GuestError, Isolation, Reason, Result, Status, Usage

LIMITS = Limits().replacing(
    {
        "timeout": "2s",
        "memory": "100Mi",
        "cpu_time": "1s",
        "processes": 8,
        "disk": "10Mi",
        "inodes": 100,
        "output": "1Mi",
    }
)
NONE = Isolation(backend="test", layers=())


def result(reason: Reason, **fields: object) -> Result:
    good = reason is Reason.EXIT and fields.get("exit_code") == 0
    status = Status.SUCCEEDED if good else Status.FAILED
    return Result(status=status, reason=reason, isolation=NONE, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (result(Reason.EXIT, exit_code=0), 0),
        (result(Reason.EXIT, exit_code=3), 3),
        (result(Reason.EXIT, exit_code=127), 127),
        (result(Reason.DENIED, exit_code=126), 126),
        (result(Reason.EXCEPTION, exit_code=1), 1),
        (result(Reason.SIGNAL, signal=11), 139),
        (result(Reason.TIMEOUT, signal=9), 124),
        (result(Reason.MEMORY, signal=9), 137),
        (result(Reason.MEMORY, exit_code=0), 137),
        (result(Reason.CPU, signal=24), 137),
        (result(Reason.PROCESSES, exit_code=1), 137),
        (result(Reason.DISK, exit_code=1), 137),
        (result(Reason.OUTPUT), 137),
        (result(Reason.VALIDATION, exit_code=0), 1),
        (result(Reason.CANCELLED), 130),
        (result(Reason.LOST), 125),
        (result(Reason.INTERNAL), 125),
    ],
)
def test_every_ending_has_its_exit_status(ended: Result, status: int) -> None:
    assert exit_status(ended) == status


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (result(Reason.EXIT, exit_code=3), ""),
        (result(Reason.EXCEPTION, exit_code=1, error=GuestError(type="E", message="m")), ""),
        (result(Reason.SIGNAL, signal=11), "ended by signal 11 (SIGSEGV)"),
        (result(Reason.SIGNAL, signal=35), "ended by signal 35"),
        (
            result(Reason.MEMORY, usage=Usage(memory_peak_bytes=9 * 2**20)),
            "memory limit of 100Mi reached (peak 9Mi, and far more was asked for); raise it with --memory",
        ),
        (result(Reason.TIMEOUT), "time limit of 2s reached; raise it with --timeout"),
        (
            result(Reason.MEMORY, usage=Usage(memory_peak_bytes=99 * 2**20)),
            "memory limit of 100Mi reached (peak 99Mi); raise it with --memory",
        ),
        (result(Reason.MEMORY), "memory limit of 100Mi reached; raise it with --memory"),
        (
            result(Reason.CPU, usage=Usage(cpu_user_s=0.9, cpu_system_s=0.2)),
            "processor time limit of 1s reached (used 1.1s); raise it with --cpu-time",
        ),
        (
            result(Reason.PROCESSES, events=(Event(kind="process-limit", detail="5 refused"),)),
            "process limit of 8 reached (5 refused); raise it with --processes",
        ),
        (
            result(Reason.DISK, usage=Usage(disk_bytes=10 * 2**20)),
            "disk limit of 10Mi reached; raise it with --disk",
        ),
        (result(Reason.DISK, usage=Usage(disk_bytes=4096)), "limit of 100 files reached; raise it with --inodes"),
        (result(Reason.OUTPUT), "output limit of 1Mi reached; raise it with --output-limit"),
        (
            result(
                Reason.INTERNAL, events=(Event(kind="x", detail="y"), Event(kind="internal", detail="no such device"))
            ),
            "the program was ended because casemate could not go on: no such device",
        ),
        (
            result(Reason.EXIT, exit_code=127, error=GuestError(type="CommandNotFound", message="no such program")),
            "no such program",
        ),
        (
            result(Reason.VALIDATION, exit_code=0, error=GuestError(type="E", message="a set\x1b[2J\nis not")),
            "the output is no JSON value: a set\ufffd[2J is not",
        ),
    ],
)
def test_a_line_says_what_the_program_did_not(ended: Result, line: str) -> None:
    assert verdict_line(ended, LIMITS) == line


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (result(Reason.TIMEOUT), "process limit of 8 reached (1 refused); raise it with --processes"),
        (result(Reason.SIGNAL, signal=6), "process limit of 8 reached (1 refused); raise it with --processes"),
        (result(Reason.PROCESSES, exit_code=1), ""),
        (result(Reason.EXIT, exit_code=0), ""),
    ],
)
def test_a_refused_process_is_said_beside_another_reason(ended: Result, line: str) -> None:
    event = Event(kind="process-limit", detail="1 refused")
    assert side_line(msgspec.structs.replace(ended, events=(event,)), LIMITS) == line
    assert side_line(ended, LIMITS) == ""
