"""Commands and their options as values, and how words become values: pure, one grammar for every command.

The same declarations make the help pages and the completion, so the three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

END_OF_OPTIONS = "--"


class UsageError(Exception):
    """The words make no sense. `command` is the path of the command, for the hint."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(problem)
        self.command = command
        self.problem = problem


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option; without `metavar` it is a flag. `values` says what completes its value."""

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    group: str = "Options"
    repeatable: bool = False
    default: str = ""
    values: str = ""

    @property
    def key(self) -> str:
        """The name by which its value is asked for."""
        return self.names[-1].lstrip("-")


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """A word at a place. `values` says what completes it."""

    metavar: str
    help: str
    values: str = ""


class Example(msgspec.Struct, frozen=True):
    """A command line that works, and what it does."""

    line: str
    about: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command. `rest` names the words after `--`; with `rest_at_once` the first plain word starts them.

    `function` is what of the module carries it out. Of the `arguments` the last `optional` ones may be left out, or all
    where the command looks for itself.
    """

    name: str
    module: str
    summary: str
    function: str = "command"
    optional: int | None = None
    about: str = ""
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    rest: str = ""
    rest_help: str = ""
    rest_at_once: bool = False
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    hidden: bool = False


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A command of commands: `module` has them as COMMANDS, by both their words.

    `is_one`: it is a single command, which is only declared elsewhere. `default`: the second word of the command that
    the group's name stands for where no second word is given.
    """

    name: str
    module: str
    summary: str
    hidden: bool = False
    is_one: bool = False
    default: str = ""

    def has_default(self, words: Sequence[str]) -> bool:
        """Whether these words, behind the group's name, are for the command that is its default."""
        is_for_it = not words or (words[0].startswith("-") and words[0] not in {"-h", "--help"})
        return bool(self.default) and is_for_it


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a command was given. `rest` is None where there was no `--`."""

    values: dict[str, list[str]]
    words: tuple[str, ...] = ()
    rest: tuple[str, ...] | None = None

    def flag(self, key: str) -> bool:
        """Whether the option was given."""
        return key in self.values

    def one(self, key: str) -> str | None:
        """The option's value; the last one counts."""
        return self.values[key][-1] if key in self.values else None

    def all(self, key: str) -> list[str]:
        """All values of a repeatable option."""
        return self.values.get(key, [])


def find_option(command: Command, name: str) -> Option | None:
    """The option of that name."""
    return next((option for option in command.options if name in option.names), None)


def parse(command: Command, words: Sequence[str]) -> Parsed:
    """The words of a command. Raises UsageError."""
    values: dict[str, list[str]] = {}
    plain: list[str] = []
    rest: tuple[str, ...] | None = None
    queue = iter(words)
    for word in queue:
        if word == END_OF_OPTIONS:
            rest = tuple(queue)
        elif word.startswith("-") and word != "-":
            _take_option(command, word, queue, values, after_words=bool(plain))
        elif command.rest_at_once:
            rest = (word, *queue)
        else:
            plain.append(word)
    _check_places(command, plain, rest)
    return Parsed(values=values, words=tuple(plain), rest=rest)


def _take_option(
    command: Command, word: str, queue: Iterator[str], values: dict[str, list[str]], *, after_words: bool
) -> None:
    name, attached = _split(word)
    option = find_option(command, name)
    if option is None:
        advice = f"; what the program gets goes after {END_OF_OPTIONS}" if after_words and command.rest else ""
        raise UsageError(command.name, f"unknown option {name!r}{_suggestion(command, name)}{advice}")
    if not option.metavar:
        if attached is not None:
            raise UsageError(command.name, f"{name} takes no value")
        values.setdefault(option.key, []).append("")
        return
    value = attached if attached is not None else next(queue, None)
    if value is None:
        raise UsageError(command.name, f"{name} needs a value: {option.metavar}")
    values.setdefault(option.key, []).append(value)


def _split(word: str) -> tuple[str, str | None]:
    """`--name=value` and `-nvalue` in two."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return word[:2], word[2:] or None


def _suggestion(command: Command, name: str) -> str:
    import difflib

    known = [known for option in command.options for known in option.names]
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_places(command: Command, plain: Sequence[str], rest: tuple[str, ...] | None) -> None:
    if len(plain) > len(command.arguments):
        advice = f"; what the program gets goes after {END_OF_OPTIONS}" if command.rest else ""
        raise UsageError(command.name, f"unexpected argument {plain[len(command.arguments)]!r}{advice}")
    if command.optional is not None and len(plain) < len(command.arguments) - command.optional:
        raise UsageError(command.name, f"needs {command.arguments[len(plain)].metavar}")
    if rest and not command.rest:
        raise UsageError(command.name, f"unexpected argument {rest[0]!r}")
