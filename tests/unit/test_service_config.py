"""What only the service reads of the configuration: what is wrong is named, by its key, language or variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.config import Config, parse_config
from casemate.errors import ConfigError
from casemate.limits import MIB
from casemate.service_config import (
    MASK,
    SERVICE_PREFIX,
    Service,
    ServiceConfig,
    check_variables,
    load_service,
    masked,
)

HOME = {"HOME": "/home/somebody"}
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def service(text: str = "", **environment: str) -> Service:
    return load_service(parse_config(text.encode(), name="the file"), HOME | environment)


def wrong(text: str, **environment: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        service(text, **environment)
    assert "\n" not in str(caught.value)
    return caught.value


def test_without_anything_there_are_defaults() -> None:
    found = service()
    assert (found.host, found.port, found.environment, found.log_retention_days) == ("127.0.0.1", 8700, "dev", 7)
    assert found.data == Path("/home/somebody/.local/share/casemate/service")
    assert found.drain_s == 10
    assert found.request_max_bytes == 32 * MIB
    assert found.concurrency >= 2


def test_keys_are_read_with_their_units() -> None:
    found = service('[service]\ndrain = "2m"\nrequest_max = "1Mi"\nport = 0\n[service.tags]\nteam = "a"\n')
    assert (found.drain_s, found.request_max_bytes, found.port, found.tags) == (120, MIB, 0, {"team": "a"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("host", "::1", "::1"),
        ("port", "81", 81),
        ("rate", "2.5", 2.5),
        ("database", "postgresql://host/name", "postgresql://host/name"),
        ("environment", "prod", "prod"),
        ("tags", '{"a": "b"}', {"a": "b"}),
        ("maximum", '{"memory": "1Gi"}', {"memory": "1Gi"}),
        ("patterns", '{"python": ["os.system"]}', {"python": ["os.system"]}),
    ],
)
def test_every_key_can_be_a_variable_that_comes_first(name: str, text: str, value: object) -> None:
    variables = {SERVICE_PREFIX + name.upper(): text}
    found = service('[service]\nhost = "10.0.0.1"\nport = 1\nrate = 1\nenvironment = "file"\n', **variables)
    written = getattr(found, "rate_per_s" if name == "rate" else name)
    assert msgspec.json.decode(msgspec.json.encode(written)) == value


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[languages.python]\ntimeout = 5\n", "languages.python.memory"),
        ("[languages.python]\nmemory = 5\n", "languages.python.timeout"),
        ("[languages.r]\nmemory = 'much'\ntimeout = 5\n", "languages.r.memory"),
        ("[languages.r]\nmemory = true\ntimeout = 5\n", "languages.r.memory"),
        ("[languages.r]\nmemory = 1.5\ntimeout = 5\n", "languages.r.memory"),
        ("[languages.js]\nmemory = 128\ntimeout = '5s'\n", "languages.js.timeout"),
        ("[languages.js]\nmemory = 128\ntimeout = nan\n", "languages.js.timeout"),
        ("[languages.js]\nmemory = 128\ntimeout = 0\n", "languages.js.timeout"),
        ("[languages.js]\nmemory = 128\ntimeout = 1\nretries = 3\n", "languages.js.retries"),
        ("[languages]\njs = 3\n", "languages.js"),
    ],
)
def test_s0_34_a_wrong_language_is_named_with_its_field(text: str, field: str) -> None:
    assert wrong(text).field == field


def test_s0_34_languages_have_memory_and_timeout_and_js_is_javascript() -> None:
    found = service("[languages.js]\nmemory = 128\ntimeout = 65\n[languages.python]\nmemory = 1024\ntimeout = 0.5\n")
    assert found.languages["javascript"].limits() == {"memory": 128 * MIB, "timeout": 65}
    assert found.languages["python"].limits() == {"memory": 1024 * MIB, "timeout": 0.5}


def test_s0_34_one_language_by_two_names_is_refused() -> None:
    table = "memory = 128\ntimeout = 1\n"
    assert "javascript" in wrong(f"[languages.javascript]\n{table}[languages.js]\n{table}").message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[service]\nprot = 1\n", "service.prot"),
        ("[service]\nport = 'x'\n", "service.port"),
        ("[service]\nport = 65536\n", "service.port"),
        ("[service]\nrate = nan\n", "service.rate"),
        ("[service]\ndrain = 'soon'\n", "service.drain"),
        ("[service]\ndrain = '2h'\n", "service.drain"),
        ("[service]\nrequest_max = '1Ti'\n", "service.request_max"),
        ("[service]\nlog_level = 'loud'\n", "service.log_level"),
        ("[service]\nlog_retention_days = 0\n", "service.log_retention_days"),
        ("[service]\nenvironment = 'Prod!'\n", "service.environment"),
        ("[service.maximum]\nmemory = 'much'\n", "service.maximum.memory"),
        ("[service.maximum]\nmemroy = '1Gi'\n", "service.maximum.memroy"),
        ("[service.patterns]\npython = [' ']\n", "service.patterns.python"),
        ("[service.tags]\na = 1\n", "service.tags"),
        ("[service]\ndatabase = 'mysql://host/name'\n", "service.database"),
        ("[service]\ndatabase = '/var/lib/records'\n", "service.database"),
    ],
)
def test_wrong_values_are_named(text: str, field: str) -> None:
    assert wrong(text).field == field


def test_a_relative_data_directory_is_refused() -> None:
    assert wrong("[service]\ndata = 'here'\n").field == "service.data"


@pytest.mark.parametrize("name", ["CASEMATE_SERVICE_PROT", "CASEMATE_CONFIGURATION", "CASEMATE_", "CASEMATE_PORT"])
def test_unknown_variables_are_refused_by_name(name: str) -> None:
    assert wrong("", **{name: "1"}).field == name


def test_variables_of_others_and_of_tests_are_not_ours() -> None:
    check_variables({"PATH": "", "CASEMATE_TEST_SLOWNESS": "1", "CASEMATE_CONFIG": "", "MY_CASEMATE_X": ""})


@pytest.mark.parametrize("text", ["many", "{", "1.5", ""])
def test_wrong_variables_are_named(text: str) -> None:
    assert wrong("", CASEMATE_SERVICE_PORT=text).field == "CASEMATE_SERVICE_PORT"


@given(st.sampled_from(ServiceConfig.__struct_fields__), JSON_VALUES)
def test_any_value_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    try:
        load_service(Config(service={name: value}), HOME)
    except ConfigError as error:
        assert name in error.field


@given(st.text(min_size=1), JSON_VALUES)
def test_any_language_is_taken_or_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_service(Config(languages={name: value}), HOME)
    assert caught.value.field.startswith("languages.")


def test_s2_80_the_place_of_the_queue_is_honoured_by_its_other_name() -> None:
    assert service().database == ""
    assert service(SANDBOX_REDIS_URL="postgresql://host/name").database == "postgresql://host/name"
    found = service(SANDBOX_REDIS_URL="postgresql://host/other", CASEMATE_SERVICE_DATABASE="postgresql://host/name")
    assert found.database == "postgresql://host/name"
    assert service(SANDBOX_REDIS_URL="").database == ""


def test_s2_80_a_redis_is_refused_and_its_password_not_told() -> None:
    refused = wrong("", SANDBOX_REDIS_URL="redis://:hunter2@localhost:6379")
    assert refused.field == "SANDBOX_REDIS_URL"
    assert "PostgreSQL" in refused.hint
    assert "hunter2" not in str(refused)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:hunter2@host/name", f"postgresql://me:{MASK}@host/name"),
        ("postgresql://me:hun@ter2@host/name", f"postgresql://me:{MASK}@host/name"),
        (
            "postgresql:///name?user=me&password=hunter2&sslmode=require",
            f"postgresql:///name?user=me&password={MASK}&sslmode=require",
        ),
        ("postgresql://me@host:5432/name", "postgresql://me@host:5432/name"),
        ("http://host:80/a@b", "http://host:80/a@b"),
    ],
)
def test_passwords_in_addresses_are_masked(address: str, shown: str) -> None:
    assert masked({"database": [address]}) == {"database": [shown]}


def test_secrets_are_masked_at_any_depth() -> None:
    shown = masked({"a": {"API_KEY": "x", "token": "y", "key": ""}, "list": [{"password": "z"}], "monkeys": "eat"})
    assert shown == {"a": {"API_KEY": MASK, "token": MASK, "key": ""}, "list": [{"password": MASK}], "monkeys": "eat"}
