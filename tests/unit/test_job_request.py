"""Jobs as they are asked for: words, amounts, names; and the settings that fill in the rest."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.config import Config
from casemate.errors import ConfigError, InvalidInput
from casemate.jobs.config import JobsConfig, load_jobs
from casemate.jobs.request import Asked, check_id, spec_of
from casemate.model.job import JobFile, JobSpec, Retries
from casemate.model.network import Injection, NetworkPolicy
from casemate.model.resources import Limits

SETTINGS = load_jobs(Config(jobs={"refuse_dangerous": False}), {})
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=8
)


def made(**fields: Any) -> JobSpec:
    return spec_of(Asked(**{"command": "ls", **fields}), SETTINGS, {})


def wrong(**fields: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        made(**fields)
    return caught.value


@given(WORDS)
def test_s2_9_words_arrive_as_they_were_written(words: list[str]) -> None:
    if words[0]:
        assert made(command=tuple(words)).argv == tuple(words)
        assert made(command=shlex.join(words)).argv == tuple(words)


def test_s2_9_a_command_is_split_as_a_shell_splits_words_and_nothing_more() -> None:
    spec = made(command="""printf '%s\n' "two words" a\\ b *.csv $HOME ; id | x""")
    assert spec.argv == ("printf", "%s\n", "two words", "a b", "*.csv", "$HOME", ";", "id", "|", "x")


def test_s2_9_a_shell_has_to_be_asked_for() -> None:
    assert made(command="echo $HOME | wc", shell=True).argv == ("/bin/sh", "-c", "echo $HOME | wc")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"command": "ls 'open"}, "command"),
        ({"command": ""}, "command"),
        ({"command": "  ", "shell": True}, "command"),
        ({"command": ("",)}, "command"),
        ({"command": ("a\0",)}, "command"),
        ({"command": ("x" * 200_000,)}, "command"),
        ({"command": "x" * 70_000}, "command"),
        ({"command": None}, "command"),
        ({"code": "1", "runtime": "python"}, "command"),
        ({"command": None, "code": "1"}, "runtime"),
        ({"runtime": "python"}, "runtime"),
        ({"command": ("ls",), "shell": True}, "shell"),
        ({"environment": {"A B": "1"}}, "environment.A B"),
        ({"environment": {"A": "\0"}}, "environment.A"),
        ({"environment": {"A": "x" * 40_000}}, "environment"),
        ({"secrets": ("no-name",)}, "secrets"),
        ({"secrets": ("A",), "environment": {"A": ""}}, "secrets"),
        ({"image": "debian"}, "image"),
        ({"retries": Retries(max=-1)}, "retries.max"),
        ({"retries": Retries(max=1000)}, "retries.max"),
        ({"retries": Retries(backoff_s=-1)}, "retries.backoff"),
        ({"stdin": b"x" * 2_000_000}, "stdin"),
        ({"collect": ("/etc/*",)}, "collect"),
        ({"collect": ("../x",)}, "collect"),
        ({"shared": ("",)}, "shared"),
        ({"labels": {"": "x"}}, "labels."),
        ({"network": NetworkPolicy(allowed_hosts=("a b",))}, "network.allowed_hosts"),
        ({"network": NetworkPolicy(blocked_ports=(0,))}, "network.blocked_ports"),
        ({"network": NetworkPolicy(bandwidth_bytes_per_s=0)}, "network.bandwidth"),
        ({"network": NetworkPolicy(inject=(Injection(host="a", header="a b", secret="S"),))}, "network.inject.header"),
        ({"network": NetworkPolicy(inject=(Injection(host="*.a", header="a", secret="S"),))}, "network.inject.host"),
        ({"network": NetworkPolicy(strip_headers=("Host",))}, "network.strip_headers"),
    ],
)
def test_s2_3_what_is_wrong_is_named_before_anything_starts(fields: dict[str, Any], field: str) -> None:
    assert wrong(**fields).field == field


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\0", "x" * 300, "a\nb", "\ud800"]
)
def test_s2_45_paths_of_files_stay_below_the_input(path: str) -> None:
    assert wrong(files=(JobFile(path=path, content=b""),)).field == "files[0].path"


@pytest.mark.parametrize(
    "files",
    [
        (JobFile(path="a"),),
        (JobFile(path="a", content=b"", object="shared/x"),),
        (JobFile(path="a", content=b"", mode=0o4755),),
        (JobFile(path="a", content=b""), JobFile(path="a", content=b"")),
        (JobFile(path="a", content=b""), JobFile(path="a/b", content=b"")),
    ],
)
def test_s2_17_files_that_contradict_each_other_are_refused(files: tuple[JobFile, ...]) -> None:
    assert wrong(files=files).field.startswith("files[")


@pytest.mark.parametrize(
    ("limits", "attribute", "expected"),
    [
        ({"cpu": "0.5"}, "cpus", 0.5),
        ({"cpu": 2}, "cpus", 2.0),
        ({"memory": "512Mi"}, "memory_bytes", 512 * 2**20),
        ({"memory": "1Gi"}, "memory_bytes", 2**30),
        ({"disk": "1Gi"}, "disk_bytes", 2**30),
        ({"disk": "1G"}, "disk_bytes", 10**9),
        ({"timeout": 60}, "wall_s", 60.0),
        ({"timeout": "2m"}, "wall_s", 120.0),
    ],
)
def test_s2_13_units_are_parsed(limits: dict[str, Any], attribute: str, expected: float) -> None:
    assert getattr(Limits().replacing(made(limits=limits).limits), attribute) == expected


@pytest.mark.parametrize(
    "limits", [{"cpu": "half"}, {"cpu": "-1"}, {"cpu": 0}, {"memory": "512MiB!"}, {"memory": "lots"}, {"disk": "1 Zi"}]
)
def test_s2_12_amounts_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    assert wrong(limits=limits).field == f"limits.{next(iter(limits))}"


def test_s2_12_more_than_the_service_allows_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"limits\.memory"):
        spec_of(Asked(command="ls", limits={"memory": "2Gi"}), SETTINGS, {"memory": "1Gi"})


def test_s2_83_defaults_apply_where_a_job_asks_for_nothing() -> None:
    found = Limits().replacing(made().limits)
    assert (found.cpus, found.memory_bytes, found.disk_bytes, found.wall_s) == (0.5, 512 * 2**20, 2**30, 300.0)
    variables = {
        "SANDBOX_DEFAULT_CPU": "0.25",
        "SANDBOX_DEFAULT_MEMORY": "64Mi",
        "SANDBOX_DEFAULT_DISK": "32Mi",
        "SANDBOX_DEFAULT_TIMEOUT": "7",
    }
    other = Limits().replacing(spec_of(Asked(command="ls"), load_jobs(Config(), variables), {}).limits)
    assert (other.cpus, other.memory_bytes, other.disk_bytes, other.wall_s) == (0.25, 64 * 2**20, 32 * 2**20, 7.0)


def test_s2_83_our_own_variables_come_before_common_ones_and_these_before_the_file() -> None:
    config = Config(jobs={"cpu": "1"})
    assert load_jobs(config, {}).limits["cpu"] == "1"
    assert load_jobs(config, {"SANDBOX_DEFAULT_CPU": "2"}).limits["cpu"] == "2"
    both = {"SANDBOX_DEFAULT_CPU": "2", "CASEMATE_JOBS_CPU": "3"}
    assert load_jobs(config, both).limits["cpu"] == "3"


def test_s2_84_s2_85_s2_86_lists_are_honoured() -> None:
    found = load_jobs(
        Config(),
        {
            "SANDBOX_ALLOWED_COMMANDS": "ls,cat,grep,curl,wget",
            "SANDBOX_BLOCKED_PORTS": "22,25,3306,5432",
            "SANDBOX_ALLOWED_HOSTS": "api.github.com",
        },
    )
    assert found.allowed_commands == ("ls", "cat", "grep", "curl", "wget")
    assert found.blocked_ports == (22, 25, 3306, 5432)
    assert found.allowed_hosts == ("api.github.com",)


@pytest.mark.parametrize(
    ("config", "variables", "field"),
    [
        ({"cpus": 1}, {}, "jobs.cpus"),
        ({"cpu": "x"}, {}, "jobs.cpu"),
        ({"lease": "0.1s"}, {}, "jobs.lease"),
        ({"concurrency": -1}, {}, "jobs.concurrency"),
        ({"retention_days": 0}, {}, "jobs.retention_days"),
        ({"allowed_commands": ["a b"]}, {}, "jobs.allowed_commands"),
        ({"blocked_ports": [0]}, {}, "jobs.blocked_ports"),
        ({"denied": [""]}, {}, "jobs.denied"),
        ({}, {"CASEMATE_JOBS_CPUS": "1"}, "CASEMATE_JOBS_CPUS"),
        ({}, {"CASEMATE_JOBS_CONCURRENCY": "many"}, "CASEMATE_JOBS_CONCURRENCY"),
        ({}, {"SANDBOX_BLOCKED_PORTS": "ssh"}, "SANDBOX_BLOCKED_PORTS"),
        ({}, {"SANDBOX_DEFAULT_MEMORY": "much"}, "jobs.memory"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, Any], variables: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_jobs(Config(jobs=config), variables)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("config", "variables"), [({"base": "tiny"}, {}), ({}, {"CASEMATE_JOBS_BASE": "tiny"})], ids=["file", "variable"]
)
def test_what_can_be_chosen_is_told(config: dict[str, Any], variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_jobs(Config(jobs=config), variables)
    assert caught.value.hint == "known: minimal, machine"


@given(st.sampled_from(JobsConfig.__struct_fields__), JSON_VALUES)
def test_any_setting_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        load_jobs(Config(jobs={name: value}), {})
    except ConfigError as error:
        assert name in error.field


@pytest.mark.parametrize("text", ["a", "nightly.2024-01-01", "A_b-c.9", "x" * 64])
def test_s2_8_an_id_may_be_chosen(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize("text", ["", ".a", "-a", "_a", "a/b", "a b", "x" * 65, "ä", "a\n"])
def test_s2_8_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="id"):
        check_id(text)
