"""Answers to questions about names: addresses of what a policy allows, and nothing else. Pure but for the lookup.

A question is read by dnspython, and an answer written anew; of what a guest has sent only the name goes on, and only
where a rule names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from casemate import network_limits as bound
from casemate.egress.rules import normal_host

_TTL_S: Final = int(bound.NAME_KEPT_MIN_S)
_UDP_MAX_BYTES: Final = 512
_KINDS: Final = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


class Question(msgspec.Struct, frozen=True):
    """What is asked. `name`: in its normal form; empty for what is no host. `version`: of addresses, 0 for others."""

    message: dns.message.Message
    name: str
    version: int


def read_question(data: bytes) -> Question | None:
    """The one question of a message; None for what deserves no answer at all."""
    if len(data) > bound.DNS_MESSAGE_MAX_BYTES:
        return None
    try:
        message = dns.message.from_wire(data, ignore_trailing=False)
    except (dns.exception.DNSException, ValueError):  # some malformed values are refused by what holds them
        return None
    if message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
        return None
    asked = message.question[0]
    name = normal_host(asked.name.to_text(omit_final_dot=True)) if asked.rdclass == dns.rdataclass.IN else ""
    return Question(message, name, _KINDS.get(asked.rdtype, 0))


def answer(question: Question, addresses: Iterable[str]) -> bytes:
    """These addresses, of the kind that was asked for."""
    reply = _reply(question, dns.rcode.NOERROR)
    asked = question.message.question[0]
    fitting = [address for address in addresses if ip_address(address).version == question.version]
    if fitting:
        kind = dns.rdatatype.A if question.version == 4 else dns.rdatatype.AAAA  # noqa: PLR2004
        reply.answer.append(dns.rrset.from_text_list(asked.name, _TTL_S, dns.rdataclass.IN, kind, fitting))
    return _wire(reply)


def refusal(question: Question, *, exists: bool = False) -> bytes:
    """There is no such name; or, of one that exists, it cannot be told just now."""
    return _wire(_reply(question, dns.rcode.SERVFAIL if exists else dns.rcode.NXDOMAIN))


def _reply(question: Question, code: dns.rcode.Rcode) -> dns.message.Message:
    reply = dns.message.Message(id=question.message.id)
    reply.flags = dns.flags.QR | dns.flags.RA | (question.message.flags & dns.flags.RD)
    reply.question = list(question.message.question)
    reply.set_rcode(code)
    return reply


def _wire(reply: dns.message.Message) -> bytes:
    """Bounded, so that it fits into what every client takes: there are few addresses of a name."""
    try:
        return reply.to_wire(max_size=_UDP_MAX_BYTES)
    except dns.exception.TooBig:
        reply.flags |= dns.flags.TC
        reply.answer.clear()
        return reply.to_wire(max_size=_UDP_MAX_BYTES)
