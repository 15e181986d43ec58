"""What a policy allows, and where a host may lead: nothing that is not named, and never a place where secrets are."""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import network_limits as bound
from casemate.egress.judge import Place, Reason, Refused, judge, judge_request, may_be_raw, precheck
from casemate.egress.policy import Rules, parse_authority, parse_pattern
from casemate.egress.rules import is_public, normal_host
from casemate.egress.sniff import Kind, Seen
from casemate.errors import InvalidInput
from casemate.model.network import BLOCKED_PORTS, NO_NETWORK, NetworkPolicy

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True)
PORTS = st.integers(1, 65535)
OPEN_PORTS = PORTS.filter(lambda port: port not in BLOCKED_PORTS)
ADDRESSES = st.ip_addresses().map(str)
PUBLIC = "93.184.215.14"


def rules(*hosts: str, **policy: object) -> Rules:
    return Rules(NetworkPolicy(outbound=True, allowed_hosts=hosts, **policy))  # type: ignore[arg-type]


@given(NAMES, PORTS)
def test_n7_no_policy_and_an_empty_one_allow_nothing(host: str, port: int) -> None:
    for each in (Rules(NO_NETWORK), rules(), Rules(NetworkPolicy(allowed_hosts=("*", host)))):
        assert each.allows(host, port) is None
        assert each.allows(PUBLIC, port) is None
        assert each.allows(host, None) is None


@given(NAMES, OPEN_PORTS)
def test_s2_53_a_name_allows_itself_on_every_port_that_is_not_blocked(host: str, port: int) -> None:
    found = rules(host)
    assert found.allows(host, port) is not None
    for other in (f"x{host}", f"{host}x", f"a.{host}", f"{host}.a", PUBLIC):
        assert found.allows(other, port) is None


@given(NAMES, NAMES, OPEN_PORTS)
def test_a_suffix_allows_what_is_below_it(suffix: str, below: str, port: int) -> None:
    grant = rules(f"*.{suffix}").allows(f"{below}.{suffix}", port)
    assert grant is not None
    assert grant.below == below
    assert rules(f"*.{suffix}").allows(suffix, port) is None
    assert rules(f"*.{suffix}").allows(f"{below}{suffix}", port) is None


@given(NAMES, OPEN_PORTS, OPEN_PORTS)
def test_an_entry_with_a_port_is_for_that_port(host: str, port: int, other: int) -> None:
    found = rules(f"{host}:{port}")
    assert (found.allows(host, other) is not None) == (port == other)


@given(st.sampled_from(["*", "93.184.215.0/24", PUBLIC, "a.example"]), st.sampled_from(BLOCKED_PORTS))
def test_s2_52_blocked_ports_are_refused_whatever_the_entry(entry: str, port: int) -> None:
    for host in (PUBLIC, "a.example"):
        assert rules(entry, f"{host}:{port}").allows(host, port) is None
        assert rules(entry, allowed_ports=(port,)).allows(host, port) is None


@given(PORTS)
def test_s2_15_with_a_list_of_ports_no_others_are_open(port: int) -> None:
    assert rules("*", allowed_ports=(443, 8443), blocked_ports=()).opens(port) == (port in {443, 8443})


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("203.0.113.0/24", "203.0.113.7", "203.0.114.7"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ("[2001:db8::1]:8443", "2001:db8::1", "2001:db8::2"),
        ("::ffff:203.0.113.0/120", "203.0.113.7", "203.0.114.7"),
        ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
    ],
)
def test_s2_14_addresses_and_networks(entry: str, inside: str, outside: str) -> None:
    found = rules(entry)
    grant = found.allows(inside, 8443)
    assert grant is not None
    assert grant.raw
    assert found.allows(outside, 8443) is None
    assert found.allows("a.example", 8443) is None


BAD = ["", "*.", "**", "a..b", "a b", "http://a", "a/b", "a:0", "a:65536", "a:x", "a:", "127.1", "0x7f.0.0.1",
       "0x7f000001", "2130706433", "*.192.0.2.1", "a@b", "a\n", "ä.de", "[::1", "a" * 64, "10.0.0.1/8", "10.0.0.0/33",
       "::1/129", "1.2.3.4/255.0.0.256", "*.*", "a.*.b", "*a", "[a]:80", "a:80:80"]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_pattern(text)


@given(st.text(max_size=80))
def test_any_text_is_an_entry_or_refused(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except InvalidInput:
        return
    assert pattern.network is not None or pattern.host


@given(st.text(alphabet="0123456789abcdefx.:[]*-/%@", max_size=40), PORTS)
def test_n6_an_authority_is_a_normal_host_or_none(text: str, port: int) -> None:
    found = parse_authority(text, port)
    if found is not None:
        assert normal_host(found[0]) == found[0]
        assert 0 < found[1] <= 65535


@given(ADDRESSES)
def test_n4_without_the_operator_every_host_leads_to_public_addresses_alone(address: str) -> None:
    assert not (rules("*").admits("a.example", address) and not is_public(address))


@given(ADDRESSES)
def test_n2_link_local_and_multicast_addresses_are_never_admitted(address: str) -> None:
    found = ip_address(address)
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        assert not rules("*", anywhere=("*", address)).admits("a.example", address)


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    ],
)
def test_n2_metadata_is_refused_even_where_the_operator_allows_everything(address: str) -> None:
    assert not rules("*", address, anywhere=("*",)).admits("a.example", address)


def test_the_operator_may_let_a_host_or_a_network_be_private() -> None:
    assert rules("a.example", anywhere=("a.example",)).admits("a.example", "10.1.2.3")
    assert not rules("*", anywhere=("a.example",)).admits("b.example", "10.1.2.3")
    assert rules("*", anywhere=("10.1.0.0/16",)).admits("b.example", "10.1.2.3")
    assert not rules("*", anywhere=("10.1.0.0/16",)).admits("b.example", "10.2.2.3")
    assert rules("a.example", anywhere=("a.example",)).admits("a.example", "127.0.0.1")
    assert not rules("a.example").admits("a.example", "127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"allowed_ports": (0,)},
        {"blocked_ports": (65536,)},
        {"bandwidth_bytes_per_s": 0},
        {"bandwidth_bytes_per_s": bound.BANDWIDTH_MAX_BYTES_PER_S + 1},
        {"allowed_hosts": ("a",) * (bound.POLICY_PATTERNS_MAX + 1)},
        {"anywhere": ("a",) * (bound.POLICY_PATTERNS_MAX + 1)},
        {"strip_headers": ("a",) * (bound.POLICY_HEADERS_MAX + 1)},
        {"strip_headers": ("a: b",)},
        {"strip_headers": ("a\r\nHost",)},
        {"strip_headers": ("Host",)},
        {"strip_headers": ("Content-Length",)},
        {"anywhere": ("a b",)},
    ],
)
def test_policies_have_bounds(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Rules(NetworkPolicy(**wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "header", "value"),
    [
        ("a b", "X", "v"),
        ("*", "X", "v"),
        ("*.example", "X", "v"),
        ("a.example", "X:", "v"),
        ("a.example", "Host", "v"),
        ("a.example", "Transfer-Encoding", "v"),
        ("a.example", "X", "a\r\nHost: b"),
        ("a.example", "X", "ä"),
        ("a.example", "X", "a\0"),
    ],
)
def test_what_is_injected_can_be_no_other_header(host: str, header: str, value: str) -> None:
    inject = ({"host": host, "header": header, "secret": "s", "value": value},)
    with pytest.raises(InvalidInput):
        Rules(msgspec.convert({"inject": inject}, NetworkPolicy))


# Judging connections --------------------------------------------------------------------------------


def reason(found: Rules, place: Place, seen: Seen) -> Reason | str:
    try:
        precheck(found, place)
        return judge(found, place, seen)
    except Refused as refused:
        return refused.reason


TLS = Seen(Kind.TLS, name="a.example")
HIDDEN = Seen(Kind.TLS, name="a.example", hidden=True)
NAMELESS = Seen(Kind.TLS)
RAW = Seen(Kind.RAW)
REDIRECTED = Place(port=443, address=PUBLIC, told=("a.example",))
TUNNEL = Place(port=443, host="a.example")


@pytest.mark.parametrize(
    ("entries", "place", "seen", "expected"),
    [
        (("a.example",), REDIRECTED, TLS, "a.example"),
        (("a.example",), REDIRECTED, HIDDEN, Reason.HIDDEN_NAME),
        (("a.example",), REDIRECTED, NAMELESS, Reason.NO_NAME),
        (("a.example",), REDIRECTED, RAW, Reason.PROTOCOL),
        (("a.example:443",), REDIRECTED, RAW, Reason.PROTOCOL),
        (("a.example",), REDIRECTED, Seen(Kind.MALFORMED), Reason.MALFORMED),
        (("b.example",), REDIRECTED, TLS, Reason.HOST),
        (("b.example",), REDIRECTED, RAW, Reason.HOST),
        ((PUBLIC,), REDIRECTED, TLS, PUBLIC),
        ((PUBLIC,), REDIRECTED, HIDDEN, PUBLIC),
        ((PUBLIC,), REDIRECTED, RAW, PUBLIC),
        ((PUBLIC,), REDIRECTED, Seen(Kind.MALFORMED), PUBLIC),
        (("*",), REDIRECTED, HIDDEN, "a.example"),
        (("*",), REDIRECTED, NAMELESS, PUBLIC),
        (("a.example",), TUNNEL, TLS, "a.example"),
        (("*.example",), TUNNEL, Seen(Kind.TLS, name="b.example"), Reason.OTHER_NAME),
        (("*",), TUNNEL, Seen(Kind.TLS, name="b.example"), Reason.OTHER_NAME),
        (("a.example",), TUNNEL, NAMELESS, Reason.NO_NAME),
        (("a.example",), TUNNEL, RAW, Reason.PROTOCOL),
        (("a.example:5000",), Place(port=5000, host="a.example"), RAW, "a.example"),
        (("a.example:5000",), Place(port=5000, address=PUBLIC, told=("a.example",)), RAW, "a.example"),
        (("a.example:5000",), Place(port=5000, address=PUBLIC), RAW, Reason.HOST),
        (("*",), Place(port=22, address=PUBLIC), RAW, Reason.PORT),
        (("*", "10.0.0.0/8"), Place(port=80, address="10.1.2.3"), RAW, Reason.ADDRESS),
    ],
)
def test_n6_connections_are_judged_by_what_they_say(
    entries: tuple[str, ...], place: Place, seen: Seen, expected: str
) -> None:
    assert reason(rules(*entries), place, seen) == expected


@given(st.lists(st.sampled_from(["a.example", "b.example:5000", "*.example"])), NAMES, OPEN_PORTS)
def test_what_is_judged_to_go_on_is_always_allowed(entries: list[str], name: str, port: int) -> None:
    found = rules(*entries)
    place = Place(port=port, address=PUBLIC, told=(name,))
    for seen in (Seen(Kind.TLS, name=name), NAMELESS, RAW):
        try:
            host = judge(found, place, seen)
        except Refused:
            continue
        assert found.allows(host, port) is not None
    assert not may_be_raw(found, Place(port=port, address=PUBLIC))


def test_a_request_is_for_the_host_of_its_connection() -> None:
    found = rules("*.example")
    assert judge_request(found, REDIRECTED, "b.example") == "b.example"
    with pytest.raises(Refused, match="asks for"):
        judge_request(found, TUNNEL, "b.example")
    with pytest.raises(Refused, match="not allowed"):
        judge_request(found, REDIRECTED, "b.org")
