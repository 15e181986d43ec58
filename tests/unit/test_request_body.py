"""Bodies of requests: whatever comes, it is read in one way or refused by name."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits
from casemate.api.body import BadBody, parsed

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**300), 10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(values)
def test_what_json_can_say_is_read(value: Any) -> None:
    assert parsed(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = parsed(data)
    except BadBody as problem:
        assert problem.error.http_status == 422
    else:
        assert not isinstance(found, float) or math.isfinite(found)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'[{"b": {"c": 1, "c": 1}}]', "the key 'c' twice"),
        (b'{"\\u0061": 1, "a": 2}', "the key 'a' twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[Infinity, -Infinity]", "Infinity is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "deep"),
        (b'{"a":' * 250 + b"1" + b"}" * 250, "deep"),
        (b"[" * 201 + b"]" * 201, "deep"),
        (b"1" * 5000, "too many digits"),
        (b"[1, -1e400]", "no double can hold"),
        (b'"\xff"', "not UTF-8"),
        (b'{"data": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\uDE00": 1}', "half of a surrogate pair"),
        (b"", "no valid JSON"),
        (b'{"a": 1}}', "no valid JSON"),
        (b"[" + b"[]," * (limits.VALUE_CONTAINERS_MAX + 1) + b"1]", "arrays and objects"),
    ],
)
def test_o15_what_could_be_taken_in_two_ways_or_is_too_much_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(BadBody) as refused:
        parsed(body)
    assert problem in refused.value.error.message
    assert len(refused.value.error.message) < 400
