"""Questions about names, read and answered: only addresses, only of what was asked."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import network_limits as bound
from casemate.egress.dns import answer, read_question, refusal
from casemate.egress.names import parse_hosts

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9](\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True)


def wire(name: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


@given(NAMES, st.sampled_from(["A", "AAAA"]), st.lists(st.ip_addresses().map(str), max_size=16))
def test_addresses_of_the_kind_that_was_asked_for_are_told(name: str, kind: str, addresses: list[str]) -> None:
    question = read_question(wire(name, kind))
    assert question is not None
    assert question.name == name
    told = dns.message.from_wire(answer(question, addresses))
    found = [str(ip_address(str(record))) for each in told.answer for record in each]
    if not told.flags & dns.flags.TC:
        assert set(found) == {each for each in addresses if (":" in each) == (kind == "AAAA")}
    assert told.id == question.message.id
    assert len(answer(question, addresses)) <= 512


@given(NAMES)
def test_refusals_say_whether_there_is_such_a_name(name: str) -> None:
    question = read_question(wire(name))
    assert question is not None
    assert dns.message.from_wire(refusal(question)).rcode() == dns.rcode.NXDOMAIN
    assert dns.message.from_wire(refusal(question, exists=True)).rcode() == dns.rcode.SERVFAIL


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: wire("a.example") + tail))
def test_any_bytes_are_a_question_or_none(data: bytes) -> None:
    question = read_question(data)
    if question is not None:
        assert len(answer(question, [])) <= 512


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_question_with_one_byte_changed_is_one_or_none(at: int, value: int) -> None:
    changed = bytearray(wire("www.some.example", "AAAA", use_edns=0))
    changed[at % len(changed)] = value
    question = read_question(bytes(changed))
    if question is not None:
        assert refusal(question)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wire("a.example")[:-1],
        wire("a.example") + b"\0",
        dns.message.make_response(dns.message.make_query("a.example", "A")).to_wire(),
        wire("a.example") + b"\0" * bound.DNS_MESSAGE_MAX_BYTES,
        b"\0\1\1\0\0\2" + b"\0" * 6 + b"\1a\0\0\1\0\1" * 2,
        b"\0\1\1\0\0\1" + b"\0" * 6 + b"\xc0\x0c\0\1\0\1",  # a name that is its own end
    ],
    ids=range(7),  # questions have random numbers
)
def test_what_is_no_question_gets_no_answer(data: bytes) -> None:
    assert read_question(data) is None


def test_other_kinds_classes_and_names_have_no_addresses() -> None:
    txt, chaos = read_question(wire("a.example", "TXT")), read_question(wire("a.example", rdclass="CH"))
    odd, root = read_question(wire("a\\000b.example")), read_question(wire("."))
    assert txt is not None
    assert (txt.name, txt.version) == ("a.example", 0)
    assert [each.name if each else None for each in (chaos, odd, root)] == ["", "", ""]


def test_a_file_of_hosts_is_read_as_the_system_reads_it() -> None:
    text = "# all\n127.0.0.1 localhost Here # me\n::1 localhost\nnonsense a\n\n"
    text += "1.2.3.4 a.example b.example\n1.2.3.4 a.example\n5"
    assert parse_hosts(text) == {
        "localhost": ("127.0.0.1", "::1"),
        "here": ("127.0.0.1",),
        "a.example": ("1.2.3.4",),
        "b.example": ("1.2.3.4",),
    }


@given(st.text(max_size=300))
def test_any_text_is_a_file_of_hosts(text: str) -> None:
    assert isinstance(parse_hosts(text), dict)
