"""The first bytes of a connection: whatever they are, something is said of them, and never two things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.egress.hellos import ECH, hello, in_records, with_extension

from casemate import network_limits as bound
from casemate.egress.sniff import Kind, Seen, settle, sniff

HELLO = hello("a.example")
NAMELESS = hello(None)


def test_the_name_of_a_real_client_is_found() -> None:
    assert sniff(HELLO) == Seen(Kind.TLS, name="a.example")
    assert sniff(hello("A.Example")) == Seen(Kind.TLS, name="a.example")
    assert sniff(NAMELESS) == Seen(Kind.TLS)


@given(st.integers(0, len(HELLO) - 1))
def test_part_of_a_hello_says_nothing_yet(count: int) -> None:
    assert sniff(HELLO[:count]).kind is Kind.MORE


@given(st.integers(len(HELLO) // bound.HELLO_RECORDS_MAX + 1, len(HELLO)))
def test_a_hello_in_records_of_any_size_is_the_same(size: int) -> None:
    assert sniff(in_records(HELLO, size)) == sniff(HELLO)


@pytest.mark.parametrize("kind", [ECH, 0xFFCE])
def test_a_hidden_name_is_seen(kind: int) -> None:
    assert sniff(with_extension(HELLO, kind)) == Seen(Kind.TLS, name="a.example", hidden=True)


@pytest.mark.parametrize(
    "data",
    [
        with_extension(HELLO, 0, b"\0\x04\0\0\1b"),  # the name twice
        with_extension(NAMELESS, 0, b"\0\x0b\0\0\x02ab\0\0\x03abc"),  # two names in one
        with_extension(NAMELESS, 0, b"\0\x04\x01\0\1b"),  # a kind of name that there is not
        with_extension(NAMELESS, 0, b"\0\x04\0\0\1b\0"),  # more than its length
        with_extension(NAMELESS, 0, b"\0\x0e\0\0\x0b192.0.2.100"),  # an address
        with_extension(NAMELESS, 0, b"\0\x06\0\0\x03a\0b"),
        with_extension(NAMELESS, 0, b"\0\x03\0\0\0"),
        HELLO + b"\0",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x04",
        b"\x16\x03\x01\x00\x05\x02\0\0\0\0",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"\0" * 100,
    ],
    ids=range(13),  # what a client says is new each time
)
def test_what_can_be_read_in_two_ways_is_malformed(data: bytes) -> None:
    assert sniff(data).kind in {Kind.MALFORMED, Kind.TLS}
    assert sniff(data).name == ("a.example" if data == HELLO + b"\0" else "")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"\r\n\r\nGET /", b"X-Y_z /", b"PRI * HTTP/2.0\r\n", b"get\t/"]
)
def test_requests_are_recognised_however_they_are_written(data: bytes) -> None:
    assert sniff(data).kind is Kind.HTTP


@pytest.mark.parametrize("data", [b"", b"G", b"GET", b"\r\n", b"\r\nGE"])
def test_what_may_become_a_request_is_waited_for(data: bytes) -> None:
    assert sniff(data).kind is Kind.MORE
    assert settle(data).kind is Kind.RAW


@pytest.mark.parametrize("data", [b"\0", b"*1\r\n$4\r\nPING\r\n", b"PING\r\n", b"\x80\x2e", b"a" * 100])
def test_other_protocols_are_others(data: bytes) -> None:
    assert sniff(data).kind is Kind.RAW


@pytest.mark.parametrize("data", [b"CONNECT {}\r\n", b"SET a b\r\n", b"EHLO me\r\n"])
def test_lines_of_others_that_look_like_requests_pass_where_everything_may(data: bytes) -> None:
    assert sniff(data).kind is Kind.HTTP
    assert sniff(data, raw=True).kind is Kind.RAW
    assert sniff(data[:-2], raw=True).kind is Kind.MORE
    assert sniff(b"GET / HTTP/1.1\r\n", raw=True).kind is Kind.HTTP


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda data: b"\x16\x03\x01" + data))
def test_any_bytes_are_something(data: bytes) -> None:
    seen = sniff(data)
    assert seen.name == "" or seen.kind is Kind.TLS
    assert settle(data).kind in {Kind.MALFORMED, Kind.RAW}


@given(st.integers(0, len(HELLO) - 1), st.integers(0, 255))
def test_a_hello_with_one_byte_changed_harms_nobody(at: int, value: int) -> None:
    changed = bytearray(HELLO)
    changed[at] = value
    assert isinstance(sniff(bytes(changed)), Seen)


def test_a_hello_has_an_end() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\x70\x00" + b"\0" * (0x4000 - 4)
    assert sniff(record).kind is Kind.MORE
    assert sniff(record + b"\x16\x03\x01\x40\x00").kind is Kind.MALFORMED
    assert sniff(in_records(HELLO, 1)).kind is Kind.MALFORMED
