"""From words to options, help and completion: one set of declarations."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.cli.arguments import Argument, Command, Option, Parsed, UsageError, parse
from casemate.cli.commands import COMMANDS, LIMIT_KEYS, LIMITS, RUN
from casemate.cli.complete import complete
from casemate.cli.help import overview, page
from casemate.cli.style import Style, columns_of, row, table, wrap
from casemate.errors import InvalidInput
from casemate.model.layers import Layer
from casemate.model.resources import Limits

COMMAND = Command(
    name="try",
    module="nowhere",
    summary="a command of the tests",
    arguments=(Argument(metavar="FILE", help="a file", values="file"),),
    options=(
        Option(names=("-n", "--number"), metavar="COUNT", help="how many"),
        Option(names=("--all",), help="everything"),
        Option(names=("--env",), metavar="NAME", help="a variable", repeatable=True),
    ),
    rest="ARGS",
)
GREEDY = Command(name="exec", module="nowhere", summary="x", options=COMMAND.options, rest="CMD", rest_at_once=True)
WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=8)


# Parsing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-n", "3"], ["-n3"], ["--number", "3"], ["--number=3"], ["-n", "1", "-n", "3"]])
def test_a_value_can_be_given_in_every_usual_way(words: list[str]) -> None:
    assert parse(COMMAND, words).one("number") == "3"


def test_options_may_stand_before_and_after_the_arguments() -> None:
    parsed = parse(COMMAND, ["--all", "a.py", "--env", "A", "--env=B=C"])
    assert parsed.words == ("a.py",)
    assert parsed.flag("all")
    assert parsed.all("env") == ["A", "B=C"]
    assert (parsed.one("number"), parsed.rest) == (None, None)


def test_what_follows_two_dashes_is_not_looked_at() -> None:
    parsed = parse(COMMAND, ["a.py", "--", "--all", "--", "-x"])
    assert parsed.rest == ("--all", "--", "-x")
    assert not parsed.flag("all")


def test_a_value_may_look_like_an_option() -> None:
    assert parse(COMMAND, ["--env", "--all", "-"]) == Parsed(values={"env": ["--all"]}, words=("-",))


def test_a_command_takes_all_from_its_first_plain_word() -> None:
    assert parse(GREEDY, ["--all", "ls", "--all", "-l"]).rest == ("ls", "--all", "-l")
    assert parse(GREEDY, ["--all", "--", "ls"]).rest == ("ls",)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--nummer", "3"], "unknown option '--nummer'; did you mean --number?"),
        (["-x"], "unknown option '-x'"),
        (["--number"], "--number needs a value: COUNT"),
        (["--all=yes"], "--all takes no value"),
        (["a", "b"], "unexpected argument 'b'; what the program gets goes after --"),
    ],
)
def test_what_makes_no_sense_is_named(words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(COMMAND, words)
    assert caught.value.problem == problem


@given(WORDS)
def test_any_words_are_parsed_or_refused(words: list[str]) -> None:
    for command in (COMMAND, GREEDY):
        try:
            parsed = parse(command, words)
        except UsageError:
            continue
        kept = [*parsed.words, *(parsed.rest or ()), *(value for given in parsed.values.values() for value in given)]
        assert all(any(word.endswith(value) for word in words) for value in kept)


# The declarations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_is_there_and_its_options_are_told_apart(command: Command) -> None:
    assert callable(import_module(command.module).command)
    names = [name for option in command.options for name in option.names]
    assert len(names) == len(set(names))
    assert command.hidden or "--help" in names
    assert command.hidden or command.examples


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_example_of_the_help_can_be_parsed(command: Command) -> None:
    for example in command.examples:
        words = shlex.split(example.line.partition("casemate ")[2].split(" > ")[0].rstrip(')"'))
        if words and words[0] == command.name:
            parse(command, words[1:])


def test_every_limit_of_the_engine_can_be_set() -> None:
    assert set(LIMIT_KEYS) == {option.key for option in LIMITS}
    with pytest.raises(InvalidInput) as caught:
        Limits().replacing({"nothing": 1})
    assert set(LIMIT_KEYS.values()) == set(caught.value.hint.removeprefix("known: ").split(", "))


# Help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("command", [*COMMANDS.values(), None], ids=lambda command: command.name if command else "all")
def test_help_fits_and_names_everything(command: Command | None, width: int) -> None:
    style = Style(width=width)
    lines = page(command, style) if command else overview(COMMANDS.values(), style)
    text = "\n".join(lines)
    examples = {f"  {example.line}" for example in command.examples} if command else set()
    assert all(columns_of(line) <= width for line in lines if line not in examples)
    assert all(line == line.rstrip() for line in lines)
    if command:
        assert all(name in text for option in command.options for name in option.names)
        assert examples <= set(lines)
    else:
        assert all((name in text) == (not each.hidden) for name, each in COMMANDS.items() if name != "complete")


def test_colours_change_nothing_but_the_colour() -> None:
    coloured = page(RUN, Style(width=80, colour=True))
    plain = page(RUN, Style(width=80))
    assert coloured != plain
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in coloured] == plain


@given(st.text("ab ä漢\t", max_size=60), st.integers(2, 40))
def test_wrapped_lines_keep_every_word_and_fit(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(columns_of(line) <= width or " " not in line for line in lines)


def test_a_table_has_straight_columns() -> None:
    lines = table(Style(width=40), ("A", "LONGER"), [("x", "one two three four five six seven eight"), ("yyy", "z")])
    assert lines[:2] == ["A    LONGER", "x    one two three four five six seven"]
    assert lines[2] == "     eight"
    assert row(("a", "b c"), (3, 1)) == ["a    b", "     c"]


# Completion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "who", "some"),
    [
        ([""], ":words", {"run", "exec", "doctor", "--version"}),
        (["sel"], ":words", {"selftest"}),
        (["run", "--ru"], ":words", {"--runtime"}),
        (["run", ""], ":files", set()),
        (["run", "a.py", ""], ":words", set()),
        (["run", "--timeout", "3s", ""], ":files", set()),
        (["run", "--out", ""], ":directories", set()),
        (["run", "--file", "x"], ":files", set()),
        (["run", "--require", "land"], ":words", {"landlock"}),
        (["run", "--runtime", "py"], ":words", {"python"}),
        (["run", "a.py", "--", ""], ":files", set()),
        (["exec", ""], ":files", set()),
        (["completion", ""], ":words", {"bash", "zsh", "fish"}),
        (["nothing", ""], ":words", set()),
    ],
)
def test_completion_knows_what_may_come(words: list[str], who: str, some: set[str]) -> None:
    answer = complete(words)
    assert answer.who == who
    assert some <= set(answer.words)
    assert all(word.startswith(words[-1]) for word in answer.words)


def test_hidden_commands_are_not_offered() -> None:
    assert "complete" not in complete([""]).words
    assert set(complete(["run", "--require", ""]).words) == set(Layer)


@given(WORDS.filter(bool))
def test_completion_answers_anything(words: list[str]) -> None:
    assert complete(words).who in {":words", ":files", ":directories"}
