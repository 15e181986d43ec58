"""What may come next on a command line: the same declarations as for parsing, asked the other way round.

The first line of the answer says who knows more: `:words` nobody, `:files` and `:directories` the shell itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from casemate.cli.arguments import END_OF_OPTIONS, Command, Group, Parsed, find_option
from casemate.cli.commands import COMMANDS, GROUPS, commands_of
from casemate.cli.messages import show
from casemate.model.layers import Layer

WORDS: Final = ":words"
FILES: Final = ":files"
DIRECTORIES: Final = ":directories"
ACTIONS: Final = ("list", "show", "build", "update", "remove")
CONFIG_ACTIONS: Final = ("check", "show")
SHELLS: Final = ("bash", "fish", "zsh")


class Answer(msgspec.Struct, frozen=True):
    """Who completes, and with which words."""

    who: str
    words: tuple[str, ...] = ()


def command(parsed: Parsed) -> int:
    """Print what completes the last of the words."""
    answer = complete(parsed.rest or ("",))
    show([answer.who, *answer.words])
    return 0


def complete(words: Sequence[str]) -> Answer:
    """What completes the last word, which may be empty, of those after the program's name."""
    *before, last = words
    if not before:
        names = [name for name, found in COMMANDS.items() if not found.hidden]
        return _matching(last, [*names, *GROUPS, "--help", "--version"])
    if before[0] in GROUPS:
        return _in_group(GROUPS[before[0]], before[1:], last)
    known = COMMANDS.get(before[0])
    return Answer(WORDS) if known is None else _in_command(known, before[1:], last)


def _in_group(group: Group, before: Sequence[str], last: str) -> Answer:
    commands = commands_of(group)
    if (before or last) and group.has_default([*before, last]):
        return _in_command(commands[group.default], before, last)
    if not before:
        return _matching(last, [*commands, "--help"])
    known = commands.get(before[0])
    return Answer(WORDS) if known is None else _in_command(known, before[1:], last)


def _in_command(known: Command, before: Sequence[str], last: str) -> Answer:
    if END_OF_OPTIONS in before:
        return Answer(FILES)
    option = find_option(known, before[-1]) if before else None
    if option is not None and option.metavar:
        return _value(option.values, last)
    if last.startswith("-"):
        return _matching(last, [name for option in known.options for name in option.names])
    place = len(_plain(known, before))
    if place < len(known.arguments):
        return _value(known.arguments[place].values, last)
    return Answer(FILES if known.rest_at_once else WORDS)


def _plain(known: Command, words: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found = []
    queue = iter(words)
    for word in queue:
        option = find_option(known, word)
        if option is not None and option.metavar:
            next(queue, None)
        elif not word.startswith("-") or word == "-":
            found.append(word)
    return found


def _matching(start: str, words: Sequence[str]) -> Answer:
    return Answer(WORDS, tuple(word for word in words if word.startswith(start)))


def _value(kind: str, last: str) -> Answer:
    if kind in {"file", "input"}:
        return Answer(FILES)
    if kind == "directory":
        return Answer(DIRECTORIES)
    return _matching(last, VALUES[kind]()) if kind in VALUES else Answer(WORDS)


def _runtimes() -> list[str]:
    from casemate.config import data_directory, load_config
    from casemate.errors import CasemateError
    from casemate.runtimes.registry import Registry

    try:
        config = load_config()
        return Registry(config.runtimes, lambda: data_directory(config)).names
    except CasemateError:  # completion is no place to complain about a configuration
        return []


def _sets() -> list[str]:
    from casemate.config import data_directory, load_config
    from casemate.errors import CasemateError
    from casemate.runtimes.sets import SetDirectory

    try:
        return list(SetDirectory(data_directory(load_config())).list())
    except CasemateError:
        return []


def _variables(ours: Mapping[str, str] = os.environ) -> list[str]:
    return sorted(ours)


VALUES: Final[Mapping[str, Callable[[], Sequence[str]]]] = {
    "runtime": _runtimes,
    "action": lambda: ACTIONS,
    "config-action": lambda: CONFIG_ACTIONS,
    "set": _sets,
    "layer": lambda: list(Layer),
    "debug": lambda: ["all", "console", "profile", "stack", "steps"],
    "variable": _variables,
    "shell": lambda: SHELLS,
}
"""What completes a value, by the kind that its option declares."""
