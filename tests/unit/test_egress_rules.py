"""Hosts and addresses: what is not allowed by name is refused, whatever it is written like."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.egress.rules import HostRule, Policy, is_public, normal_host, parse_rule, reachable
from casemate.errors import InvalidInput

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("example.org", HostRule("example.org", 443)),
        ("Example.ORG.", HostRule("example.org", 443)),
        ("example.org:8080", HostRule("example.org", 8080)),
        ("*.example.org", HostRule("*.example.org", 443)),
        ("192.0.2.1:80", HostRule("192.0.2.1", 80)),
        ("[2001:DB8::1]:80", HostRule("2001:db8::1", 80)),
        ("2001:db8::1", HostRule("2001:db8::1", 443)),
    ],
)
def test_rules_are_read_as_people_write_them(text: str, rule: HostRule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "a..b", "a b", "http://a", "a/b", "a:0", "a:65536", "a:x", "127.1", "0x7f.0.0.1", "0x7f000001",
     "2130706433", "*.192.0.2.1", "a@b", "-a", "a\n", "ä.de", "[::1", "a" * 64, "a." * 127 + "toolong"],
)  # fmt: skip
def test_what_is_no_host_is_no_rule(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rule(text)


def test_no_rules_allow_nothing() -> None:
    assert Policy().rule_for("example.org", 443) is None


@given(NAMES, PORTS)
def test_a_rule_allows_its_own_host_and_port_and_no_other(name: str, port: int) -> None:
    policy = Policy((HostRule(name, port),))
    assert policy.rule_for(name, port) is not None
    assert policy.rule_for(name, port % 65535 + 1) is None
    for other in (f"x{name}", f"{name}x", f"a.{name}", f"{name}.a"):
        assert policy.rule_for(other, port) is None


@given(NAMES, NAMES)
def test_a_suffix_allows_what_is_below_it_and_not_itself(suffix: str, below: str) -> None:
    policy = Policy((HostRule(f"*.{suffix}"),))
    assert policy.rule_for(f"{below}.{suffix}", 443) is not None
    assert policy.rule_for(suffix, 443) is None
    assert policy.rule_for(f"{below}{suffix}", 443) is None
    assert policy.rule_for(f".{suffix}", 443) is None


@given(st.text(max_size=300))
def test_the_normal_form_of_a_host_is_its_own_normal_form(text: str) -> None:
    once = normal_host(text)
    assert normal_host(once) == once
    assert once == once.lower()


PRIVATE = [
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "192.0.2.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe",
    "2001:db8::1", "fec0::1", "feff::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64::1",
    "no address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert reachable(HostRule("example.org"), [address]) == []
    assert reachable(HostRule("example.org", anywhere=True), [address]) == [address]


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@given(st.integers(0, 2**32 - 1))
def test_an_address_in_disguise_is_as_public_as_itself(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    assert is_public(str(plain)) >= is_public(f"::ffff:{plain}")
