"""Names of functions and runners."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from casemate.api.function_models import FunctionIn
from casemate.errors import InvalidInput
from casemate.functions.names import function_name, runner_language, runner_name


def test_names_are_trimmed_and_normalised() -> None:
    assert function_name("  Chlorophyll mean ") == "Chlorophyll mean"
    assert function_name("e\u0301") == "\u00e9"
    assert function_name("x" * 255) == "x" * 255


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 256, 5, None, "a/b", "a?b", "a#b", "a%2f", "a*", "a:b", "..", ".", "a\nb", "a\u202eb"]
)
def test_names_that_cannot_stand_in_an_address_or_a_line_are_refused(name: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        function_name(name)
    assert caught.value.field == "name"


def test_s0_46_runners_are_named_after_language_and_environment() -> None:
    assert runner_name("python", "dev") == "macro-sandbox-python-dev"
    assert runner_language("macro-sandbox-python-dev", "dev") == "python"
    assert runner_language("macro-sandbox-python-dev", "prod") is None
    assert runner_language("other", "dev") is None


@pytest.mark.parametrize("label", ["", "-a", "a-", "a--b", "A", "a b", "a/b", "x" * 300])
def test_s0_46_labels_that_would_make_names_unclear_are_refused(label: str) -> None:
    with pytest.raises(InvalidInput):
        runner_name(label, "dev")
    with pytest.raises(InvalidInput):
        runner_name("python", label)


LABELS = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)?", fullmatch=True)


@given(LABELS, LABELS)
def test_s0_46_a_name_leads_back_to_its_language(language: str, environment: str) -> None:
    assert runner_language(runner_name(language, environment), environment) == language


@given(st.text(max_size=300))
def test_a_name_that_is_accepted_stays_as_it_is(text: str) -> None:
    try:
        name = function_name(text)
    except InvalidInput:
        return
    assert function_name(name) == name


def published_as(alias: str | None) -> FunctionIn:
    return FunctionIn.model_validate({"runtime": "python", "code": "", "alias": alias})


@pytest.mark.parametrize("alias", ["", "a/b", "../live", " live", "live\n", "-a", "x" * 65, "ä"])
def test_an_alias_that_no_address_could_name_is_not_published(alias: str) -> None:
    with pytest.raises(ValidationError):
        published_as(alias)


def test_aliases_are_words_or_none() -> None:
    assert [published_as(each).alias for each in ("v1.0_b-2", None)] == ["v1.0_b-2", None]
