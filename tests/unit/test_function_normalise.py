"""The wrapping of measurements is taken off once, and only where it is one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.functions.normalise import EMPTY_ENVELOPE, ITEMS_DISCARDED, NormaliseWarning, normalise

UNCHANGED: list[Any] = [
    {"a": 1},
    {},
    42,
    None,
    {"nested": {"sample": [1]}},
    {"sample": 5, "a": 1},
    {"sample": None},
    [{"a": 1}],
    [{"a": 1}, {"a": 2}],
    [],
    [1, 2],
    [[{"sample": [1]}]],
]
UNWRAPPED: list[tuple[Any, Any, int]] = [
    ({"sample": {"a": 1}, "other": 2}, {"a": 1}, 0),
    ({"sample": [{"a": 1}]}, {"a": 1}, 0),
    ({"sample": [{"a": 1}, {"a": 2}, {"a": 3}]}, {"a": 1}, 2),
    ({"sample": [{"sample": [{"a": 1}]}]}, {"sample": [{"a": 1}]}, 0),
]


@pytest.mark.parametrize("data", UNCHANGED, ids=repr)
def test_a0_10_what_is_no_envelope_passes_whole(data: Any) -> None:
    found = normalise(data)
    assert found.data is data
    assert (found.warnings, found.error) == ((), "")


@pytest.mark.parametrize(("data", "expected", "discarded"), UNWRAPPED, ids=repr)
def test_a0_10_an_envelope_is_unwrapped_once(data: Any, expected: Any, discarded: int) -> None:
    found = normalise(data)
    assert found.data == expected
    assert found.warnings == ((NormaliseWarning(code=ITEMS_DISCARDED, discarded=discarded),) if discarded else ())


def test_a0_10_an_empty_envelope_fails_its_item() -> None:
    found = normalise({"sample": []})
    assert found.error == EMPTY_ENVELOPE
    assert found.error == "empty-envelope: recognized sample-envelope contained no measurement; macro not invoked"


def test_a0_10_there_are_seventeen_cases() -> None:
    assert len(UNCHANGED) + len(UNWRAPPED) + 1 == 17


@given(st.lists(st.text(min_size=3), min_size=2))
def test_a0_10_warnings_say_nothing_of_the_content(texts: list[str]) -> None:
    warnings = normalise({"sample": texts}).warnings
    assert warnings == (NormaliseWarning(code=ITEMS_DISCARDED, discarded=len(texts) - 1),)


@given(st.recursive(st.none() | st.integers(), lambda each: st.lists(each) | st.dictionaries(st.just("sample"), each)))
def test_a0_10_one_layer_at_most_is_taken_off(data: Any) -> None:
    found = normalise(data)
    layers = [data]
    if isinstance(data, dict) and "sample" in data:
        layers += [data["sample"], *(data["sample"] if isinstance(data["sample"], list) else [])]
    assert found.error or any(found.data is layer for layer in layers)
