"""Times in addresses: to the microsecond, as they were answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.api.documents import moment
from casemate.api.queries import moments
from casemate.errors import InvalidInput


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_that_was_answered_is_asked_with_as_it_was(at_us: int) -> None:
    assert moments(moment(at_us), None) == (at_us, None)


def test_a_time_has_the_zone_that_it_names_and_without_one_that_of_greenwich() -> None:
    assert moments("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:01") == (0, 1_000_000)


@pytest.mark.parametrize("text", ["", "yesterday", "2030-13-01", "0001-01-01T00:00:00+14:00:"])
def test_what_is_no_time_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        moments(None, text)
    assert refused.value.field == "until"
