"""What a caller asks for is checked field by field, and what is wrong is named."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import limits as bound
from casemate.engine import request
from casemate.engine.program import NO_INPUT, check_input
from casemate.errors import InvalidInput
from casemate.model.layers import Layer
from casemate.model.resources import Limits
from casemate.model.spec import BASE_ENVIRONMENT

DISK_BYTES = 1000
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)
CHECKS: dict[str, Callable[[Any], Any]] = {
    "code": request.check_code,
    "filename": request.check_file_name,
    "args": lambda value: request.check_arguments(value, field="args"),
    "command": lambda value: request.check_arguments(value, field="command"),
    "env": request.check_environment,
    "files": lambda value: request.check_files(value, DISK_BYTES),
    "collect": request.check_patterns,
    "limits": lambda value: request.check_limits(Limits(), value),
    "require": request.check_layers,
    "input": check_input,
}


def refused(field: str, value: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        CHECKS[field](value)
    assert caught.value.field.split(".")[0] == field
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("field", CHECKS)
@given(value=ANYTHING)
def test_anything_at_all_is_accepted_or_refused_by_the_field_s_name(field: str, value: Any) -> None:
    try:
        CHECKS[field](value)
    except InvalidInput as error:
        assert error.field.split(".")[0] == field


@pytest.mark.parametrize(
    "value", [3, None, b"x", "\ud800", "a\0b", "x" * (bound.CODE_MAX_BYTES + 1)], ids=lambda value: repr(value)[:12]
)
def test_code_is_text_within_its_bound(value: object) -> None:
    refused("code", value)


@pytest.mark.parametrize("value", ["", ".", "..", "a/b", "a\0", "x" * 256, ".harness", 5, None, "\ud800"])
def test_a_file_name_is_one_name(value: object) -> None:
    refused("filename", value)


@pytest.mark.parametrize("field", ["args", "command"])
@pytest.mark.parametrize(
    "value",
    ["ls -l", b"ls", None, 5, [1], [b"x"], ["a\0"], ["\ud800"], ["x"] * (bound.ARGS_MAX + 1), ["x" * 200_000]],
    ids=lambda value: repr(value)[:12],
)
def test_words_are_a_list_of_texts_that_the_kernel_takes(field: str, value: object) -> None:
    refused(field, value)


def test_words_may_hold_the_bytes_of_any_file_name() -> None:
    word = os.fsdecode(b"\xff\xfe")
    assert request.check_arguments([word], field="args") == (word,)
    assert request.check_arguments(iter(["a", ""]), field="args") == ("a", "")


NO_VARIABLES: list[Any] = [["A"], "A=b", {"": "x"}, {"1A": "x"}, {"A=B": "x"}, {"A": 1}, {"A": None}, {1: "x"}]
NO_VARIABLES += [{"A": "a\0"}, {"A": "\ud800"}, {"Ä": "x"}, {"A\n": "x"}, {"A": "x" * 200_000}]
NO_VARIABLES += [{f"A{n}": "x" for n in range(bound.ENV_MAX + 1)}]


@pytest.mark.parametrize("value", NO_VARIABLES, ids=lambda value: repr(value)[:12])
def test_variables_have_names_and_texts_that_can_be_set(value: object) -> None:
    refused("env", value)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), st.text(max_size=9)))
def test_the_environment_is_the_base_and_what_the_caller_names_and_nothing_else(extra: dict[str, str]) -> None:
    allowed = {name: value.replace("\0", "") for name, value in extra.items()}
    assert request.check_environment(allowed) == {**BASE_ENVIRONMENT, **allowed}


def test_a_runtime_s_variables_come_before_the_base_and_the_caller_s_before_both() -> None:
    found = request.check_environment({"A": "caller"}, defaults={"A": "runtime", "B": "runtime", "HOME": "/tmp"})
    assert found == {**BASE_ENVIRONMENT, "A": "caller", "B": "runtime", "HOME": "/tmp"}


def test_a_variable_that_a_runtime_stands_on_is_refused() -> None:
    with pytest.raises(InvalidInput, match="env: START belongs to the runtime"):
        request.check_environment({"START": "x"}, owned=frozenset({"START"}))


NO_FILES: list[Any] = [["a"], "a", {"a": 1}, {"a": None}, {"a": bytearray(b"x")}, {1: b""}, {"../a": b""}]
NO_FILES += [{"/etc/a": b""}, {"a": "\ud800"}, {"a/": b""}, {"a": b"", "./a": b""}, {"a": bytes(DISK_BYTES + 1)}]
NO_FILES += [{"a": bytes(600), "b": bytes(600)}, {f"f{n}": b"" for n in range(bound.FILES_MAX + 1)}]
NO_FILES += [{"a": Path("/nowhere/at/all")}, {"a": Path("/usr")}]


@pytest.mark.parametrize("value", NO_FILES, ids=lambda value: repr(value)[:14])
def test_files_are_named_contents_that_fit(value: object) -> None:
    refused("files", value)


def test_files_come_as_bytes_as_text_and_from_paths_with_their_execute_bit(tmp_path: Path) -> None:
    tool, data = tmp_path / "tool", tmp_path / "data"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o755)
    data.write_bytes(b"\xff")
    data.chmod(0o644)
    found = request.check_files({"a": b"1", "b": "ä", "c": tool, "sub/d": data}, DISK_BYTES)
    assert {str(file.path): (file.data, file.executable) for file in found} == {
        "/work/a": (b"1", False),
        "/work/b": ("ä".encode(), False),
        "/work/c": (b"#!/bin/sh\n", True),
        "/work/sub/d": (b"\xff", False),
    }


def test_a_huge_file_of_ours_is_read_only_up_to_the_limit(tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    huge.touch()
    os.truncate(huge, 2**40)
    refused("files", {"a": huge})


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for source in (pipe, Path("/dev/zero"), tmp_path, Path("a\0b")):
        refused("files", {"a": source})


@pytest.mark.parametrize("value", ["*.csv", [1], None, ["../x"], [""], ["/etc/*"]])
def test_patterns_are_a_list_of_globs_in_the_work_directory(value: object) -> None:
    refused("collect", value)


@pytest.mark.parametrize("value", [5, "1Gi", ["memory"], {"memory": None}, {"ram": 1}, {5: 1}])
def test_limits_are_a_mapping_or_limits(value: object) -> None:
    refused("limits", value)


def test_limits_are_the_defaults_with_the_caller_s_over_them() -> None:
    base = Limits(memory_bytes=2**25)
    assert request.check_limits(base, None) is base
    assert request.check_limits(base, {"cpu": 0.5}) == Limits(memory_bytes=2**25, cpus=0.5)
    assert request.check_limits(base, Limits()) == Limits()


@pytest.mark.parametrize("value", ["landlock", None, [1], ["walls"], 5])
def test_required_layers_are_a_list_of_their_names(value: object) -> None:
    refused("require", value)


def test_a_layer_can_be_required_by_name_or_value() -> None:
    assert request.check_layers(["landlock", Layer.CGROUP]) == {Layer.LANDLOCK, Layer.CGROUP}


def test_an_option_that_does_not_exist_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidInput) as caught:
        request.check_options({"limit": {}}, frozenset({"limits"}))
    assert caught.value.field == "limit"
    assert "limits" in caught.value.hint


# Input --------------------------------------------------------------------------------------------


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [{1}, b"x", float("nan"), float("inf"), "\ud800", object(), circle(), nested(100_000), "x" * bound.INPUT_MAX_BYTES],
    ids=lambda value: type(value).__name__,
)
def test_an_input_is_a_json_value_within_its_bound(value: object) -> None:
    refused("input", value)


def test_no_input_is_not_the_input_none() -> None:
    assert check_input(NO_INPUT) is None
    assert check_input(None) == b"null"


# stdin --------------------------------------------------------------------------------------------


def test_stdin_is_bytes_text_a_descriptor_or_an_open_file(tmp_path: Path) -> None:
    assert request.check_stdin(None) is None
    assert request.check_stdin(b"x") == b"x"
    assert request.check_stdin("ä") == "ä".encode()
    with (tmp_path / "file").open("w+b") as file:
        assert request.check_stdin(file) == file.fileno()
        assert request.check_stdin(file.fileno()) == file.fileno()


@pytest.mark.parametrize("value", [True, -1, 10**6, 3.5, ["x"], io.BytesIO(b"x"), io.StringIO("x"), "\ud800", object()])
def test_anything_else_is_no_stdin(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        request.check_stdin(value)
    assert caught.value.field == "stdin"


def test_a_descriptor_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(InvalidInput, match="cannot be read"):
        request.check_stdin(file)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(InvalidInput, match="cannot be read"):
        request.check_stdin(fd)
    os.close(fd)
    with pytest.raises(InvalidInput, match="not open"):
        request.check_stdin(fd)
