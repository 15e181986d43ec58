"""Keys as texts, scopes, rates: what is pure in tenancy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import InvalidInput, PermissionDenied
from casemate.model.ids import is_id, new_id
from casemate.object_limits import SECRET_MAX_BYTES
from casemate.service_limits import LABELS_MAX, SCOPES_A_KEY_MAX, TENANT_QUEUE_MAX
from casemate.tenancy.keys import base62, digest, is_key, new_key, shown
from casemate.tenancy.rate import Bucket, Rates, take
from casemate.tenancy.scopes import ADMIN, SCOPES, Scopes, checked
from casemate.tenancy.terms import KeyTerms, check_key, check_tenant
from casemate.tenancy.vault import check_secret

# Ids and keys -------------------------------------------------------------------------------------


def test_x6_ids_and_keys_are_random_all_through() -> None:
    ids = {new_id("exe") for _ in range(2000)}
    assert len(ids) == 2000
    assert all(is_id(each, "exe") and not is_id(each, "key") for each in ids)
    for place in range(4, 29):
        assert len({each[place] for each in ids}) >= 16, "128 bits make 25 characters and a half"
    keys = {new_key() for _ in range(2000)}
    assert len(keys) == 2000
    for place in range(4, 46):
        assert len({each[place] for each in keys}) > 40


@pytest.mark.parametrize("text", ["", "exe_", "exe_short", "exe_" + "A" * 26, "exe_" + "a" * 27, "key_" + "a" * 26])
def test_what_cannot_be_an_id_is_none(text: str) -> None:
    assert not is_id(text, "exe")


def test_a_key_is_known_by_its_checksum() -> None:
    key = new_key()
    assert is_key(key)
    assert len(key) == 3 + 43 + 1 + 6
    assert key.startswith(shown(key))
    assert len(digest(key)) == 32


@given(place=st.integers(3, 45), char=st.sampled_from("0123456789ABCabcxyz"))
def test_a_key_with_one_wrong_character_is_none(place: int, char: str) -> None:
    key = new_key()
    wrong = key[:place] + char + key[place + 1 :]
    assert is_key(wrong) is (wrong == key)


@given(st.text())
def test_any_text_is_no_key(text: str) -> None:
    assert not is_key(text)
    assert len(digest(text)) == 32


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
def test_base62_keeps_numbers_apart_and_in_order(one: int, other: int) -> None:
    assert (base62(one, 43) < base62(other, 43)) is (one < other)


def test_base62_refuses_what_it_has_no_room_for() -> None:
    with pytest.raises(ValueError, match="more digits"):
        base62(62, 1)


# Scopes -------------------------------------------------------------------------------------------

NAMES = [*SCOPES, "functions:invoke:python", "functions:invoke:clean", "functions:invoke:clean-up"]
PATTERNS = [*NAMES, "*", "functions:*", "executions:*", "functions:invoke:*", "functions:invoke:cl*", "tenants:*"]
CLEAN_IN_PYTHON = ["functions:invoke:clean", "functions:invoke:python"]
scopes = st.builds(
    Scopes, allow=st.lists(st.sampled_from(PATTERNS)).map(tuple), deny=st.lists(st.sampled_from(PATTERNS)).map(tuple)
)


@pytest.mark.parametrize(
    ("allow", "deny", "names", "may"),
    [
        (["executions:run"], [], ["executions:run"], True),
        (["executions:run"], [], ["executions:read"], False),
        (["executions:*"], [], ["executions:read"], True),
        (["executions:*"], ["executions:read"], ["executions:read"], False),
        (["executions:read"], ["executions:*"], ["executions:read"], False),
        (["admin"], [], ["functions:invoke:anything"], True),
        (["admin"], ["functions:invoke:*"], ["functions:invoke:anything"], False),
        (["functions:invoke:python"], [], CLEAN_IN_PYTHON, True),
        (
            ["functions:invoke:python"],
            ["functions:invoke:clean"],
            ["functions:invoke:clean", "functions:invoke:python"],
            False,
        ),
        (
            ["functions:invoke:*"],
            ["functions:invoke:python"],
            ["functions:invoke:clean", "functions:invoke:python"],
            False,
        ),
        ([], [], ["executions:run"], False),
        (["functions:invoke:cl*"], [], ["functions:invoke:clean"], True),
        (["functions:invoke:cl*"], [], ["functions:invoke:other"], False),
    ],
)
def test_patterns_allow_and_a_denial_wins(allow: list[str], deny: list[str], names: list[str], may: bool) -> None:
    scopes = checked(allow, deny)
    assert scopes.permits(*names) is may
    if may:
        scopes.require(*names)
    else:
        with pytest.raises(PermissionDenied) as caught:
            scopes.require(*names)
        assert caught.value.scope == names[0]


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("execution:run", "did you mean executions:run?"),
        ("admn", "did you mean admin?"),
        ("functions:invok:*", "did you mean functions:invoke:*?"),
        ("functions:invoke:", "did you mean functions:invoke:*?"),
        ("functions:invoke", "did you mean functions:invoke:*?"),
        ("nothing at all", "known: executions:run"),
        ("exe*ns:run", ""),
        ("z*", ""),
        ("**", ""),
        ("", ""),
        ("functions:invoke:../x", ""),
        ("executions:run\n", "did you mean executions:run?"),
    ],
)
def test_a_misspelt_scope_is_refused_with_what_may_be_meant(pattern: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(["executions:run"], [pattern])
    assert caught.value.field == "scopes.deny"
    assert hint in caught.value.hint


def test_scopes_have_a_number_and_a_length() -> None:
    with pytest.raises(InvalidInput):
        checked([f"functions:invoke:f{number}" for number in range(SCOPES_A_KEY_MAX + 1)])
    with pytest.raises(InvalidInput):
        checked(["functions:invoke:" + "f" * 1000])


@given(granting=scopes, wanted=scopes, name=st.sampled_from(NAMES))
def test_no_key_makes_a_key_that_may_more_than_itself(granting: Scopes, wanted: Scopes, name: str) -> None:
    try:
        made = wanted.within(granting)
    except PermissionDenied:
        return
    assert not made.permits(name) or granting.permits(name)
    assert not made.permits(name) or wanted.permits(name)


@given(allow=st.lists(st.sampled_from(PATTERNS)), deny=st.sampled_from(PATTERNS), name=st.sampled_from(NAMES))
def test_a_further_denial_never_allows_anything(allow: list[str], deny: str, name: str) -> None:
    assert not (checked(allow, [deny]).permits(name) and not checked(allow).permits(name))


def test_only_who_may_everything_makes_keys_that_may_everything() -> None:
    for less in ("keys:*", "functions:*", "keys:write"):
        with pytest.raises(PermissionDenied):
            Scopes(allow=(ADMIN,)).within(Scopes(allow=(less,)))
    assert Scopes(allow=(ADMIN,)).within(Scopes(allow=(ADMIN,))).permits("keys:write")


# Rates --------------------------------------------------------------------------------------------


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_s1_11_nobody_gets_more_than_its_burst_and_its_rate(rate: float, burst: int, gaps: list[float]) -> None:
    bucket: Bucket | None = None
    now_s, granted = 0.0, 0
    for gap in gaps:
        now_s += gap
        bucket, wait_s = take(bucket, rate_per_s=rate, burst=burst, now_s=now_s)
        granted += wait_s == 0
        assert granted <= burst + rate * now_s + 1e-6


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 20))
def test_s1_11_whoever_waits_as_long_as_it_was_told_goes_on(rate: float, burst: int) -> None:
    bucket: Bucket | None = None
    for _ in range(burst):
        bucket, wait_s = take(bucket, rate_per_s=rate, burst=burst, now_s=5.0)
        assert wait_s == 0
    bucket, wait_s = take(bucket, rate_per_s=rate, burst=burst, now_s=5.0)
    assert 0 < wait_s <= 1 / rate + 1e-9
    _, wait_s = take(bucket, rate_per_s=rate, burst=burst, now_s=5.0 + wait_s * 1.000001)
    assert wait_s == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket, _ = take(None, rate_per_s=1, burst=1, now_s=100)
    assert take(bucket, rate_per_s=1, burst=1, now_s=50)[1] > 0


def test_s1_11_keys_do_not_slow_each_other_and_their_table_is_bounded() -> None:
    rates = Rates(buckets_max=3)
    assert [rates.take("a", rate_per_s=1, burst=2, now_s=0) for _ in range(3)][:2] == [0, 0]
    assert rates.take("a", rate_per_s=1, burst=2, now_s=0) > 0
    assert rates.take("b", rate_per_s=1, burst=2, now_s=0) == 0
    for number in range(100):
        rates.take(f"k{number}", rate_per_s=1, burst=2, now_s=0)
    assert len(rates) == 3


# What is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "With Capitals"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "-x"}, "name"),
        ({"state": "gone"}, "state"),
        ({"concurrency_max": 0}, "concurrency_max"),
        ({"queue_max": TENANT_QUEUE_MAX + 1}, "queue_max"),
        ({"queue_max": -1}, "queue_max"),
        ({"labels": {str(number): "" for number in range(LABELS_MAX + 1)}}, "labels"),
        ({"labels": {"": "x"}}, "labels."),
        ({"labels": {"x": "x" * 1000}}, "labels.x"),
    ],
)
def test_a_tenant_that_cannot_be_is_refused_by_field(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tenant(values)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (KeyTerms(name=" ", scopes=Scopes()), "name"),
        (KeyTerms(name="a\nb", scopes=Scopes()), "name"),
        (KeyTerms(name="x" * 101, scopes=Scopes()), "name"),
        (KeyTerms(name="x", scopes=Scopes(), rate_per_s=0), "rate_per_s"),
        (KeyTerms(name="x", scopes=Scopes(), rate_per_s=float("nan")), "rate_per_s"),
        (KeyTerms(name="x", scopes=Scopes(), burst=0), "burst"),
        (KeyTerms(name="x", scopes=Scopes(), lifetime_s=0), "lifetime_s"),
        (KeyTerms(name="x", scopes=Scopes(), lifetime_s=float("nan")), "lifetime_s"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_field(terms: KeyTerms, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_key(terms)
    assert caught.value.field == field


# Secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["\ud800", "a\0b", "x" * (SECRET_MAX_BYTES + 1), "é" * SECRET_MAX_BYTES])
def test_what_no_variable_can_be_is_no_secret_and_is_not_shown(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_secret("NAME", value)
    assert caught.value.field == "value"
    assert value not in str(caught.value)
