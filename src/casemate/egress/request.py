"""What a client asks of an HTTP proxy: `CONNECT host:port`, or `GET http://host/…`. Pure parsing of hostile bytes.

Everything that is not needed is refused: no other method, no body, no line that two readers could read in two ways.
What goes on to the server is written anew from the parsed parts, never passed on.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from casemate import limits
from casemate.egress.rules import HTTP_PORT, PORT_MAX, normal_host

HEAD_END: Final = b"\r\n\r\n"
CONNECT: Final = "CONNECT"
_REQUEST_LINE: Final = re.compile(r"([A-Z]+) ([\x21-\x7e]+) HTTP/1\.[01]", re.ASCII)
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t\x80-\xff]*)", re.ASCII)
_TARGET: Final = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]+)(?::(\d{1,5}))?([/?][^#]*)?(?:#.*)?", re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]+):(\d{1,5})", re.ASCII)
_PLAIN_METHODS: Final = frozenset({"GET", "HEAD"})
_BODY: Final = frozenset({"transfer-encoding", "upgrade"})
_OURS: Final = frozenset({"host", "connection", "keep-alive", "te", "trailer", "content-length"})


class BadRequest(Exception):
    """The bytes are no request that this proxy takes; the text says why."""


class ProxyRequest(msgspec.Struct, frozen=True):
    """Where the client wants to go; `head` is what the server is to be sent first, empty for a tunnel."""

    host: str
    port: int
    head: bytes = b""


def parse_request(head: bytes) -> ProxyRequest:
    """A request from its head, without the empty line at its end. Raises BadRequest."""
    first, *lines = head.decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequest("no HTTP request")
    method, target = line[1], line[2]
    headers = _headers(lines)
    if method == CONNECT:
        return ProxyRequest(*_place(_AUTHORITY.fullmatch(target), 0))
    if method not in _PLAIN_METHODS:
        raise BadRequest(f"method {method[:16]}")
    return _plain(method, target, headers)


def _headers(lines: list[str]) -> list[tuple[str, str]]:
    if len(lines) > limits.EGRESS_HEADERS_MAX:
        raise BadRequest("too many headers")
    found = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise BadRequest("a malformed header")
        found.append((header[1], header[2].strip()))
    return found


def _plain(method: str, target: str, headers: list[tuple[str, str]]) -> ProxyRequest:
    names = {name.lower() for name, _ in headers}
    lengths = {value for name, value in headers if name.lower() == "content-length"}
    if names & _BODY or lengths - {"0"}:
        raise BadRequest("a request with a body")
    found = _TARGET.fullmatch(target)
    host, port = _place(found, HTTP_PORT)
    path = (found[3] if found else None) or "/"
    authority = f"[{host}]" if ":" in host else host
    lines = [
        f"{method} {path if path.startswith('/') else '/' + path} HTTP/1.1",
        f"Host: {authority}" if port == HTTP_PORT else f"Host: {authority}:{port}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers if _goes_on(name.lower())),
    ]
    return ProxyRequest(host, port, "\r\n".join(lines).encode("latin-1") + HEAD_END)


def _goes_on(name: str) -> bool:
    return name not in _OURS and not name.startswith("proxy-")


def _place(found: re.Match[str] | None, otherwise: int) -> tuple[str, int]:
    if found is None:
        raise BadRequest("a malformed target")
    host, port = normal_host(found[1]), int(found[2] or otherwise)
    if not host or not 0 < port <= PORT_MAX:
        raise BadRequest("no host and port")
    return host, port
