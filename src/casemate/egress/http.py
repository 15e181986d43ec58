"""What a request of plain HTTP asks for, and what is passed on of it. Pure; h11 has parsed it, and writes it anew.

Only that goes on which two readers cannot read in two ways: nothing is passed through as it came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import h11
import msgspec

from casemate import network_limits as bound
from casemate.egress.judge import Place, Reason, Refused
from casemate.egress.policy import address_of, parse_authority
from casemate.egress.rules import HTTP_PORT, normal_host
from casemate.model.network import NetworkPolicy

CONNECT: Final = b"CONNECT"
_ECHOING: Final = frozenset({b"TRACE", b"TRACK"})
"""Methods that show the client what the server was sent, also what was injected."""

_OPTIONS: Final = b"OPTIONS"
_WEBSOCKET: Final = b"websocket"
_SWITCHING: Final = 101
_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection", b"http2-settings"}
    | {b"proxy-authorization", b"proxy-authenticate"}
)
"""Headers that are between two neighbours alone."""

Headers = list[tuple[bytes, bytes]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One request, checked in itself. `path` is what the server is asked for; `switches`: it wants a WebSocket."""

    method: bytes
    host: str
    port: int
    path: bytes = b""
    switches: bool = False


def read_request(request: h11.Request, place: Place | None) -> Wanted:
    """Where it goes; `place` is where the connection goes already, None for one to the proxy. Raises Refused."""
    _check_form(request)
    if request.method.upper() in _ECHOING:
        raise Refused(Reason.PROTOCOL, "a method that shows what was sent")
    if request.method == CONNECT:
        if place is not None:
            raise Refused(Reason.PROTOCOL, "CONNECT inside a connection")
        host, port = _authority(request.target.decode("ascii"), 0)
        return Wanted(method=CONNECT, host=host, port=port)
    absolute = b"://" in request.target and not request.target.startswith(b"/")
    if place is None and not absolute:
        raise Refused(Reason.MALFORMED, "a request to a proxy that names no host")
    host, port, path = _absolute(request.target) if absolute else ("", 0, request.target)
    if not absolute and not path.startswith(b"/") and (request.method, path) != (_OPTIONS, b"*"):
        raise Refused(Reason.MALFORMED, "a malformed target")
    host, port = _agreed(request, host, port, place)
    return Wanted(method=request.method, host=host, port=port, path=path, switches=_switches(request))


def _check_form(request: h11.Request) -> None:
    """What h11 lets pass and others have read differently."""
    names = [name for name, _ in request.headers]
    if len(names) > bound.HEADERS_MAX:
        raise Refused(Reason.MALFORMED, "too many headers")
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        raise Refused(Reason.MALFORMED, "a request whose length can be read in two ways")
    if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1 or names.count(b"content-length") > 1:
        raise Refused(Reason.MALFORMED, "a header that is there twice")


def _absolute(target: bytes) -> tuple[str, int, bytes]:
    text = target.decode("ascii")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise Refused(Reason.MALFORMED, "a malformed target") from error
    if parts.scheme != "http" or parts.fragment or "@" in parts.netloc:
        raise Refused(Reason.MALFORMED, "a target that is not of plain HTTP")
    host, port = _authority(parts.netloc, HTTP_PORT)
    path = text[len("http://") + len(parts.netloc) :]
    return host, port, (path if path.startswith("/") else f"/{path}").encode("ascii")


def _authority(text: str, port: int) -> tuple[str, int]:
    found = parse_authority(text, port)
    if found is None or not found[1]:
        raise Refused(Reason.MALFORMED, "no host and port")
    return found


def _agreed(request: h11.Request, host: str, port: int, place: Place | None) -> tuple[str, int]:
    """The one host and port that the target, the header and the connection all name."""
    said = next((value for name, value in request.headers if name == b"host"), None)
    if said is not None and not said.isascii():
        raise Refused(Reason.MALFORMED, "no host and port")
    usual = place.port if place else HTTP_PORT
    named = _named(said, usual)
    asked = (host, port) if host else named
    if asked is None:
        if place is None or not place.shown:
            raise Refused(Reason.MALFORMED, "a request that names no host")
        return place.shown, place.port
    if named is not None and named != asked:
        raise Refused(Reason.OTHER_NAME, f"a request for {asked[0]} says that it is for {named[0]}")
    if place is not None and asked[1] != place.port:
        raise Refused(Reason.OTHER_NAME, f"a request to port {place.port} asks for {asked[0]}:{asked[1]}")
    return asked


def _named(said: bytes | None, usual: int) -> tuple[str, int] | None:
    """What a `Host` header names; most leave out the usual port, of HTTP or of the connection."""
    if said is None:
        return None
    return _authority(said.decode("ascii"), usual)


def _switches(request: h11.Request) -> bool:
    asked = {value.lower() for name, value in request.headers if name == b"upgrade"}
    return asked == {_WEBSOCKET} and request.method == b"GET"


def outgoing(request: h11.Request, wanted: Wanted, policy: NetworkPolicy, connected: str) -> h11.Request:
    """The request for the server: without what is between neighbours, stripped and injected as the policy says.

    `connected`: the host that it was resolved from, or the address that the client chose. Only a host that is asked for
    and connected to gets what is injected: a client that may choose an address says any name it likes.
    """
    injected = [each for each in policy.inject if normal_host(each.host) == wanted.host == connected]
    without = _HOP | _linked(request.headers) | {name.lower().encode() for name in policy.strip_headers}
    without |= {each.header.lower().encode() for each in injected} | {b"host"}
    headers: Headers = [(b"Host", _host_header(wanted))]
    headers += [(name, value) for name, value in request.headers.raw_items() if name.lower() not in without]
    headers += [(each.header.encode(), each.value.encode()) for each in injected]
    if wanted.switches:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", _WEBSOCKET)]
    return h11.Request(method=request.method, target=wanted.path, headers=headers)


def incoming(response: h11.Response | h11.InformationalResponse) -> Headers:
    """The headers of an answer that the client gets."""
    without = _HOP | _linked(response.headers)
    if any(name == b"transfer-encoding" for name, _ in response.headers):
        without |= {b"content-length"}
    if response.status_code == _SWITCHING:
        without -= {b"connection", b"upgrade"}
    return [(name, value) for name, value in response.headers.raw_items() if name.lower() not in without]


def _linked(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Names that a `Connection` header declares to be between neighbours. What frames a message is never it."""
    listed = b",".join(value for name, value in headers if name == b"connection")
    names = frozenset(word.strip().lower() for word in listed.split(b","))
    return names - {b"content-length", b"transfer-encoding", b"host"}


def _host_header(wanted: Wanted) -> bytes:
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    return (host if wanted.port == HTTP_PORT else f"{host}:{wanted.port}").encode()


def place_of(wanted: Wanted) -> Place:
    """Where a request to the proxy goes: a name, or an address."""
    if address_of(wanted.host) is not None:
        return Place(port=wanted.port, address=wanted.host)
    return Place(port=wanted.port, host=wanted.host)
