"""The largest things that a caller may hand in really arrive."""

from __future__ import annotations

import pytest

import casemate
from casemate import limits
from casemate.model.spec import BASE_ENVIRONMENT

OWN_BYTES = sum(len(name) + len(value) for name, value in BASE_ENVIRONMENT.items())


def test_longest_command_with_the_largest_environment(engine: casemate.Engine) -> None:
    words = ["sh", "-c", "echo $# ${#1} ${#BIG}", "sh"]
    text = "x" * (limits.ARGV_TOTAL_MAX_BYTES - sum(map(len, words)))
    big = "y" * (limits.ENV_TOTAL_MAX_BYTES - OWN_BYTES - len("BIG"))
    result = casemate.execute([*words, text], env={"BIG": big}, engine=engine)
    assert result.stdout.text.split() == ["1", str(len(text)), str(len(big))]


def test_most_words_and_variables(engine: casemate.Engine) -> None:
    words = ["sh", "-c", "echo $#", "sh", *["x"] * (limits.ARGS_MAX - 4)]
    variables = {f"V{number}": "" for number in range(limits.ENV_MAX - len(BASE_ENVIRONMENT))}
    result = casemate.execute(words, env=variables, engine=engine)
    assert result.stdout.text.split() == [str(limits.ARGS_MAX - 4)]


@pytest.mark.parametrize("field", ["argv", "env"])
def test_one_byte_more_is_refused_before_anything_starts(engine: casemate.Engine, field: str) -> None:
    words, variables = ["true"], {}
    if field == "argv":
        words.append("x" * (limits.ARGV_TOTAL_MAX_BYTES - len("true") + 1))
    else:
        variables["BIG"] = "y" * (limits.ENV_TOTAL_MAX_BYTES - OWN_BYTES - len("BIG") + 1)
    with pytest.raises(casemate.InvalidInput) as caught:
        casemate.execute(words, env=variables, engine=engine)
    assert caught.value.field == field


def test_more_files_than_inodes(engine: casemate.Engine) -> None:
    files = {f"file-{number}": b"x" for number in range(200)}
    with pytest.raises(casemate.FileTransferError, match="No space left"):
        casemate.execute(["true"], files=files, limits={"inodes": 64}, engine=engine)


def test_files_as_large_as_the_disk(engine: casemate.Engine) -> None:
    """Directories and other files need room as well, so the last byte may or may not fit; the error is typed."""
    room = 1024 * 1024
    assert casemate.execute(["true"], files={"a": b"x" * room}, limits={"disk": room}, engine=engine).ok
    with pytest.raises(casemate.InvalidInput):
        casemate.execute(["true"], files={"a": b"x" * room, "b": b"x"}, limits={"disk": room}, engine=engine)
    with pytest.raises(casemate.FileTransferError, match="No space left"):
        casemate.execute(["true"], files={"a": b"x" * (room - 1), "b": b"x"}, limits={"disk": room}, engine=engine)
