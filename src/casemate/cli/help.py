"""The help pages, made from the declarations of the commands. Pure: values in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from casemate.cli.arguments import Command, Example, Group, Option
from casemate.cli.style import GAP, Style, columns_of, hang, wrap

PROGRAM: Final = "casemate"
INDENT: Final = "  "
HEAD_MAX: Final = 26
ABOUT: Final = "Casemate runs code that nobody should trust: in a sandbox, without Docker, KVM or root."
OVERVIEW_EXAMPLES: Final = (
    Example("casemate run script.py", "a script; its language is guessed by its ending"),
    Example("casemate run -c 'print(6 * 7)'", "a piece of code"),
    Example("casemate doctor", "what this machine offers"),
)


def overview(commands: Iterable[Command | Group], style: Style) -> list[str]:
    """The page of the program itself."""
    shown = [command for command in commands if not command.hidden]
    rows = [(style.paint(command.name, "cyan"), command.summary) for command in shown]
    options = [(style.paint("-h, --help", "cyan"), "show this page"), (style.paint("--version", "cyan"), "show it")]
    lines = [*wrap(ABOUT, style.width), "", _title("Usage", style) + f" {PROGRAM} COMMAND [OPTIONS]", ""]
    lines += [_title("Commands", style), *_rows(rows, style), ""]
    lines += [_title("Options", style), *_rows(options, style), ""]
    lines += [_title("Examples", style), *_examples(OVERVIEW_EXAMPLES, style), ""]
    return [*lines, f"`{PROGRAM} COMMAND --help` explains a command."]


def group_page(group: Group, commands: Mapping[str, Command], style: Style) -> list[str]:
    """The page of a group of commands."""
    rows = [(style.paint(name, "cyan"), command.summary) for name, command in commands.items()]
    lines = [group.summary[:1].upper() + group.summary[1:] + ".", ""]
    lines += [_title("Usage", style) + f" {PROGRAM} {group.name} COMMAND [OPTIONS]", ""]
    if group.default:
        lines += [f"`{PROGRAM} {group.name}` alone, or with options, is `{PROGRAM} {group.name} {group.default}`.", ""]
    lines += [_title("Commands", style), *_rows(rows, style), ""]
    return [*lines, f"`{PROGRAM} {group.name} COMMAND --help` explains a command."]


def page(command: Command, style: Style) -> list[str]:
    """The page of one command."""
    lines = [*wrap(command.about or command.summary, style.width), ""]
    lines += [f"{_title('Usage', style)} {usage(command)}", ""]
    places = [(argument.metavar, argument.help) for argument in command.arguments]
    if command.rest:
        places.append((command.rest, command.rest_help))
    if places:
        rows = [(style.paint(name, "cyan"), text) for name, text in places]
        lines += [_title("Arguments", style), *_rows(rows, style), ""]
    for group in dict.fromkeys(option.group for option in command.options):
        rows = [(_head(option, style), _about(option, style)) for option in command.options if option.group == group]
        lines += [_title(group, style), *_rows(rows, style), ""]
    if command.examples:
        lines += [_title("Examples", style), *_examples(command.examples, style), ""]
    for note in command.notes:
        lines += [*wrap(note, style.width), ""]
    return lines[:-1]


def usage(command: Command) -> str:
    """How the command is written."""
    words = [PROGRAM, command.name, "[OPTIONS]"]
    words += [argument.metavar for argument in command.arguments]
    if command.rest:
        needed = command.rest_at_once
        words += ["--", command.rest] if needed else [f"[-- {command.rest}{'…' if ' ' not in command.rest else ''}]"]
    return " ".join(words)


def _title(text: str, style: Style) -> str:
    return style.paint(text + (":" if text == "Usage" else ""), "bold")


def _head(option: Option, style: Style) -> str:
    names = ", ".join(style.paint(name, "cyan") for name in option.names)
    value = option.metavar + ("…" if option.repeatable else "")
    return f"{names} {style.paint(value, 'dim')}" if value else names


def _about(option: Option, style: Style) -> str:
    return option.help + (style.paint(f" [{option.default}]", "dim") if option.default else "")


def _rows(rows: Sequence[tuple[str, str]], style: Style) -> list[str]:
    longest = max(columns_of(head) for head, _ in rows)
    indent = len(INDENT) + min(longest, max(HEAD_MAX, style.width // 3)) + len(GAP)
    return [line for head, text in rows for line in hang(INDENT + head, text, indent=indent, width=style.width)]


def _examples(examples: Iterable[Example], style: Style) -> list[str]:
    lines = []
    for example in examples:
        lines += [INDENT + style.paint(f"# {example.about}", "dim"), INDENT + style.paint(example.line, "cyan")]
    return lines
