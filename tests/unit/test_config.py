"""Configuration and the registry of runtimes: what is wrong is named, and nothing else is ever raised."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate import limits
from casemate.config import Config, EngineConfig, cgroup_source, config_paths, load_config, parse_config, read_config
from casemate.errors import ConfigError, UnknownRuntime
from casemate.model.runtime import Channel, Runtime
from casemate.runtimes.registry import Registry, builtin_runtimes

FULL = b"""
[limits]
memory = "1Gi"
timeout = 5

[engine]
cgroup = "none"

[runtimes.tool]
interpreter = ["tool"]
command = ["{interpreter}", "{code}"]
channel = "text"
extensions = [".tool"]
aliases = ["t"]
limits = { processes = 5 }
"""
NOBODY = 65534
RUNTIME = '[runtimes.tool]\ninterpreter = ["tool"]\ncommand = ["{interpreter}"]\n'
TOML_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=6,
)
KNOWN_KEYS = [
    "limits",
    "engine",
    "runtimes",
    "memory",
    "timeout",
    "cgroup",
    "tool",
    "interpreter",
    "command",
    "harness",
]
DOCUMENTS = st.recursive(
    st.dictionaries(st.sampled_from(KNOWN_KEYS), TOML_VALUES, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(KNOWN_KEYS), inner, max_size=4),
    max_leaves=8,
)


def wrong(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text.encode(), name="the file")
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_full_configuration_is_read() -> None:
    config = parse_config(FULL, name="x")
    assert config.default_limits().memory_bytes == 2**30
    assert config.default_limits().wall_s == 5
    assert config.engine.cgroup == "none"
    assert config.runtimes["tool"].channel is Channel.TEXT


def test_an_empty_configuration_is_the_defaults() -> None:
    assert parse_config(b"", name="x") == Config()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("limit = 1", "limit"),
        ("[limits]\nram = 1", "limits.ram"),
        ('[limits]\nmemory = "much"', "limits.memory"),
        ("[limits]\nmemory = true", "limits.memory"),
        ("[limits]\nprocesses = " + "9" * 400, "limits.processes"),
        ("[limits]\ntimeout = nan", "limits.timeout"),
        ("limits = 5", "limits"),
        ("[engine]\ncgroups = 1", "engine.cgroups"),
        ("[engine]\ncgroup = 1", "engine.cgroup"),
        ("[runtimes.tool]\ncommand = ['x']", "runtimes.tool"),
        (RUNTIME + "channel = 'pigeon'", "runtimes.tool.channel"),
        (RUNTIME + "commands = []", "runtimes.tool.commands"),
        (RUNTIME + "extensions = ['xx']", "runtimes.tool.extensions"),
        (RUNTIME + "interactive = ['{interpreter}', '{cod}']", "runtimes.tool.interactive"),
        (RUNTIME.replace("tool", '"a b"', 1), "runtimes.a b"),
        (RUNTIME + "aliases = ['']", "runtimes.tool"),
        (RUNTIME + "limits = { memory = 1 }", "runtimes.tool.limits.memory"),
        (RUNTIME + "filename = 'a/b'", "runtimes.tool.filename"),
        (RUNTIME + 'paths = ["a\\u0000"]', "runtimes.tool"),
        ('[runtimes.tool]\ninterpreter = ["t"]\ncommand = []', "runtimes.tool.command"),
        ('[runtimes.tool]\ninterpreter = [""]\ncommand = ["x"]', "runtimes.tool.interpreter"),
        ("= 1", "the file"),
        ("a = 1\na = 2", "the file"),
        ("a = " + "[" * 5000, "the file"),
    ],
    ids=lambda value: value[-24:],
)
def test_what_is_wrong_is_named(text: str, field: str) -> None:
    assert wrong(text).field == field
    assert "the file" in str(wrong(text))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[limitz]", "did you mean limits?; in the file"),
        ("[zzz]", f"known: {', '.join(Config.__struct_fields__)}; in the file"),
        ("[engine]\ncgroups = 1", "did you mean cgroup?; in the file"),
        (RUNTIME + "comand = ['x']", "did you mean command?; in the file"),
        (RUNTIME + "extensions = ['xx']", "write it as .xx; in the file"),
        (RUNTIME + "interactive = ['{cod}']", "did you mean {code}?; in the file"),
    ],
)
def test_what_was_meant_is_said(text: str, hint: str) -> None:
    assert wrong(text).hint == hint


def test_braces_of_an_interpreter_s_own_are_no_placeholder() -> None:
    assert parse_config((RUNTIME + "interactive = ['awk', '{print}']").encode(), name="x").runtimes["tool"].interactive


@given(st.binary(max_size=200))
@example(b"\xff")
@example(b"a = " + b"[" * 100_000)
@example(b"a = " + b"{a=" * 100_000)
@example(b"[limits]\ntimeout = 1e999")
def test_any_bytes_are_a_configuration_or_a_config_error(data: bytes) -> None:
    parsed_or_refused(data)


@given(DOCUMENTS)
def test_any_document_is_a_configuration_or_a_config_error(document: dict[str, Any]) -> None:
    parsed_or_refused("\n".join(toml_lines(document)).encode())


def toml_lines(document: dict[str, Any]) -> list[str]:
    """As TOML, with inline tables; JSON's strings are TOML's but for one character."""
    return [f"{toml_key(key)} = {toml_value(value)}" for key, value in document.items()]


def toml_key(key: str) -> str:
    return msgspec.json.encode(key).decode().replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(toml_lines(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, str):
        return toml_key(value)
    return str(value).lower() if isinstance(value, bool | float) else str(value)


def parsed_or_refused(data: bytes) -> None:
    try:
        config = parse_config(data, name="x")
    except ConfigError as error:
        assert error.field
    else:
        config.default_limits()


# Where it is looked for ---------------------------------------------------------------------------


def test_the_variable_then_the_home_then_the_machine() -> None:
    assert config_paths({"CASEMATE_CONFIG": "/x.toml", "HOME": "/h"}) == [Path("/x.toml")]
    home, machine = Path("/h/.config/casemate/config.toml"), Path("/etc/casemate/config.toml")
    assert config_paths({"HOME": "/h"}) == [home, machine]
    assert config_paths({"HOME": "/h", "XDG_CONFIG_HOME": "/c"})[0] == Path("/c/casemate/config.toml")
    assert config_paths({}) == [machine]
    assert config_paths({"CASEMATE_CONFIG": ""}) == [machine]


def test_the_first_file_that_is_there_counts(tmp_path: Path) -> None:
    folder = tmp_path / "casemate"
    folder.mkdir()
    (folder / "config.toml").write_bytes(FULL)
    assert load_config({"XDG_CONFIG_HOME": str(tmp_path)}).engine.cgroup == "none"
    assert load_config({"XDG_CONFIG_HOME": str(tmp_path / "nothing")}).engine.cgroup == ""


def test_messages_name_what_chose_the_cgroup() -> None:
    config = Config(engine=EngineConfig(cgroup="here"))
    assert cgroup_source(config, {}) == "engine.cgroup"
    assert cgroup_source(config, {"CASEMATE_CGROUP": "elsewhere"}) == "engine.cgroup"
    assert cgroup_source(config, {"CASEMATE_CGROUP": "here"}) == "CASEMATE_CGROUP"


def test_the_variable_for_the_cgroup_goes_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(FULL)
    environment = {"CASEMATE_CONFIG": str(tmp_path / "c.toml"), "CASEMATE_CGROUP": "/somewhere"}
    assert load_config(environment).engine.cgroup == "/somewhere"
    assert load_config({"CASEMATE_CGROUP": "none", "HOME": str(tmp_path)}).engine.cgroup == "none"


def test_a_file_that_is_asked_for_has_to_be_there(tmp_path: Path) -> None:
    for name in ("missing.toml", ""):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config({"CASEMATE_CONFIG": str(tmp_path / name)})


def test_a_home_that_is_not_ours_to_look_into_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_bytes(b"")
    assert load_config({"HOME": str(folder)}) == Config()


def test_a_home_that_is_closed_to_us_is_no_error(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    ours = os.geteuid()
    if ours == 0:
        os.seteuid(NOBODY)
    try:
        assert load_config({"HOME": str(closed)}) == Config()
    finally:
        os.seteuid(ours)


def test_a_file_over_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"#" * (limits.CONFIG_MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        read_config(tmp_path / "c.toml")


# The registry -------------------------------------------------------------------------------------


def declared(**more: Any) -> Runtime:
    return Runtime(interpreter=("tool",), command=("{interpreter}",), **more)


def test_every_built_in_runtime_is_found_by_its_name_its_aliases_and_its_endings() -> None:
    registry = Registry({})
    assert dict(registry) == builtin_runtimes()
    for name, runtime in builtin_runtimes().items():
        assert registry.get(name) is runtime
        assert all(registry.get(alias) is runtime for alias in runtime.aliases)
        assert all(registry.guess(f"/a/b.c/main{ending}") == name for ending in runtime.extensions)
        assert runtime.command
        assert runtime.packages


def test_what_is_not_declared_is_refused_with_what_is() -> None:
    with pytest.raises(UnknownRuntime) as caught:
        Registry({"tool": declared()}).get("cobol" * 100)
    assert "tool" in caught.value.hint
    assert len(caught.value.message) < 150
    odd: list[Any] = [5, [], None]
    for name in odd:
        with pytest.raises(UnknownRuntime):
            Registry({}).get(name)


def test_a_declared_runtime_replaces_the_built_in_one_of_its_name() -> None:
    name = next(iter(builtin_runtimes()))
    mine = declared(extensions=(".mine",))
    registry = Registry({name: mine})
    assert registry.get(name) is mine
    assert registry.guess("a.mine") == name
    assert not any(registry.guess(f"a{ending}") == name for ending in builtin_runtimes()[name].extensions)


def test_a_file_without_a_known_ending_is_nobody_s() -> None:
    assert Registry({}).guess("Makefile") is None
    assert Registry({}).guess("a.unknown") is None
    assert Registry({"x": declared(extensions=("",))}).guess("Makefile") is None


def test_one_name_means_one_runtime() -> None:
    taken = next(iter(builtin_runtimes()))
    with pytest.raises(ConfigError) as caught:
        Registry({"tool": declared(aliases=(taken,))})
    assert caught.value.field == "runtimes.tool.aliases"
    with pytest.raises(ConfigError):
        Registry({"a": declared(aliases=("x",)), "b": declared(aliases=("x",))})


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('sets = { installer = "pip", target = "opt/x" }', "sets.target"),
        ('sets = { installer = "pip", target = "/work/x" }', "sets.target"),
        ('sets = { installer = "pip", target = "/opt/../work" }', "sets.target"),
        ('library = { source = "/srv/x", target = "/usr/x" }', "library.target"),
        ('library = { source = "x", target = "/opt/x" }', "library.source"),
        ('library = { source = "/srv/x", target = "/" }', "library.target"),
    ],
)
def test_packages_appear_only_where_nothing_else_is(text: str, key: str) -> None:
    declaration = f'[runtimes.x]\ninterpreter = ["x"]\ncommand = ["x"]\n{text}\n'
    with pytest.raises(ConfigError, match=f"runtimes.x.{key}"):
        parse_config(declaration.encode(), name="test")
