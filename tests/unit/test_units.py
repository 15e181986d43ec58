"""Amounts as people write them, and the limits that are made of them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate import limits as bound
from casemate.errors import InvalidInput
from casemate.model.resources import Limits
from casemate.model.units import format_bytes, format_duration, parse_bytes, parse_duration, parse_number

BYTE_UNITS = {"": 1, "K": 1000, "Ki": 1024, "M": 1000**2, "Mi": 1024**2, "G": 1000**3, "Gi": 1024**3}
BYTE_UNITS |= {"T": 1000**4, "Ti": 1024**4, "B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}
BYTE_UNITS |= {"GB": 1000**3, "GiB": 1024**3, "TB": 1000**4, "TiB": 1024**4}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
DECIMALS = st.from_regex(r"[0-9]{1,18}(\.[0-9]{1,9})?", fullmatch=True)
PARSERS: list[Any] = [parse_bytes, parse_duration, parse_number]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("512m", "did you mean 512Mi?"),
        ("1.5gb", "did you mean 1.5Gi?"),
        ("64mib", "did you mean 64Mi?"),
        ("5s", "write it as 65536, 512Mi or 1Gi"),
        ("m", "write it as 65536, 512Mi or 1Gi"),
        ("", "write it as 65536, 512Mi or 1Gi"),
    ],
)
def test_a_size_that_is_nearly_one_is_answered_with_what_was_meant(text: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_bytes(text, field="memory")
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"memory": "1Mi"}, "1Mi is outside 4Mi to 1024Gi"),
        ({"timeout": 0}, "0ms is outside 1ms to 604800s"),
        ({"cpu": 5000}, "5000 is outside 0.01 to 1024"),
        ({"open_files": 10_000_000}, "10000000 is outside 64 to 1048576"),
        ({"output": "2Ti"}, "2048Gi is outside 0 to 1024Gi"),
    ],
)
def test_a_range_is_told_in_the_units_that_people_write(limits: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Limits().replacing(limits)
    assert caught.value.message == f"limits.{next(iter(limits))}: {problem}"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("65536", 65536),
        ("512Mi", 512 * 1024**2),
        ("1Gi", 1024**3),
        ("1GiB", 1024**3),
        ("1.5K", 1500),
        (" 2 MB ", 2_000_000),
        ("0.5Ki", 512),
        ("999999999999999999", 999_999_999_999_999_999),
    ],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_bytes(text, field="memory") == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("0.5", 0.5), ("2m", 120.0), ("2min", 120.0), ("1h", 3600.0), ("250us", 0.00025)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text, field="timeout") == pytest.approx(seconds)


@given(DECIMALS, st.sampled_from(sorted(BYTE_UNITS)))
def test_sizes_are_exact(number: str, unit: str) -> None:
    assert parse_bytes(number + unit, field="memory") == int(Fraction(number) * BYTE_UNITS[unit])


@given(DECIMALS, st.text("KMGTPiBb ", max_size=4))
@example("5", "iB")
def test_a_size_has_a_unit_that_is_known_or_is_refused(number: str, unit: str) -> None:
    if unit.strip() in BYTE_UNITS:
        assert parse_bytes(number + unit, field="memory") == int(Fraction(number) * BYTE_UNITS[unit.strip()])
        return
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_bytes(number + unit, field="memory")


@given(DECIMALS, st.sampled_from(sorted(SECONDS)))
def test_durations_are_the_number_times_the_unit(number: str, unit: str) -> None:
    assert parse_duration(number + unit, field="timeout") == pytest.approx(float(number) * SECONDS[unit])


@given(st.integers(0, 2**60))
@example(10_000 * 1024**3)
@example(1024**2 - 1)
@example(1152)
def test_a_shown_size_reads_back_as_nearly_the_same(size_bytes: int) -> None:
    shown = format_bytes(size_bytes)
    # Half of the second decimal, and less than a whole byte of the smallest that has decimals, 1Ki.
    assert parse_bytes(shown, field="memory") == pytest.approx(size_bytes, rel=0.005 + 1 / 1024)
    assert "e" not in shown


@given(st.integers(0, 2**20), st.sampled_from([1024, 1024**2, 1024**3]))
def test_a_whole_number_of_a_unit_reads_back_exactly(count: int, factor: int) -> None:
    if factor == 1024**3 or count < 1024:
        assert parse_bytes(format_bytes(count * factor), field="memory") == count * factor


@given(st.floats(0.001, bound.WALL_MAX_S))
@example(604_800.0)
@example(0.9999)
def test_a_shown_duration_reads_back_as_nearly_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds), field="timeout") == pytest.approx(seconds, rel=0.001)


@pytest.mark.parametrize(("seconds", "shown"), [(0.5, "500ms"), (90.0, "90s"), (604_800.0, "604800s"), (0.0, "0ms")])
def test_durations_are_shown_as_people_write_them(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), [(536_870_912, "512Mi"), (1023, "1023"), (1536, "1.5Ki"), (0, "0")])
def test_sizes_are_shown_as_people_write_them(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "nan", "inf", "0x10", "1_000", "1,5", "Mi", "1 2", "٣", "1\n2"]
)
def test_what_is_no_amount_is_refused_by_the_name_of_the_field(parse: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text, field="limits.memory")
    assert caught.value.field == "limits.memory"


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [True, False, -1])
def test_truth_values_and_negative_numbers_are_no_amounts(parse: Any, value: object) -> None:
    with pytest.raises(InvalidInput):
        parse(value, field="x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(InvalidInput):
        parse_number(value, field="x")


@given(st.text() | DECIMALS | st.integers() | st.floats())
def test_nothing_but_invalid_input_is_ever_raised(value: Any) -> None:
    for parse in PARSERS:
        if parse is parse_bytes and isinstance(value, float):
            continue  # Limits refuses a float of bytes before it comes to this
        try:
            amount = parse(value, field="x")
        except InvalidInput as error:
            assert error.field == "x"
        else:
            assert amount >= 0
            assert math.isfinite(amount)


# Limits -------------------------------------------------------------------------------------------

KEYS = {
    "timeout": ("wall_s", "2s", 2.0),
    "cpu_time": ("cpu_time_s", "500ms", 0.5),
    "cpu": ("cpus", "0.5", 0.5),
    "memory": ("memory_bytes", "100Mi", 100 * 1024**2),
    "processes": ("processes", 8, 8),
    "disk": ("disk_bytes", "10Mi", 10 * 1024**2),
    "inodes": ("inodes", "100", 100),
    "open_files": ("open_files", 64, 64),
    "output": ("output_bytes", "1Mi", 1024**2),
}


@pytest.mark.parametrize("key", KEYS)
def test_each_limit_can_be_replaced_alone(key: str) -> None:
    attribute, written, value = KEYS[key]
    changed = Limits().replacing({key: written})
    assert getattr(changed, attribute) == value
    others = {name for name in Limits.__struct_fields__ if name != attribute}
    assert {name: getattr(changed, name) for name in others} == {name: getattr(Limits(), name) for name in others}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["much", -1, None, [1], True, "1" * 18, 10**30, math.nan, math.inf, b"1"])
def test_a_limit_out_of_its_range_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Limits().replacing({key: value})
    assert caught.value.field == f"limits.{key}"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("key", sorted(set(KEYS) - {"output"}))
def test_no_limit_but_that_of_the_output_may_be_zero(key: str) -> None:
    with pytest.raises(InvalidInput, match="outside"):
        Limits().replacing({key: 0})
    assert Limits().replacing({"output": 0}).output_bytes == 0


def test_an_unknown_limit_is_refused_by_its_name_with_those_that_exist() -> None:
    with pytest.raises(InvalidInput) as caught:
        Limits().replacing({"ram": "1Gi"})
    assert caught.value.field == "limits.ram"
    assert "memory" in caught.value.hint


@pytest.mark.parametrize("key", ["processes", "inodes", "open_files"])
def test_counts_are_whole(key: str) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        Limits().replacing({key: 65.5})


def test_the_last_replacement_counts_and_the_first_limits_stay_as_they_were() -> None:
    first = Limits().replacing({"memory": "64Mi", "disk": "1Mi"})
    second = first.replacing({"memory": "128Mi"})
    assert (first.memory_bytes, second.memory_bytes) == (64 * 1024**2, 128 * 1024**2)
    assert second.disk_bytes == first.disk_bytes


@given(st.dictionaries(st.sampled_from(sorted(KEYS)) | st.text(), st.text() | st.integers() | st.floats() | st.none()))
def test_any_mapping_gives_limits_within_their_bounds_or_invalid_input(overrides: dict[str, Any]) -> None:
    try:
        made = Limits().replacing(overrides)
    except InvalidInput as error:
        assert error.field.startswith("limits.")
    else:
        assert bound.MEMORY_MIN_BYTES <= made.memory_bytes <= bound.MEMORY_MAX_BYTES
        assert 1 <= made.processes <= bound.PROCESSES_MAX
        assert 0 < made.wall_s <= bound.WALL_MAX_S
