"""Whether a connection goes on, and to which host: from what was seen of it and from the rules. Pure.

A name that the connection itself says counts, because it is resolved anew and that very address is connected to; the
address that a guest has chosen counts only where a rule allows addresses, or where we have told it for a name that may
be spoken to in any protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from casemate.egress.policy import Rules
from casemate.egress.sniff import Kind, Seen


class Reason(StrEnum):
    """Why something is refused, in a word."""

    OFF = "off"
    PORT = "port"
    HOST = "host"
    ADDRESS = "address"
    NO_NAME = "no-name"
    HIDDEN_NAME = "hidden-name"
    OTHER_NAME = "other-name"
    PROTOCOL = "protocol"
    MALFORMED = "malformed"
    LIMIT = "limit"


class Refused(Exception):
    """A rule, or that there is none, forbids it."""

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client wants to go.

    `host`: the name that it asked the proxy for, empty where it connected to an address. `address`: that which it
    connected to. `told`: the names for which it has been told this address.
    """

    port: int
    host: str = ""
    address: str = ""
    told: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        return self.host or self.address


def judge(rules: Rules, place: Place, seen: Seen) -> str:
    """The host to connect to, a name or the address. Raises Refused. Requests of HTTP are judged one by one."""
    if seen.kind is Kind.MALFORMED and not _by_address(rules, place):
        raise Refused(Reason.MALFORMED, "it begins like TLS and is none")
    if seen.kind is Kind.TLS and seen.name:
        return _judge_named(rules, place, seen)
    return judge_unnamed(rules, place, tls=seen.kind is Kind.TLS)


def _judge_named(rules: Rules, place: Place, seen: Seen) -> str:
    if place.host and place.host not in {seen.name, place.address}:
        raise Refused(Reason.OTHER_NAME, f"a connection to {place.host} asks for {seen.name}")
    grant = rules.allows(seen.name, place.port)
    if grant is not None and (grant.whole or not seen.hidden):
        return seen.name
    if _by_address(rules, place):
        return place.address
    if grant is not None:
        raise Refused(Reason.HIDDEN_NAME, f"a connection to {seen.name} hides the name that it asks for")
    raise Refused(Reason.HOST, f"{seen.name}:{place.port} is not allowed")


def judge_unnamed(rules: Rules, place: Place, *, tls: bool) -> str:
    """The host of a connection that says no name. Raises Refused."""
    if _by_address(rules, place):
        return place.address
    for name in _candidates(place):
        grant = rules.allows(name, place.port)
        if grant is not None and grant.raw:
            return name
    if not any(rules.allows(name, place.port) for name in _candidates(place)):
        raise Refused(Reason.HOST, f"{place.shown}:{place.port} is not allowed")
    if tls:
        raise Refused(Reason.NO_NAME, "TLS that says no name")
    hint = f"a rule that names the port, as {next(iter(_candidates(place)))}:{place.port}, lets any protocol through"
    raise Refused(Reason.PROTOCOL, f"neither TLS nor HTTP; {hint}")


def may_be_raw(rules: Rules, place: Place) -> bool:
    """Whether a connection may go on that says nothing about where it goes."""
    try:
        judge_unnamed(rules, place, tls=False)
    except Refused:
        return False
    return True


def judge_request(rules: Rules, place: Place, host: str) -> str:
    """The host to connect to for a request with this `Host`, of that port. Raises Refused."""
    if place.host and host != place.host:
        raise Refused(Reason.OTHER_NAME, f"a request to {place.host} asks for {host}")
    if rules.allows(host, place.port) is not None and host != place.address:
        return host
    if _by_address(rules, place):
        return place.address
    raise Refused(Reason.HOST, f"{host}:{place.port} is not allowed")


def precheck(rules: Rules, place: Place) -> None:
    """What can be said before a single byte has been read. Raises Refused."""
    if not rules.opens(place.port):
        raise Refused(Reason.PORT, f"port {place.port} is not allowed")
    if place.address and not any(rules.admits(name, place.address) for name in (place.address, *place.told)):
        raise Refused(Reason.ADDRESS, f"{place.address} is not public")


def _by_address(rules: Rules, place: Place) -> bool:
    return bool(place.address) and rules.allows(place.address, place.port) is not None


def _candidates(place: Place) -> Iterable[str]:
    return (place.host,) if place.host else place.told
