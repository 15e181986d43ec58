"""The guide to the command line has every command, every option and every exit status."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import ROOT, code_spans, tables

from casemate.cli import report
from casemate.cli.arguments import Command
from casemate.cli.commands import COMMANDS, GROUPS, LIMITS
from casemate.cli.service_commands import COMMANDS as SERVICE_COMMANDS
from casemate.isolation.doctor import Finding

GUIDE = ROOT / "docs" / "guides" / "cli.md"
FUNCTIONS = ROOT / "docs" / "guides" / "service-functions.md"
DOCTOR = ROOT / "docs" / "guides" / "doctor.md"
SHOWN = [command for command in COMMANDS.values() if not command.hidden]


def table(head: str) -> list[list[str]]:
    return next(rows[1:] for rows in tables(GUIDE) if rows[0][0] == head)


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.name)
def test_every_command_and_option_is_in_the_guide(command: Command) -> None:
    text = GUIDE.read_text()
    assert f"`casemate {command.name}`" in {row[0] for row in table("command")}
    for option in command.options:
        assert any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in option.names), option.names


@pytest.mark.parametrize("command", SERVICE_COMMANDS.values(), ids=lambda command: command.name)
def test_every_command_that_speaks_with_a_service_is_in_the_guides(command: Command) -> None:
    text = FUNCTIONS.read_text() + GUIDE.read_text()
    group = command.name.partition(" ")[0]
    assert group in GROUPS
    assert f"`casemate {group}`" in {row[0] for row in table("command")}
    words = " ".join(["casemate", command.name, *(argument.metavar for argument in command.arguments)])
    required = words if not command.optional else words.rpartition(" ")[0]
    assert required in " ".join(row[0] for rows in tables(FUNCTIONS) for row in rows)
    for option in command.options:
        assert any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in option.names), option.names


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_of_commands_is_in_the_guide(group: str) -> None:
    assert any(f"`casemate {group}`" in row[0] for row in table("command"))


def test_the_defaults_of_limits_are_those_of_the_code() -> None:
    assert {row[0].strip("`"): row[2] for row in table("option")} == {
        option.names[-1]: option.default or "none" for option in LIMITS
    }


def test_every_exit_status_of_ours_is_explained() -> None:
    numbers = {number for row in table("status") for number in map(int, re.findall(r"\d+", row[0]))}
    ours = {value for name, value in vars(report).items() if name.startswith("EXIT_")}
    assert ours <= numbers


def test_the_fields_of_the_doctor_s_report_are_named() -> None:
    assert set(Finding.__struct_fields__) <= code_spans(DOCTOR.read_text())
