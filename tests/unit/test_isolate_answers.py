"""A worker's answers are hostile bytes: they become values or a problem, never an exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.engine.isolate_execution import Measured, parse_answer
from casemate.model.values import NoneReply, ReplyProblem, ValueReply


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_problem(body: bytes) -> None:
    reply, measured = parse_answer(body)
    assert isinstance(measured, Measured)
    assert reply is not None


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists))
def test_a_value_comes_back(value: object) -> None:
    body = json.dumps({"reply": {"kind": "value", "output": value}, "worker": {"rss": 5}}).encode()
    assert parse_answer(body) == (ValueReply(value), Measured(rss=5))


@pytest.mark.parametrize(
    "body",
    [
        b'{"reply":{"kind":"value"},"worker":{}}',
        b'{"reply":{"kind":"other"},"worker":{}}',
        b'{"reply":[],"worker":{}}',
        b'{"reply":{"kind":"none"}}',
        b'{"reply":{"kind":"none"},"worker":{"rss":"5"}}',
        b'{"reply":{"kind":"none"},"worker":{},"more":1}',
        b"[" * 100_000,
        b'{"reply":{"kind":"value","output":' + b"[" * 300 + b"]" * 300 + b'},"worker":{}}',
    ],
)
def test_what_makes_no_sense_is_a_problem(body: bytes) -> None:
    assert isinstance(parse_answer(body)[0], ReplyProblem)


def test_further_measurements_of_newer_workers_do_no_harm() -> None:
    assert parse_answer(b'{"reply":{"kind":"none"},"worker":{"new":1}}') == (NoneReply(), Measured())
