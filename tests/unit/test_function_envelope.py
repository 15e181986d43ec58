"""The runners' endpoint: events with scripts and items, envelopes of results."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import service_limits as limits
from casemate.errors import InvalidInput
from casemate.functions.envelope import Call, RunnerLimits, read_event, reply, unwrap, wrap
from casemate.model.function import Item, ItemResult
from casemate.model.result import GuestError, Reason

LANGUAGES = ["python", "javascript", "r", "rust"]


def packed(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def event(**fields: Any) -> dict[str, Any]:
    return {"script": packed("return 1"), **fields}


def call(items: list[Any], **fields: Any) -> Call:
    found = read_event(event(items=items, **fields), "python")
    assert isinstance(found, Call)
    return found


def ok(item_id: str, output: Any) -> ItemResult:
    return ItemResult(id=item_id, success=True, reason=Reason.EXIT, output=output)


def bad(item_id: str, message: str, *, reason: Reason = Reason.EXCEPTION, type_: str = "ValueError") -> ItemResult:
    return ItemResult(id=item_id, success=False, reason=reason, error=GuestError(type=type_, message=message))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("broken", [{}, {"script": ""}, {"script": None}, "text", None, []])
def test_a0_4_a_missing_script_has_its_text(language: str, broken: Any) -> None:
    assert read_event(broken, language) == "Missing 'script' field"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_4_a_script_may_have_a_mebibyte_and_no_byte_more(language: str) -> None:
    exact = read_event(event(script=packed("#" * limits.MIB)), language)
    assert isinstance(exact, Call)
    assert len(exact.code) == limits.MIB
    for more in (1, 2, 3, 4, limits.MIB):
        assert read_event(event(script=packed("#" * (limits.MIB + more))), language) == "Script exceeds 1MB limit"


@pytest.mark.parametrize("script", ["%%%", "abc", 5, ["a"], packed(b"\xff\xfe")])
def test_a0_4_a_script_that_cannot_be_read_has_the_text_of_its_language(script: Any) -> None:
    assert read_event(event(script=script), "python") == "Invalid base64 or encoding in 'script'"
    assert read_event(event(script=script), "javascript") == "Invalid base64 in 'script'"
    assert read_event(event(script=script), "r") == "Invalid base64 in 'script'"


@pytest.mark.parametrize("items", [{}, {"a": 1}, "text", 5])
def test_a0_4_items_must_be_an_array(items: Any) -> None:
    assert read_event(event(items=items), "python") == "'items' must be an array"
    assert read_event(event(items=items), "javascript") == "'items' must be an array"
    assert read_event(event(items=items), "r") == "'items' must be an array, not an object"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a0_4_a_thousand_items_and_no_more(language: str) -> None:
    assert isinstance(read_event(event(items=[{}] * 1000), language), Call)
    assert read_event(event(items=[{}] * 1001), language) == "Exceeds 1000 item limit"
    assert read_event(event(items=[{}] * 3), language, RunnerLimits(items=2)) == "Exceeds 2 item limit"


@pytest.mark.parametrize(
    ("given_s", "taken_s"), [(None, 10), (3, 10), (0, 10), (-5, 10), (10, 10), (33.5, 33.5), (60, 60), (900, 60)]
)
def test_a0_4_timeouts_are_brought_into_their_range(given_s: Any, taken_s: float) -> None:
    assert call([], timeout=given_s).timeout_s == taken_s


@pytest.mark.parametrize("timeout", ["30", True, float("nan"), [30]])
def test_a0_4_a_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    assert read_event(event(timeout=timeout), "python") == "'timeout' must be a number"


def test_a0_4_the_protocol_id_is_accepted_and_items_may_be_left_out() -> None:
    found = read_event({"script": packed("é"), "protocol_id": "p"}, "r")
    assert isinstance(found, Call)
    assert (found.code, found.items) == ("é", ())
    assert found.source("r", {}).macros


@pytest.mark.parametrize("data", [{"a": {}}, {}, 42, None, [{"a": 1}], [], [1, 2], {"sample": [1, 2]}])
def test_a0_1_data_passes_unchanged(data: Any) -> None:
    assert call([{"id": "a", "data": data}]).callable_items == [Item(id="a", data=data)]


def test_a0_2_failures_are_of_their_items_and_ids_may_repeat_or_be_empty() -> None:
    given = call([{"id": each, "data": None} for each in ("dup", "dup", "", "dup")])
    results = [ok("dup", 1), bad("dup", "boom"), ok("", None), ok("dup", {"x": [1]})]
    assert reply(given, results, "python") == {
        "status": "success",
        "results": [
            {"id": "dup", "success": True, "output": 1},
            {"id": "dup", "success": False, "error": "ValueError: boom"},
            {"id": "", "success": True, "output": None},
            {"id": "dup", "success": True, "output": {"x": [1]}},
        ],
    }


def test_a0_12_an_item_that_is_no_object_fails_alone() -> None:
    given = call([5, {"id": 7, "data": 1}, {"id": "c", "context": [1]}, {"id": "d"}])
    assert [item.id for item in given.callable_items] == ["7", "d"]
    results = reply(given, [ok("7", 1), ok("d", 2)], "python")["results"]
    assert results == [
        {"id": "", "success": False, "error": "Item must be an object"},
        {"id": 7, "success": True, "output": 1},
        {"id": "c", "success": False, "error": "'context' must be an object"},
        {"id": "d", "success": True, "output": 2},
    ]


@pytest.mark.parametrize(
    ("language", "error", "timeout", "syntax"),
    [
        ("python", "ValueError: boom", "TimeoutError: Script execution timed out", "Failed to compile script: boom"),
        ("javascript", "boom", "Script execution timed out after 1000ms", "Script compilation failed: boom"),
        ("r", "boom", "reached elapsed time limit", None),
    ],
)
def test_errors_have_the_words_of_their_language(language: str, error: str, timeout: str, syntax: str | None) -> None:
    one = call([{"id": "a"}])
    assert reply(one, [bad("a", "boom")], language)["results"][0]["error"] == error
    assert reply(one, [bad("a", "x", reason=Reason.TIMEOUT)], language)["results"][0]["error"] == timeout
    found = reply(one, [bad("a", "boom", reason=Reason.VALIDATION)], language, is_readable=False)
    if syntax is None:
        assert found["results"][0]["error"] == "boom"
    else:
        assert found == {"status": "error", "results": [], "errors": [syntax]}


def test_an_item_that_failed_without_an_error_says_why() -> None:
    lost = ItemResult(id="a", success=False, reason=Reason.MEMORY)
    assert reply(call([{"id": "a"}]), [lost], "python")["results"][0]["error"] == "Execution failed: memory"


def test_a0_5_outputs_over_ten_mebibytes_fail_the_call() -> None:
    half = "x" * (limits.MIB // 2)
    items = [{"id": str(at)} for at in range(25)]
    assert reply(call(items[:2]), [ok("0", half * 2), ok("1", half * 4)], "python")["status"] == "success"
    found = reply(call(items), [ok(str(at), half) for at in range(25)], "python")
    assert found == {"status": "error", "results": [], "errors": ["Wrapper output exceeds 10MB limit"]}


def test_envelopes_travel_packed_and_are_taken_unpacked() -> None:
    envelope = {"status": "success", "results": [{"id": "é", "success": True, "output": [1, None]}]}
    sent = wrap(envelope)
    assert sent["encoding"] == "gzip+base64"
    assert msgspec.json.decode(gzip.decompress(base64.b64decode(sent["payload"]))) == envelope
    assert unwrap(sent) == envelope
    assert unwrap(envelope) == envelope


def test_a_payload_that_unpacks_to_more_than_its_bound_is_refused() -> None:
    bomb = base64.b64encode(gzip.compress(b"0" * (limits.RUNNER_UNPACKED_MAX_BYTES + 1))).decode()
    with pytest.raises(InvalidInput, match="longer than"):
        unwrap({"encoding": "gzip+base64", "payload": bomb})


GOOD = gzip.compress(b'{"status":"success","results":[]}')


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"status": "success"},
        {"status": "odd", "results": []},
        {"status": "success", "results": [5]},
        {"status": "success", "results": [{"id": "a"}]},
        {"status": "error", "results": [], "errors": "text"},
        {"encoding": "gzip+base64"},
        {"encoding": "gzip+base64", "payload": "%"},
        {"encoding": "gzip+base64", "payload": packed(b"no gzip")},
        {"encoding": "gzip+base64", "payload": packed(GOOD[:-9])},
        {"encoding": "gzip+base64", "payload": packed(GOOD + GOOD)},
        {"encoding": "gzip+base64", "payload": packed(gzip.compress(b"{"))},
        {"encoding": "gzip+base64", "payload": packed(gzip.compress(b"[" * 100_000))},
        {"encoding": "br", "payload": ""},
    ],
    ids=lambda answer: str(answer)[:40],
)
def test_answers_that_are_no_envelopes_are_refused(answer: Any) -> None:
    with pytest.raises(InvalidInput, match="Invalid Lambda response payload"):
        unwrap(answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(["script", "items", "id", "data"]), each),
    max_leaves=9,
)


@given(JSON, st.sampled_from(LANGUAGES))
def test_whatever_an_event_is_there_is_a_call_or_a_text(anything: Any, language: str) -> None:
    given_event = {"script": packed("x"), **anything} if isinstance(anything, dict) else anything
    assert isinstance(read_event(given_event, language), Call | str)


@given(JSON)
def test_whatever_an_answer_is_it_is_an_envelope_or_refused(answer: Any) -> None:
    try:
        assert unwrap(answer)["status"] in {"success", "error"}
    except InvalidInput:
        return
