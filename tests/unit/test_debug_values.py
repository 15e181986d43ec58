"""What harnesses say that they have recorded: hostile, parsed once, held to its bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import casemate
from casemate import limits
from casemate.cli.debugging import lines
from casemate.engine.isolate_execution import parse_answer
from casemate.engine.results import answer_of
from casemate.model.debug import ConsoleLine, Debug, DebugRecord, ProfileEntry, Step, bounded, check_debug
from casemate.model.document import result_document, result_from_document
from casemate.model.result import Isolation, Reason, Result, Status
from casemate.model.values import NoneReply, ReplyProblem, ValueReply, parse_debug

ALL = Debug(console=True, stack=True, profile=True, steps=True)
LINE = ConsoleLine(stream="stdout", level="log", text="x", at_us=1)
ENTRY = ProfileEntry(function="f", file="main.py", line=1, calls=2, own_us=3, total_us=4)


def reply(record: Any) -> ValueReply:
    return ValueReply(1, msgspec.Raw(msgspec.json.encode(record)))


@given(st.binary())
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    assert isinstance(parse_debug(msgspec.Raw(data)), DebugRecord | None)


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"console": [{"stream": "stdout"}]},
        {"steps": [{"line": -1}]},
        {"steps": [{"line": 1 << 70}]},
        {"steps": "no"},
        {"unknown": 1},
        {"console_dropped": 1.5},
    ],
)
def test_what_is_no_record_costs_the_record_and_is_told(record: Any) -> None:
    answer = answer_of(reply(record), stopped=False, debug=ALL)
    assert (answer.output, answer.debug) == (1, DebugRecord())
    assert answer.problem == "what was recorded makes no sense"


def test_a_record_that_nobody_asked_for_is_passed_over() -> None:
    answer = answer_of(reply("anything"), stopped=False)
    assert (answer.output, answer.debug, answer.problem) == (1, None, "")


def test_without_a_reply_the_record_is_empty() -> None:
    assert answer_of(None, stopped=True, debug=ALL).debug == DebugRecord()
    assert answer_of(ReplyProblem("no"), stopped=False, debug=ALL).problem == "no"


def test_more_than_is_kept_is_counted() -> None:
    many = DebugRecord(
        console=(LINE,) * (limits.DEBUG_CONSOLE_LINES_MAX + 3),
        profile=(ENTRY,) * (limits.DEBUG_PROFILE_MAX + 2),
        steps=(Step(line=1, function="f" * 10_000),) * (limits.DEBUG_STEPS_MAX + 1),
        steps_dropped=5,
    )
    found = bounded(many, ALL, "")
    assert (found.console_dropped, found.profile_dropped, found.steps_dropped) == (3, 2, 6)
    assert len(found.console) == limits.DEBUG_CONSOLE_LINES_MAX
    assert len(found.steps[0].function) == limits.DEBUG_NAME_MAX_CHARS
    long = DebugRecord(console=(msgspec.structs.replace(LINE, text="x" * 10**5),))
    assert len(bounded(long, ALL, "").console[0].text) == limits.DEBUG_LINE_MAX_CHARS


def test_only_what_was_asked_for_comes_back() -> None:
    whole = DebugRecord(console=(LINE,), profile=(ENTRY,), steps=(Step(line=1),), steps_dropped=1)
    assert bounded(whole, Debug(stack=True), "stack") == DebugRecord(stack="stack")
    assert bounded(whole, Debug(console=True), "stack") == DebugRecord(console=(LINE,))


def test_an_isolate_has_no_word_in_what_is_recorded() -> None:
    body = b'{"reply":{"kind":"none","debug":{"steps":[{"line":9}]}},"worker":{},"debug":{"steps":[{"line":1}]}}'
    found, _ = parse_answer(body)
    assert isinstance(found, NoneReply)
    assert parse_debug(found.debug) == DebugRecord(steps=(Step(line=1),))


def test_s1_76_a_document_has_the_record_and_gives_it_back() -> None:
    record = DebugRecord(console=(LINE,), profile=(ENTRY,), steps=(Step(line=1, function="f"),), stack="at f")
    isolation = Isolation(backend="native", layers=())
    result = Result(status=Status.SUCCEEDED, reason=Reason.EXIT, isolation=isolation, debug=record)
    document = msgspec.json.decode(msgspec.json.encode(result_document(result)))
    assert result_from_document(document) == result


def test_wishes_that_ask_for_nothing_are_none() -> None:
    assert check_debug({"console": False}) is check_debug(Debug()) is check_debug(None) is None
    assert check_debug({"steps": True}) == Debug(steps=True)


def test_lines_for_people_name_every_part_and_what_was_left_out() -> None:
    record = DebugRecord(
        console=(msgspec.structs.replace(LINE, text="a\x1b[2Jb"),),
        stack="Error\n  at f",
        profile=(ENTRY,),
        steps=(Step(line=3, function="f"), Step(line=4)),
        steps_dropped=7,
    )
    shown = "\n".join(lines(record))
    assert "\x1b" not in shown
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == [
        "console:",
        "stack:",
        "profile:",
        "steps:",
    ]
    assert "    at f" in shown
    assert "line 3 in f\n  line 4\n  … 7 more" in shown


def test_an_empty_record_has_no_lines() -> None:
    assert list(lines(DebugRecord())) == []


GUEST = Path(casemate.__file__).parent / "guest"
SHARED = {
    "LINES_MAX": limits.DEBUG_CONSOLE_LINES_MAX,
    "LINE_MAX_CHARS": limits.DEBUG_LINE_MAX_CHARS,
    "CONSOLE_MAX_CHARS": limits.DEBUG_CONSOLE_MAX_CHARS,
    "NAME_MAX_CHARS": limits.DEBUG_NAME_MAX_CHARS,
    "PROFILE_MAX": limits.DEBUG_PROFILE_MAX,
}


@pytest.mark.parametrize("name", ["python_debug.py", "debug.js"])
def test_harnesses_which_import_nothing_of_ours_have_the_same_bounds(name: str) -> None:
    text = (GUEST / name).read_text()
    assert {key: int(re.findall(rf"^(?:const )?{key} = ([0-9_]+)", text, re.MULTILINE)[0]) for key in SHARED} == SHARED
