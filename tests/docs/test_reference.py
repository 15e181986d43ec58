"""Whatever can be used, set or read is documented, with the values that the code has."""

from __future__ import annotations

import ast
import re
from enum import StrEnum
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from tests.docs.pages import ROOT, code_spans, tables

import casemate
from casemate import config, errors, limits, service_limits
from casemate.engine.request import CodeOptions, CommandOptions, SessionCodeOptions, SessionCommandOptions
from casemate.model.layers import REQUIRED, Layer
from casemate.model.resources import Limits
from casemate.model.runtime import Channel, Runtime
from casemate.model.units import format_bytes, format_duration
from casemate.service_config import LanguageConfig, ServiceConfig

REFERENCE = ROOT / "docs" / "reference"


def words(*names: str) -> set[str]:
    """Every identifier in the code spans of these pages."""
    spans = (span for name in names for span in code_spans((REFERENCE / name).read_text()))
    return {word for span in spans for word in re.findall(r"[\w-]+", span)}


def first_column(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose first heading is `head`."""
    found = [table for table in tables(REFERENCE / page) if table[0][0] == head]
    assert len(found) == 1, f"{page} has {len(found)} tables of {head!r}"
    return [[cell.strip("`") for cell in row] for row in found[0][1:]]


def fields(struct: type[msgspec.Struct]) -> set[str]:
    return set(struct.__struct_fields__)


# Names --------------------------------------------------------------------------------------------


def test_every_public_name_is_documented() -> None:
    assert set(casemate.__all__) <= words("python.md", "result.md", "limits.md")


def test_every_error_is_documented_with_its_code() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert {(row[0], row[1]) for row in first_column("python.md", "class")} == {
        (each.__name__, each.code) for each in classes if issubclass(each, errors.CasemateError)
    }


@pytest.mark.parametrize("options", [CodeOptions, CommandOptions], ids=lambda options: options.__name__)
def test_every_option_of_a_run_is_documented(options: type) -> None:
    assert set(get_type_hints(options)) <= {row[0] for row in first_column("python.md", "option")}


@pytest.mark.parametrize("options", [SessionCodeOptions, SessionCommandOptions], ids=lambda options: options.__name__)
def test_every_option_in_a_sandbox_that_stays_is_documented(options: type) -> None:
    assert set(get_type_hints(options)) <= words("python.md")


@pytest.mark.parametrize(
    "values",
    [casemate.Result, casemate.Usage, casemate.Isolation, casemate.Event, casemate.GuestError, casemate.OutputFile],
    ids=lambda values: values.__name__,
)
def test_every_field_of_a_result_is_documented(values: type[msgspec.Struct]) -> None:
    assert fields(values) <= words("result.md")


# Results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "values"), [("reason", casemate.Reason), ("layer", Layer)], ids=["reasons", "layers"])
def test_the_table_has_every_value(head: str, values: type[StrEnum]) -> None:
    assert sorted(row[0] for row in first_column("result.md", head)) == sorted(values)


def test_required_layers_are_marked() -> None:
    marked = {row[0] for row in first_column("result.md", "layer") if row[1] == "yes"}
    assert marked == set(REQUIRED)


def test_every_kind_of_event_is_documented() -> None:
    kinds = set()
    for path in (ROOT / "src" / "casemate").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event":
                values = (word.value for word in node.keywords if word.arg == "kind")
                kinds |= {value.value for value in values if isinstance(value, ast.Constant)}
    assert kinds == {row[0] for row in first_column("result.md", "kind")}


def test_numbers_of_the_result_are_those_of_the_code() -> None:
    text = (REFERENCE / "result.md").read_text()
    assert f"{limits.CAPTURE_HEAD_BYTES // limits.KIB} KiB each" in text
    assert limits.CAPTURE_HEAD_BYTES == limits.CAPTURE_TAIL_BYTES
    assert f"at most {limits.ERROR_TEXT_MAX_CHARS} characters" in text
    assert f"at most {limits.EVENTS_MAX}" in text


# Limits -------------------------------------------------------------------------------------------


def amount(key: str, value: float | None) -> str:
    """A limit's value as the table writes it."""
    if value is None:
        return "none"
    if key in {"timeout", "cpu_time"}:
        return format_duration(float(value))
    return format_bytes(int(value)) if key in {"memory", "disk", "output"} else f"{value:.15g}"


def refuses(key: str, value: float) -> bool:
    try:
        Limits().replacing({key: value})
    except casemate.InvalidInput:
        return True
    return False


def bound_of(text: str) -> float:
    """What a cell of the table says, as a number."""
    match = re.fullmatch(r"([\d.]+)(ms|s|Ki|Mi|Gi)?", text)
    assert match, text
    factors = {None: 1, "ms": 0.001, "s": 1, "Ki": limits.KIB, "Mi": limits.MIB, "Gi": limits.GIB}
    number = float(match[1]) * factors[match[2]]
    return int(number) if number.is_integer() else number


def test_every_limit_is_documented_with_its_default_and_its_range() -> None:
    keys = {
        "timeout": "wall_s",
        "cpu_time": "cpu_time_s",
        "cpu": "cpus",
        "memory": "memory_bytes",
        "disk": "disk_bytes",
    }
    keys |= {"output": "output_bytes"} | {name: name for name in ("processes", "inodes", "open_files")}
    assert set(keys.values()) == fields(Limits)
    tables_of_limits = [table for table in tables(REFERENCE / "limits.md") if table[0][0] == "key"]
    rows = [[cell.strip("`") for cell in row] for row in tables_of_limits[0][1:]]
    assert {row[0] for row in rows} == set(keys)
    for key, _, default, least, most, _ in rows:
        assert default == amount(key, getattr(Limits(), keys[key])), key
        low, high = bound_of(least), bound_of(most)
        assert not refuses(key, low)
        assert not refuses(key, high)
        assert refuses(key, low - (1 if isinstance(low, int) else low / 2))
        assert refuses(key, high + 1)


def test_reasons_of_limits_exist() -> None:
    table = next(table for table in tables(REFERENCE / "limits.md") if table[0][0] == "key")
    named = {match[1] for row in table[1:] if (match := re.fullmatch(r"`(\w+)`", row[5]))}
    assert named <= set(casemate.Reason)
    assert named == {"timeout", "cpu", "memory", "processes", "disk", "output"}


def test_other_bounds_have_the_values_of_the_code() -> None:
    for name, _, value in first_column("limits.md", "constant"):
        real = getattr(service_limits, name)
        shown = format_bytes(real) if name.endswith("_BYTES") and real % limits.KIB == 0 else f"{real:g}"
        assert value in {shown, str(real)}, name


def test_every_bound_on_what_a_caller_hands_in_is_documented() -> None:
    text = Path(limits.__file__).read_text()
    chapter = text.split("# What a caller may hand in")[1].split("\n# ")[0]
    assert set(re.findall(r"^(\w+): Final", chapter, re.MULTILINE)) <= words("limits.md")


# Configuration ------------------------------------------------------------------------------------


def test_every_key_of_the_configuration_is_documented() -> None:
    known = words("configuration.md")
    assert fields(config.Config) | fields(config.EngineConfig) | fields(Runtime) | set(Channel) <= known
    assert {config.CONFIG_VARIABLE, config.CGROUP_VARIABLE} <= known


def test_defaults_of_a_runtime_are_those_of_the_code() -> None:
    table = next(table for table in tables(REFERENCE / "configuration.md") if table[0] == ["key", "meaning", "default"])
    shown = {row[0].strip("`"): row[2] for row in table[1:]}
    assert set(shown) == fields(Runtime)
    for field in msgspec.structs.fields(Runtime):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        expected = "required" if field.required else f"`{msgspec.json.encode(default).decode()}`"
        assert shown[field.name].partition(", ")[0] == expected, field.name


@pytest.mark.parametrize(
    ("head", "table"),
    [("key of the service", ServiceConfig), ("key of a language", LanguageConfig)],
    ids=["service", "languages"],
)
def test_keys_of_the_service_have_the_defaults_of_the_code(head: str, table: type[msgspec.Struct]) -> None:
    shown = {row[0]: row[2].strip("`") for row in first_column("configuration.md", head)}
    assert set(shown) == fields(table)
    for field in msgspec.structs.fields(table):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        assert shown[field.name] == ("required" if field.required else msgspec.json.encode(default).decode()), (
            field.name
        )


def test_defaults_of_the_pool_are_those_of_the_code() -> None:
    shown = {row[0]: row[2].strip("`") for row in first_column("configuration.md", "key of the pool")}
    pool = config.PoolConfig()
    memory, idle = format_bytes(int(pool.memory)), format_duration(float(pool.idle))
    assert shown == {"ready_max": str(pool.ready_max), "memory": memory, "idle": idle}
