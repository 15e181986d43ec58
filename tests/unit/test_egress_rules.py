"""Rules and requests of the way out: what is not allowed by name is refused, whatever it is written like."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.egress.request import BadRequest, parse_request
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


# Requests -----------------------------------------------------------------------------------------


def head(*lines: str) -> bytes:
    return "\r\n".join(lines).encode()


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    found = parse_request(head("CONNECT Example.org:443 HTTP/1.1", "Host: elsewhere", "Proxy-Connection: keep-alive"))
    assert (found.host, found.port, found.head) == ("example.org", 443, b"")


def test_a_plain_request_goes_on_written_anew() -> None:
    found = parse_request(
        head(
            "GET http://Example.org:8080/a?b=c#d HTTP/1.1",
            "Host: elsewhere",
            "Accept: */*",
            "Proxy-Authorization: Basic c2VjcmV0",
            "Connection: keep-alive, x-hop",
        )
    )
    assert (found.host, found.port) == ("example.org", 8080)
    assert found.head == (b"GET /a?b=c HTTP/1.1\r\nHost: example.org:8080\r\nConnection: close\r\nAccept: */*\r\n\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        ["GET / HTTP/1.1"],
        ["GET https://example.org/ HTTP/1.1"],
        ["GET http://user@example.org/ HTTP/1.1"],
        ["GET http://example.org:0/ HTTP/1.1"],
        ["GET http://example.org:99999/ HTTP/1.1"],
        ["GET  http://example.org/ HTTP/1.1"],
        ["GET http://example.org/ HTTP/2"],
        ["GET http://example.org/"],
        ["POST http://example.org/ HTTP/1.1"],
        ["get http://example.org/ HTTP/1.1"],
        ["CONNECT example.org HTTP/1.1"],
        ["CONNECT http://example.org:443 HTTP/1.1"],
        ["CONNECT [::1:443 HTTP/1.1"],
        ["CONNECT a@b:443 HTTP/1.1"],
        ["CONNECT 0x7f.1:443 HTTP/1.1"],
        ["GET http://example.org/ HTTP/1.1", " folded: x"],
        ["GET http://example.org/ HTTP/1.1", "A : x"],
        ["GET http://example.org/ HTTP/1.1", "A: x\nB: y"],
        ["GET http://example.org/ HTTP/1.1", "A: x\rB: y"],
        ["GET http://example.org/ HTTP/1.1", "Content-Length: 5"],
        ["GET http://example.org/ HTTP/1.1", "Content-Length: 0", "Content-Length: 5"],
        ["GET http://example.org/ HTTP/1.1", "Transfer-Encoding: chunked"],
        ["GET http://example.org/ HTTP/1.1", "Upgrade: websocket"],
        ["GET http://example.org/ HTTP/1.1", *["A: b"] * 101],
    ],
    ids=lambda lines: lines[-1][:40],
)
def test_anything_else_is_refused(lines: list[str]) -> None:
    with pytest.raises(BadRequest):
        parse_request(head(*lines))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        found = parse_request(data)
    except BadRequest:
        return
    assert found.host == normal_host(found.host)
    assert 0 < found.port < 65536


@given(st.text(st.characters(max_codepoint=0xFF), max_size=60), st.text(st.characters(max_codepoint=0xFF), max_size=60))
def test_what_goes_on_has_one_head_only(path: str, value: str) -> None:
    try:
        found = parse_request(f"GET http://example.org/{path} HTTP/1.1\r\nX: {value}".encode("latin-1"))
    except BadRequest:
        return
    assert found.head.count(b"\r\n\r\n") == 1
    assert found.head.endswith(b"\r\n\r\n")
    assert found.head.count(b"\n") == found.head.count(b"\r\n") <= 5
