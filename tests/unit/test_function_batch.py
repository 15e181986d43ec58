"""Batches: read, split into calls of runners, merged into the order of the request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput
from casemate.functions.batch import (
    MACRO_NOT_FOUND,
    MISMATCH,
    Batch,
    BatchLimits,
    Part,
    merge,
    read_batch,
    split,
)
from casemate.model.function import ItemResult
from casemate.model.result import GuestError, Reason


def request(*names: str, ids: str = "") -> dict[str, Any]:
    return {"items": [{"id": ids[at : at + 1], "function": name, "data": {"n": at}} for at, name in enumerate(names)]}


def echoes(batch: Batch, part: Part) -> list[ItemResult]:
    items = [batch.items[position].item for position in part.positions]
    return [ItemResult(id=item.id, success=True, reason=Reason.EXIT, output=item.data) for item in items]


def outputs(batch: Batch, parts: tuple[Part, ...], answers: list[Any]) -> list[Any]:
    return [each.output if each.success else each.error for each in merge(batch, parts, answers).results]


def test_a0_8_items_are_grouped_by_function_and_come_back_in_their_order() -> None:
    batch = read_batch(request("f", "g", "f", "h", "g", ids="aabba"))
    parts = split(batch)
    assert [(part.target.function, part.positions) for part in parts] == [("f", (0, 2)), ("g", (1, 4)), ("h", (3,))]
    assert outputs(batch, parts, [echoes(batch, part) for part in parts]) == [{"n": at} for at in range(5)]


def test_a0_8_versions_and_aliases_are_groups_of_their_own() -> None:
    items = [{"id": "a", "function": "f", "version": 1}, {"id": "b", "function": "f", "alias": "next"}]
    items += [{"id": "c", "function": "f"}, {"id": "d", "function": "f", "version": 1}]
    assert [part.positions for part in split(read_batch({"items": items}))] == [(0, 3), (1,), (2,)]


def test_a0_8_the_usual_timeout_is_thirty_seconds() -> None:
    assert read_batch(request("f")).timeout_s == 30
    assert read_batch(request("f") | {"timeout": 60}).timeout_s == 60
    for wrong in (0, 61, "30", True, float("nan")):
        with pytest.raises(InvalidInput, match="timeout"):
            read_batch(request("f") | {"timeout": wrong})


def test_a0_8_an_unknown_function_marks_only_its_items_and_is_told_once() -> None:
    batch = read_batch(request("f", "g", "f", "g"))
    parts = split(batch)
    merged = merge(batch, parts, [MACRO_NOT_FOUND.format("f"), echoes(batch, parts[1])])
    assert [each.success for each in merged.results] == [False, True, False, True]
    assert merged.results[0].error == "Macro not found: f"
    assert merged.errors == ("Macro not found: f",)


@pytest.mark.parametrize("change", ["fewer", "more", "reordered", "other ids"])
def test_a0_8_a_reply_that_does_not_match_fails_its_group_and_no_other(change: str) -> None:
    batch = read_batch(request("f", "g", "f", ids="abc"))
    parts = split(batch)
    wrong = echoes(batch, parts[0])
    changed = {
        "fewer": wrong[:1],
        "more": [*wrong, wrong[0]],
        "reordered": wrong[::-1],
        "other ids": [ItemResult(id="x", success=True, reason=Reason.EXIT)] * 2,
    }[change]
    merged = merge(batch, parts, [changed, echoes(batch, parts[1])])
    assert [each.error for each in merged.results] == [MISMATCH, "", MISMATCH]
    assert merged.errors == (MISMATCH,)


def test_a0_8_a_group_of_several_calls_fails_as_a_whole() -> None:
    bounds = BatchLimits(items_per_call=2)
    batch = read_batch(request("f", "f", "f", ids="abc"))
    parts = split(batch, bounds)
    assert [part.positions for part in parts] == [(0, 1), (2,)]
    assert outputs(batch, parts, [echoes(batch, parts[0]), []]) == [MISMATCH] * 3


def test_a0_8_more_items_than_a_runner_takes_are_several_calls() -> None:
    batch = read_batch({"items": [{"id": "", "function": "f", "data": at} for at in range(5000)]})
    parts = split(batch)
    assert [len(part.positions) for part in parts] == [1000] * 5
    assert outputs(batch, parts, [echoes(batch, part) for part in parts]) == list(range(5000))


def test_a0_8_items_data_and_context_may_be_encoded_twice() -> None:
    item = {"id": "a", "macro_id": "m", "data": json.dumps({"x": [1]}), "context": json.dumps({"up": 1})}
    for items in ([item], json.dumps([item])):
        batch = read_batch({"items": items}, name_key="macro_id", version_key="workbook_version_id")
        assert batch.items[0].target.function == "m"
        assert batch.items[0].item.data == {"x": [1]}
        assert batch.items[0].item.context == {"up": 1}


@pytest.mark.parametrize("data", ["text", "5", "", "{no json", "[" * 100_000, '"quoted"'])
def test_a0_8_other_texts_stay_texts(data: str) -> None:
    assert read_batch({"items": [{"id": "", "function": "f", "data": data}]}).items[0].item.data == data


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "body"),
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": "[]"}, "items"),
        ({"items": {"a": 1}}, "items"),
        ({"items": "text"}, "items"),
        ({"items": [{"id": "", "function": "f"}] * 5001}, "items"),
        ({"items": [5]}, "items[0]"),
        ({"items": [{"id": "a", "function": "f"}, {"function": "f"}]}, "items[1].id"),
        ({"items": [{"id": "a"}]}, "items[0].function"),
        ({"items": [{"id": "a", "function": "f", "context": [1]}]}, "items[0].context"),
        ({"items": [{"id": "a", "function": "f", "version": [1]}]}, "items[0].version"),
        ({"items": [{"id": "a", "function": "f", "alias": None}]}, "items[0].alias"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a0_8_what_is_no_batch_is_refused_by_its_place(body: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_batch(body)
    assert caught.value.field == field


def test_errors_of_items_are_theirs_alone() -> None:
    batch = read_batch(request("f", "f", "f", ids="abc"))
    error = GuestError(type="ValueError", message="boom")
    answer = [
        ItemResult(id="a", success=False, reason=Reason.EXCEPTION, error=error),
        ItemResult(id="b", success=False, reason=Reason.TIMEOUT),
        ItemResult(id="c", success=False, reason=Reason.MEMORY),
    ]
    merged = merge(batch, split(batch), [answer])
    assert [each.error for each in merged.results] == [
        "ValueError: boom",
        "Execution timed out",
        "Execution failed: memory",
    ]
    assert merged.errors == ()


@given(st.lists(st.sampled_from("fgh"), min_size=1, max_size=40), st.integers(1, 7))
def test_a0_8_whatever_the_grouping_every_item_gets_its_own_result(names: list[str], size: int) -> None:
    batch = read_batch(request(*names))
    parts = split(batch, BatchLimits(items_per_call=size))
    assert sorted(position for part in parts for position in part.positions) == list(range(len(names)))
    assert all(len(part.positions) <= size for part in parts)
    assert outputs(batch, parts, [echoes(batch, part) for part in parts]) == [{"n": at} for at in range(len(names))]


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["items", "id", "function", "data"]), each)
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_a_body_is_it_is_a_batch_or_refused(body: Any) -> None:
    try:
        assert read_batch(body).items
    except InvalidInput:
        return
