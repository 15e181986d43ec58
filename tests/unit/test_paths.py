"""Paths and globs: what is accepted never leaves the writable directories, and matching is what a plain search says."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate import limits
from casemate.engine.paths import check_pattern, display_name, inside_path, new_file_path
from casemate.errors import InvalidInput
from casemate.model.globs import matches
from casemate.model.spec import WORK_DIRECTORY, WRITABLE_DIRECTORIES

PIECES = st.sampled_from(
    ["..", ".", "", "a", "work", "tmp", "dev", "shm", "etc", "*", "\udcff", "\ud800", "b" * 300, "\0"]
)
ODD_PATHS = st.builds(lambda root, parts: root + "/".join(parts), st.sampled_from(["", "/", "//"]), st.lists(PIECES))
PATHS = ODD_PATHS | st.text()


def is_inside(path: PurePosixPath) -> bool:
    """Where the path leads when no symbolic link is followed."""
    real = os.path.normpath(path)
    return any(real == top or real.startswith(f"{top}/") for top in WRITABLE_DIRECTORIES)


@given(PATHS)
@example("/work/../etc/passwd")
@example("a/../../etc/passwd")
@example("//etc/passwd")
@example("/workshop")
@example("/tmp/../../proc/1/root")
def test_what_is_accepted_lies_in_a_writable_directory(path: str) -> None:
    try:
        full = inside_path(path, field="path")
    except InvalidInput as error:
        assert error.field == "path"
    else:
        assert full.is_absolute()
        assert ".." not in full.parts
        assert is_inside(full)
        assert "\0" not in str(full)


@given(PATHS)
def test_a_file_to_be_made_has_a_name_below_such_a_directory(path: str) -> None:
    try:
        full = new_file_path(path, field="files")
    except InvalidInput as error:
        assert error.field == "files"
    else:
        assert is_inside(full.parent)
        assert str(full) not in WRITABLE_DIRECTORIES


@pytest.mark.parametrize(
    ("path", "full"),
    [
        ("a.txt", "/work/a.txt"),
        ("deep/er/a.txt", "/work/deep/er/a.txt"),
        ("./a", "/work/a"),
        ("/tmp/a", "/tmp/a"),
        ("/dev/shm/a", "/dev/shm/a"),
        ("/home/guest/.config/x", "/home/guest/.config/x"),
        ("a//b", "/work/a/b"),
        ("..a", "/work/..a"),
        ("ä ö", "/work/ä ö"),
    ],
)
def test_paths_start_in_the_work_directory(path: str, full: str) -> None:
    assert str(new_file_path(path, field="path")) == full


NO_FILES = ["", ".", "..", "/", "../a", "a/../b", "/etc/passwd", "/work", "/work/", "dir/", "/workshop/a", "/dev/null"]
NO_FILES += [
    "/proc/self",
    "a\0b",
    "x" * 256,
    "y/" * 2100 + "z",
    "/code/../work/../usr/bin/x",
    "\ud800",
    "/home/other/a",
]


@pytest.mark.parametrize("path", NO_FILES, ids=lambda path: repr(path[:20]))
def test_paths_that_name_no_file_of_the_sandbox_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        new_file_path(path, field="files")
    assert caught.value.field == "files"
    assert len(caught.value.message) < 300


# Globs --------------------------------------------------------------------------------------------


def plain_search(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """The definition, tried out in full."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(plain_search(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and plain_search(names[1:], pattern[1:])


@given(
    st.lists(st.text(alphabet="ab.", min_size=1, max_size=3), max_size=5),
    st.lists(st.sampled_from(["**", "*", "a*", "?", "[ab]", "a", "b", "*.a", "[!a]?"]), max_size=5),
)
def test_matching_is_what_a_plain_search_says(names: list[str], pattern: list[str]) -> None:
    assert matches(names, pattern) == plain_search(names, pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "matching"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "deep/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "very/deep/a.csv", True),
        ("**", "very/deep/a.csv", True),
        ("out/**", "out/a/b", True),
        ("out/**", "other/a/b", False),
        ("/work/out/*", "out/a", True),
        ("./out/*", "out/a", True),
        ("a/**/b", "a/b", True),
        ("[ab].txt", "b.txt", True),
        ("A.csv", "a.csv", False),
        (".*", ".hidden", True),
        ("*", ".hidden", True),
    ],
)
def test_globs_as_people_mean_them(pattern: str, path: str, *, matching: bool) -> None:
    assert matches(path.split("/"), check_pattern(pattern, field="collect")) == matching


def test_a_hostile_pair_of_names_and_pattern_costs_little() -> None:
    names = ["a"] * 32
    pattern = ["**", "a"] * 15 + ["**", "b"]
    assert not matches(names, pattern)  # by plain search this takes hundreds of millions of steps
    assert not matches(["a" * 255], ["*a" * 120 + "b"])


@given(PATHS)
def test_patterns_stay_in_the_work_directory(pattern: str) -> None:
    try:
        parts = check_pattern(pattern, field="collect")
    except InvalidInput as error:
        assert error.field == "collect"
    else:
        assert parts
        assert not {"", ".", ".."} & set(parts)
        assert len(parts) <= limits.COLLECT_DEPTH_MAX


@pytest.mark.parametrize("pattern", ["", ".", "/", "/work", "/etc/*", "../*", "a/../../b", "a\0", "*/" * 40, "\ud800"])
def test_patterns_that_can_match_no_file_of_the_work_directory_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        check_pattern(pattern, field="collect")


ESCAPE = re.compile(rb"\\x([89a-f][0-9a-f]|5c)")


@given(st.binary() | st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"\xff", b"f", b"a"])).map(b"".join))
@example(b"\\xff")
@example(b"\\x5c")
@example(b"\\\xff")
def test_names_of_guests_become_text_that_still_tells_them_apart(raw: bytes) -> None:
    shown = display_name(raw).encode()
    assert ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), shown) == raw
    if b"\\" not in raw and raw.isascii():
        assert shown == raw


def test_the_work_directory_is_one_of_those_that_can_be_written() -> None:
    assert WORK_DIRECTORY in WRITABLE_DIRECTORIES
