"""Signed requests: who signed them, when, and that nothing else counts."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Unauthenticated
from casemate.functions.webhook import Verified, canonical, signed_headers, verify
from casemate.model.signature import sign

SECRET = b"a secret of the tests"
NOW_S = 1_700_000_000.0
BODY = {"items": [{"id": "é", "data": 1.0}], "a": None}


def secret_of(key_id: str) -> bytes | None:
    return SECRET if key_id == "key" else None


def verified(headers: dict[str, str], body: bytes, now_s: float = NOW_S) -> Verified:
    return verify(headers, body, secret_of=secret_of, now_s=now_s)


def signed(**changes: str | None) -> tuple[dict[str, str], bytes]:
    headers, body = signed_headers("key", SECRET, BODY, NOW_S)
    for name, value in changes.items():
        full = f"x-casemate-{name.replace('_', '-')}"
        if value is None:
            del headers[full]
        else:
            headers[full] = value
    return headers, body


def test_a0_9_what_was_signed_is_known_by_its_key() -> None:
    headers, body = signed()
    found = verified(headers, body)
    assert (found.key_id, found.nonce, found.until_s) == ("key", headers["x-casemate-signature"], NOW_S + 300)


def test_a0_9_the_code_is_that_of_the_standard() -> None:
    wanted = hmac.new(SECRET, b"1700000000:" + canonical(BODY), hashlib.sha256).hexdigest()
    assert signed()[0]["x-casemate-signature"] == wanted


def test_a0_9_the_names_of_other_senders_are_taken_too() -> None:
    headers, body = signed()
    key_id, timestamp, signature = headers.values()
    theirs = {"x-api-key-id": key_id, "x-databricks-timestamp": timestamp, "x-databricks-signature": signature.upper()}
    assert verified(theirs, body).nonce == signature


def test_a0_9_a_body_counts_as_it_was_sent_or_in_canonical_form() -> None:
    for text in (json.dumps(BODY).encode(), json.dumps(BODY, indent=1, ensure_ascii=False).encode(), b"no json"):
        code = sign(SECRET, "1700000000", text)
        assert verified(signed(signature=code)[0], text).nonce == code
    reordered = json.dumps(dict(reversed(BODY.items()))).encode()
    assert verified(signed()[0], reordered).key_id == "key"


def test_a0_9_canonical_numbers_and_texts_are_those_of_other_languages() -> None:
    assert canonical({"b": 1.0, "a": [0.1, 1e-7, -0.0, True], "é": "\u00e9\n"}) == (
        '{"a":[0.1,1e-7,0,true],"b":1,"é":"é\\n"}'.encode()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": None},
        {"key_id": "other"},
        {"key_id": ""},
        {"signature": None},
        {"signature": "0" * 64},
        {"signature": "x"},
        {"signature": "é" * 64},
        {"timestamp": None},
        {"timestamp": "1700000001"},
        {"timestamp": "soon"},
        {"timestamp": "".join(chr(0x660 + int(digit)) for digit in "1700000000")},
        {"timestamp": "-1"},
        {"timestamp": "9" * 400},
    ],
    ids=str,
)
def test_a0_9_every_fault_is_the_same_answer(changes: dict[str, Any]) -> None:
    headers, body = signed(**changes)
    with pytest.raises(Unauthenticated) as caught:
        verified(headers, body)
    assert str(caught.value) == "Unauthorized"


@pytest.mark.parametrize(("late_s", "counts"), [(0, True), (300, True), (-300, True), (301, False), (-360, False)])
def test_a0_9_the_time_may_be_five_minutes_off(late_s: float, counts: bool) -> None:
    headers, body = signed()
    if counts:
        assert verified(headers, body, NOW_S + late_s).key_id == "key"
    else:
        with pytest.raises(Unauthenticated, match=r"^Unauthorized$"):
            verified(headers, body, NOW_S + late_s)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=9,
)


@given(JSON)
def test_canonical_form_holds_the_value_and_is_its_own(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@given(JSON, st.binary(min_size=1, max_size=40), st.integers(0, 200))
def test_a0_9_a_changed_body_does_not_count(value: Any, other: bytes, at: int) -> None:
    headers, body = signed_headers("key", SECRET, value, NOW_S)
    changed = body[:at] + other + body[at:]
    try:
        same = canonical(json.loads(changed)) == body
    except (ValueError, RecursionError):
        same = False
    if not same:
        with pytest.raises(Unauthenticated):
            verified(headers, changed)
