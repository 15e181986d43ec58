"""The wire's constants are written twice, in C and in Python: they must say the same."""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from tests.native.plans import FDS_MAX, HEAD, REQUEST_SHAPES, STRINGS_MAX

from casemate import limits
from casemate.isolation import protocol, steps

NATIVE = Path(__file__).parents[2] / "native"
HEADER = re.sub(r"/\*.*?\*/", "", (NATIVE / "casemate.h").read_text(), flags=re.DOTALL)
FIELD_SIZES = {"uint32_t": 4, "int32_t": 4, "uint64_t": 8}


def defined(name: str) -> int:
    match = re.search(rf"#define {name} \(?([^\n)]+)\)?", HEADER)
    assert match, f"no {name} in casemate.h"
    factors = [int(word.strip().rstrip("u"), 0) for word in match[1].split("*")]
    product = 1
    for factor in factors:
        product *= factor
    return product


def enumerators(prefix: str) -> dict[str, int]:
    """The enumerators of all enums whose names start so, without the prefix and without the `LAST` marks."""
    found: dict[str, int] = {}
    for body in re.findall(r"enum \{(.*?)\}", HEADER, flags=re.DOTALL):
        value = -1
        for item in filter(None, (part.strip() for part in body.split(","))):
            name, _, text = (part.strip() for part in item.partition("="))
            value = value + 1 if not text else found.get(text.removeprefix(prefix), value)
            if re.fullmatch(r"-?[0-9]+u?", text):
                value = int(text.rstrip("u"))
            if name.startswith(prefix) and not name.endswith("_LAST"):
                found[name.removeprefix(prefix)] = value
    return found


def shapes(table: str, prefix: str) -> dict[str, str]:
    source = (NATIVE / "plan.c").read_text()
    body = source.partition(f"{table}[")[2].partition("};")[0]
    return dict(re.findall(rf"\[{prefix}(\w+)\] = \"(\w*)\"", body))


def fields_of(struct: str) -> list[str]:
    body = re.search(rf"struct {struct} \{{(.*?)\}};", HEADER, flags=re.DOTALL)
    assert body
    types = []
    for line in filter(None, (line.strip() for line in body[1].split(";"))):
        kind, names = line.split(maxsplit=1)
        types += [kind] * len(names.split(","))
    return types


@pytest.mark.parametrize(
    ("prefix", "twin"),
    [
        ("STEP_", steps.StepKind),
        ("REQUEST_", protocol.RequestKind),
        ("REPORT_", protocol.ReportKind),
        ("CGROUP_", protocol.CgroupKind),
        ("FAILED_", protocol.Stage),
    ],
)
def test_enumerations_are_the_same(prefix: str, twin: type[IntEnum]) -> None:
    assert enumerators(prefix) == {member.name: member.value for member in twin}


def test_spawn_flags_are_the_same() -> None:
    flags: type[IntFlag] = protocol.SpawnFlag
    assert enumerators("SPAWN_") == {member.name: member.value for member in flags}


def test_every_stage_outside_the_plan_has_words() -> None:
    assert set(protocol.FAILED_STAGES) == set(protocol.Stage)


def test_shapes_of_steps_are_the_same() -> None:
    assert shapes("step_shapes", "STEP_") == {kind.name: shape for kind, shape in steps.SHAPES.items()}


def test_shapes_of_requests_are_the_same() -> None:
    assert shapes("request_shapes", "REQUEST_") == {kind.name: shape for kind, shape in REQUEST_SHAPES.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PLAN_MAGIC", steps.PLAN_MAGIC),
        ("PLAN_VERSION", steps.PLAN_VERSION),
        ("PLAN_MAX_BYTES", limits.PLAN_MAX_BYTES),
        ("PLAN_STEPS_MAX", limits.PLAN_STEPS_MAX),
        ("MESSAGE_MAX_BYTES", limits.MESSAGE_MAX_BYTES),
        ("PLAN_FDS_MAX", FDS_MAX),
        ("STRINGS_MAX", STRINGS_MAX),
    ],
)
def test_bounds_are_the_same(name: str, value: int) -> None:
    assert defined(name) == value


def test_what_a_caller_may_hand_in_fits_the_launcher() -> None:
    assert max(limits.ARGS_MAX, limits.ENV_MAX) < defined("STRINGS_MAX")
    words = ["x" * (limits.ARGV_TOTAL_MAX_BYTES - limits.ARGS_MAX + 1), *["x"] * (limits.ARGS_MAX - 1)]
    variables = ["A=" + "x" * (limits.ENV_TOTAL_MAX_BYTES - 2 * limits.ENV_MAX), *["B="] * (limits.ENV_MAX - 1)]
    request = protocol.encode_spawn(
        2**32 - 1, words, variables, cwd="/" * limits.PATH_MAX_BYTES, flags=protocol.SpawnFlag.NONE
    )
    assert len(request) <= limits.MESSAGE_MAX_BYTES


def test_the_plan_s_head_is_as_long_as_it_is_written() -> None:
    assert sum(FIELD_SIZES[kind] for kind in fields_of("plan")) == HEAD.size


def test_a_report_is_as_long_as_it_is_read() -> None:
    kinds = fields_of("report")
    assert "".join({"uint32_t": "I", "int32_t": "i", "uint64_t": "Q"}[kind] for kind in kinds) == (
        protocol.REPORT.format.removeprefix("<")
    )
