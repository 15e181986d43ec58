"""The tree of errors: stable codes, one root, messages that name what is wrong."""

from __future__ import annotations

import inspect

import pytest

import casemate
from casemate import errors
from casemate.errors import CasemateError, ConfigError, InvalidInput, LaunchError, LayerMissing, UnknownRuntime
from casemate.model.layers import ADDITIONAL, REQUIRED, Layer, Tier, tier_of

TREE = [found for _, found in inspect.getmembers(errors, inspect.isclass) if issubclass(found, CasemateError)]


def test_all_of_the_tree_is_public_and_drawn_at_the_top_of_its_module() -> None:
    for error in TREE:
        assert getattr(casemate, error.__name__) is error
        assert error.__name__ in (errors.__doc__ or "")


def test_every_code_is_there_once_and_every_status_is_an_error() -> None:
    codes = [error.code for error in TREE]
    assert len(set(codes)) == len(codes)
    assert all(400 <= error.http_status < 600 for error in TREE)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidInput("limits.memory", "is too large", hint="ask for less"), ["limits.memory", "(hint: ask for less)"]),
        (UnknownRuntime("cobol", ["b", "a"]), ["runtime: ", "'cobol'", "a, b"]),
        (LayerMissing([Layer.LANDLOCK, Layer.CGROUP]), ["landlock, cgroup", "doctor"]),
        (LaunchError("overlay usr", 1, "Operation not permitted"), ["overlay usr: Operation not permitted"]),
        (ConfigError("engine.cgroup", "is no path"), ["engine.cgroup: is no path"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_of_an_error_is_one_line_that_says_what_and_what_to_do(error: CasemateError, words: list[str]) -> None:
    assert all(word in str(error) for word in words)
    assert "\n" not in str(error)


def test_errors_keep_what_they_are_about() -> None:
    assert InvalidInput("env", "is wrong").field == "env"
    assert UnknownRuntime("x", []).field == "runtime"
    assert LayerMissing([Layer.CGROUP]).layers == (Layer.CGROUP,)
    failed = LaunchError("proc proc", 13, "Permission denied")
    assert (failed.step, failed.errno, failed.retryable) == ("proc proc", 13, True)


def test_what_a_caller_wrote_cannot_break_the_line_or_reach_the_terminal() -> None:
    shown = str(InvalidInput("limits.a\nb", "\x1b[31m is wrong"))
    assert shown == "limits.a\\nb: \\x1b[31m is wrong"


def test_what_the_caller_did_wrong_is_never_worth_trying_again() -> None:
    assert not any(error.retryable for error in TREE if issubclass(error, InvalidInput))


def test_the_standard_tier_needs_every_required_layer() -> None:
    assert tier_of(frozenset(REQUIRED)) is Tier.STANDARD
    assert all(tier_of(frozenset(REQUIRED) - {layer}) is Tier.NONE for layer in REQUIRED)
    assert set(REQUIRED) | set(ADDITIONAL) == set(Layer)
    assert not set(REQUIRED) & set(ADDITIONAL)
