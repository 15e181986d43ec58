"""Hosts as people write them, wherever they may: what is none is refused at once, and the field is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from casemate.config import Config
from casemate.egress.policy import Rules, parse_pattern
from casemate.egress.settings import settings_of
from casemate.errors import ConfigError, InvalidInput, NotAllowed
from casemate.jobs.config import load_jobs
from casemate.jobs.policy import check_policy
from casemate.jobs.request import Asked, spec_of
from casemate.model.job import JobSpec
from casemate.model.network import Injection, NetworkPolicy
from casemate.tenancy.destinations import configured

SETTINGS = load_jobs(Config(), {})
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
LONG = "a" * 63
LONGEST = ".".join([LONG, LONG, LONG, "a" * 61])
"""A name of 253 characters."""

NONE = [
    *("", ".", "..", "*.", "*..", "**", "*.*", "a.*.b", "*a", "a*", "a..b", ".a", "a..", "*.a..b", "*..a", "a.b..:443"),
    *(LONG + "a", f"{LONG}a.example", f"{LONGEST}b", f"*.{LONGEST}b", "-a.example", "a-.example", "a.-", "a b", "a\n"),
    *("ä.example", "xn--ä.example", "a。example", "a.example\u200b", "İ.example", "\ud800", "a\0b", "%61.example"),
    *("a:", "a:0", "a:65536", "a:-1", "a:+1", "a:1e3", "a:٤٤٣", "a:80:80", "a:000443", ":443", "*.:443", "[a]:443"),
    *("http://a", "a/b", "a/24", "a@b", "a?b", "a#b", "127.1", "0x7f.0.0.1", "2130706433", "1.2.3.4.5", "*.192.0.2.1"),
    *("10.0.0.1/8", "10.0.0.0/33", "::1/129", "[::1", "::1]", "1.2.3.4/255.0.0.256", "fe80::1%eth0/64/1"),
]
RIGHT = [
    *("*", "*:443", "a", "A.Example", "a.example.", "a.example.:443", "*.a.example", "xn--4ca.example", "a_b.example"),
    *(LONG, LONGEST, f"{LONGEST}.", "203.0.113.7", "203.0.113.0/24", "203.0.113.0/24:443", "::1", "[::1]:443"),
]
TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="a1-_.*:[]/ \näß。٤xX", max_size=20),
    st.lists(st.sampled_from(["a", "", LONG, LONG + "a", "*", "-a", "ä", "1", "0x1"]), max_size=6).map(".".join),
    st.builds("{}:{}".format, st.sampled_from(["a", "*", "*.a", "[::1]", "203.0.113.7"]), st.integers(-9, 99_999)),
)
NAMES = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,3}", fullmatch=True)
PORTS = st.sampled_from([80, 443])
ENTRIES = st.one_of(
    st.builds(
        "{}{}".format,
        st.one_of(
            st.sampled_from(["*", "203.0.113.0/24", "203.0.113.7", "0.0.0.0/0"]), NAMES, NAMES.map("*.{}".format)
        ),
        st.sampled_from(["", ":80", ":443"]),
    ),
    st.sampled_from(["2001:db8::/32", "2001:db8::1", "::/0", "[2001:db8::1]:80", "[2001:db8::/32]:443"]),
)


def submitted(text: str) -> JobSpec:
    network = NetworkPolicy(outbound=True, allowed_hosts=(text,))
    return spec_of(Asked(command="true", network=network), SETTINGS, {})


def configured_for_jobs(text: str) -> object:
    return load_jobs(Config(jobs={"allowed_hosts": [text]}), {})


def configured_as_private(text: str) -> object:
    return settings_of({"anywhere": [text]})


def is_accepted(asking: Callable[[str], object], text: str, field: str) -> bool:
    try:
        asking(text)
    except InvalidInput as error:
        assert error.field == field
        assert error.message.isprintable()
        return False
    return True


def is_host(text: str) -> bool:
    """Whether that is an entry, said once more in other words."""
    name, colon, digits = text.rpartition(":")
    if colon and (":" not in name or name.endswith("]")) and not digits.endswith("]"):
        if not re.fullmatch(r"[0-9]{1,5}", digits, re.ASCII) or not 0 < int(digits) < 65_536:
            return False
        text = name
    if text == "*":
        return True
    try:
        ip_network(re.sub(r"^\[(.*)\]$", r"\1", text, flags=re.DOTALL))
    except ValueError:
        labels = text.lower().removeprefix("*.").removesuffix(".").split(".")
        is_number = re.fullmatch(r"0x[0-9a-f]*|[0-9]+", labels[-1])
        return not is_number and len(".".join(labels)) <= 253 and all(map(LABEL.fullmatch, labels))
    return True


@pytest.mark.parametrize("text", NONE)
def test_s2_51_what_is_no_host_is_refused_where_it_is_written(text: str) -> None:
    assert not is_accepted(submitted, text, "network.allowed_hosts")
    assert not is_accepted(configured_for_jobs, text, "jobs.allowed_hosts")
    assert not is_accepted(configured_as_private, text, "network.anywhere")
    with pytest.raises(ConfigError) as caught:
        configured([text])
    assert caught.value.field == "accounting.webhook_hosts"
    inject = NetworkPolicy(inject=(Injection(host=text, header="a", secret="S"),))
    with pytest.raises(InvalidInput) as refused:
        spec_of(Asked(command="true", network=inject), SETTINGS, {})
    assert refused.value.field == "network.inject.host"


@pytest.mark.parametrize("text", RIGHT)
def test_s2_51_what_is_a_host_is_taken_everywhere(text: str) -> None:
    for asking in (submitted, configured_for_jobs, configured_as_private):
        assert is_accepted(asking, text, "")


@given(TEXTS)
@example("a.example.:443")
@example("[203.0.113.7]:443")
def test_s2_51_any_text_is_a_host_or_refused_by_its_field_and_everywhere_alike(text: str) -> None:
    expected = is_host(text)
    assert is_accepted(submitted, text, "network.allowed_hosts") is expected
    assert is_accepted(configured_as_private, text, "network.anywhere") is expected
    assert is_accepted(configured_for_jobs, text, "jobs.allowed_hosts") is expected


@given(TEXTS)
def test_s2_51_what_is_accepted_no_gateway_refuses(text: str) -> None:
    if is_accepted(submitted, text, "network.allowed_hosts"):
        Rules(submitted(text).network)


def test_names_in_other_letters_are_told_how_they_are_written() -> None:
    with pytest.raises(InvalidInput) as refused:
        submitted("bücher.example")
    assert "xn--" in refused.value.hint


@given(ENTRIES, ENTRIES, st.one_of(NAMES, st.sampled_from(["203.0.113.7", "203.0.114.7", "2001:db8::1"])), PORTS)
def test_s2_86_what_a_list_includes_reaches_nothing_that_the_list_does_not(
    wider: str, narrower: str, host: str, port: int
) -> None:
    listed, asked = parse_pattern(wider), parse_pattern(narrower)
    if listed.includes(asked) and asked.covers(host, port):
        assert listed.covers(host, port)
    settings = load_jobs(Config(jobs={"allowed_hosts": [wider]}), {})
    spec = JobSpec(argv=("true",), network=NetworkPolicy(outbound=True, allowed_hosts=(narrower,)))
    try:
        check_policy(spec, "", settings)
    except NotAllowed:
        assert not listed.includes(asked)
    else:
        assert listed.includes(asked)


@pytest.mark.parametrize(
    ("wider", "narrower", "expected"),
    [
        ("*", "example.org", True),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "*.a.example.org", True),
        ("*.example.org", "*.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*.example.org", "*", False),
        ("Example.org.", "example.ORG", True),
        ("example.org", "example.org:443", True),
        ("example.org:443", "example.org", False),
        ("example.org:443", "example.org:80", False),
        ("example.org:443", "example.org:0443", True),
        ("198.51.100.0/24", "198.51.100.7", True),
        ("198.51.100.0/24", "::ffff:198.51.100.7", True),
        ("198.51.100.0/24", "198.51.0.0/16", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("[2001:db8::1]:443", "[2001:db8::1]:443", True),
        ("198.51.100.0/24", "2001:db8::1", False),
        ("2001:db8::/32", "198.51.100.1", False),
        ("198.51.100.0/24", "example.org", False),
        ("example.org", "198.51.100.7", False),
    ],
)
def test_s2_86_one_pattern_of_hosts_includes_another(wider: str, narrower: str, expected: bool) -> None:
    assert parse_pattern(wider).includes(parse_pattern(narrower)) is expected
