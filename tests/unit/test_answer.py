"""Results in few words: a value, or one text for each reason."""

from __future__ import annotations

import pytest

from casemate.executions.answer import TEXTS, answer, error_text
from casemate.model.result import GuestError, Isolation, Reason, Result, Status, Usage

ISOLATION = Isolation(backend="native", layers=())


def failed(reason: Reason, **more: object) -> Result:
    return Result(status=Status.FAILED, reason=reason, isolation=ISOLATION, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reason", [each for each in Reason if each not in {Reason.EXIT, Reason.SIGNAL, Reason.EXCEPTION}]
)
def test_every_reason_has_a_text(reason: Reason) -> None:
    assert error_text(failed(reason)) == TEXTS[reason]


def test_an_error_of_the_program_speaks_for_itself() -> None:
    error = GuestError(type="ValueError", message="", traceback="at line 1")
    assert error_text(failed(Reason.EXCEPTION, error=error)) == "ValueError"
    assert answer(failed(Reason.EXCEPTION, error=error)).stack is None
    assert answer(failed(Reason.EXCEPTION, error=error), with_stack=True).document()["stack"] == "at line 1"


def test_ends_without_an_error_are_told_by_their_number() -> None:
    assert error_text(failed(Reason.EXIT, exit_code=3)) == "Worker exited with code 3"
    assert error_text(failed(Reason.SIGNAL, signal=11)) == "Worker exited with signal 11"


def test_the_output_of_a_failed_run_is_not_passed_on() -> None:
    assert answer(failed(Reason.EXIT, exit_code=1, output=5)).output is None


def test_a_success_is_a_value_with_what_it_cost() -> None:
    usage = Usage(wall_s=0.0123456, memory_peak_bytes=7)
    result = Result(status=Status.SUCCEEDED, reason=Reason.EXIT, output=5, usage=usage, isolation=ISOLATION)
    assert answer(result).document() == {"success": True, "output": 5, "executionTime": 12.346, "memoryUsed": 7}
