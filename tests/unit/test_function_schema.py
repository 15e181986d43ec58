"""Schemas of inputs and outputs: what is wrong and where, within bounds, whoever wrote schema and data."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.functions.schema import Budget, Schema

TRACE = {
    "type": "object",
    "properties": {"trace": {"type": "array", "items": {"$ref": "#/$defs/value"}}},
    "required": ["trace"],
    "$defs": {"value": {"type": "number", "minimum": 0}},
}


def test_what_is_wrong_is_named_with_its_path() -> None:
    schema = Schema(TRACE)
    assert schema.problems({"trace": [1, 2.5]}) == ()
    (problem,) = schema.problems({"trace": [1, "x"]})
    assert (problem.path, problem.message) == (".trace[1]", '"x" is not of type "number"')
    with pytest.raises(InvalidInput) as caught:
        schema.check({"trace": [-1]}, field="data")
    assert caught.value.field == "data.trace[0]"


def test_only_some_problems_are_told_and_none_at_length() -> None:
    problems = Schema({"items": {"type": "string", "maxLength": 3}}).problems(["x" * 100_000] * 100)
    assert len(problems) == limits.SCHEMA_PROBLEMS_MAX
    assert all(len(problem.message) <= limits.SCHEMA_PROBLEM_MAX_CHARS for problem in problems)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (5, "not an object"),
        ({"type": "nope"}, "not a JSON Schema"),
        ({"pattern": r"(a)\1"}, "not a JSON Schema"),
        ({"pattern": "(?=a)"}, "not a JSON Schema"),
        ({"pattern": "((a{1,1000}){1,1000}){1,1000}"}, "not a JSON Schema"),
        ({"$schema": "http://example.com/mine"}, "not a JSON Schema"),
        ({"$ref": "http://example.com/schema"}, "outside"),
        ({"$ref": "file:///etc/passwd"}, "outside"),
        ({"$ref": "#anchor"}, "outside"),
        ({"$ref": "#/$defs/none"}, "not there"),
        ({"$ref": "#"}, "itself"),
        ({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, "itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "itself"),
        ({"items": {"$dynamicRef": "#a"}}, "not supported"),
        ({"items": {"$id": "http://example.com/other"}}, "not supported"),
        ({"enum": ["x" * limits.SCHEMA_MAX_BYTES]}, "longer than"),
    ],
)
def test_schemas_that_could_not_be_checked_within_bounds_are_refused(schema: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        Schema(schema, field="input_schema")
    assert caught.value.field == "input_schema"


def test_references_that_multiply_are_refused() -> None:
    doubling = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(9)}
    with pytest.raises(InvalidInput, match="too large"):
        Schema({"$defs": {**doubling, "d9": {"enum": list(range(50))}}, "$ref": "#/$defs/d0"})


def test_deep_schemas_are_refused() -> None:
    schema: Any = {}
    for _ in range(limits.SCHEMA_DEPTH_MAX):
        schema = {"items": schema}
    with pytest.raises(InvalidInput, match="deep"):
        Schema(schema)


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    schema = Schema({"properties": {"id": {"type": "integer"}, "$ref": {"type": "string"}}})
    assert schema.problems({"id": 1, "$ref": "x"}) == ()
    assert schema.problems({"id": "x"})[0].path == ".id"


def test_a_pattern_takes_time_linear_in_the_text() -> None:
    assert len(Schema({"pattern": "^(a+)+$"}).problems("a" * 200_000 + "b")) == 1


def test_unique_items_are_not_compared_each_with_each() -> None:
    assert Schema({"uniqueItems": True}).problems(list(range(50_000))) == ()
    assert Schema({"uniqueItems": True}).problems([{"a": at} for at in range(50_000)]) == ()


@pytest.mark.parametrize("value", ["\ud800", {1: 2}], ids=repr)
def test_what_is_no_json_is_not_as_any_schema_says(value: Any) -> None:
    assert Schema({}).problems("fine") == ()
    assert Schema({"type": ["string", "object"]}).problems(value)[0].message.startswith("cannot be checked")


def test_what_is_nested_too_deep_cannot_be_quoted_and_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert Schema({"type": "object"}).problems(value)[0].message.startswith("cannot be checked")


def test_one_schema_serves_several_threads() -> None:
    schema, found = Schema(TRACE), []
    threads = [threading.Thread(target=lambda: found.append(schema.problems({"trace": ["x"]}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each[0].path for each in found}) == 1
    assert len(found) == 8


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["$ref", "items", "type", "a"]), each),
    max_leaves=12,
)


@given(JSON, JSON)
def test_whatever_is_handed_in_is_a_schema_or_refused(schema: Any, value: Any) -> None:
    try:
        Schema(schema).problems(value)
    except InvalidInput as error:
        assert error.field == "schema"


def test_c7_a_check_that_would_take_long_is_refused_before_it_begins() -> None:
    schema = Schema({"type": "array", "items": {"allOf": [{"minimum": -number} for number in range(2000)]}})
    assert schema.problems([1.5] * 100) == ()
    began_s = time.process_time()
    (problem,) = schema.problems([1.5] * 1_000_000)
    assert time.process_time() - began_s < 1
    assert "too much to be checked" in problem.message


def test_c7_the_items_of_a_call_have_one_budget_together() -> None:
    schema, budget = Schema({"type": "array", "items": {"enum": list(range(5000))}}), Budget()
    found = [schema.problems([7] * 500, budget) for _ in range(100)]
    assert found[0] == ()
    assert "too much" in found[-1][0].message
