"""Requests of plain HTTP: where they go, and what of them goes on."""

from __future__ import annotations

import h11
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate import network_limits as bound
from casemate.egress.http import incoming, outgoing, place_of, read_request
from casemate.egress.judge import Place, Refused
from casemate.egress.rules import normal_host
from casemate.model.network import NetworkPolicy

HERE = Place(port=80, address="93.184.215.14")
TUNNEL = Place(port=80, host="a.example")
POLICY = NetworkPolicy(outbound=True)


def parsed(data: bytes) -> h11.Request:
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=bound.HEAD_MAX_BYTES)
    conn.receive_data(data)
    event = conn.next_event()
    assert isinstance(event, h11.Request)
    return event


def request(target: str = "/", host: str = "a.example", *more: str, method: str = "GET") -> h11.Request:
    return parsed("\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *more, "", ""]).encode())


@pytest.mark.parametrize(
    ("target", "host", "place", "expected"),
    [
        ("/x?y", "a.example", HERE, ("a.example", 80, b"/x?y")),
        ("/", "A.Example.:80", HERE, ("a.example", 80, b"/")),
        ("http://a.example/x", "a.example", HERE, ("a.example", 80, b"/x")),
        ("http://a.example:80?q", "a.example", None, ("a.example", 80, b"/?q")),
        ("http://[2001:DB8::1]:8080", "[2001:db8::1]:8080", None, ("2001:db8::1", 8080, b"/")),
        ("http://a.example//b.example/", "a.example", None, ("a.example", 80, b"//b.example/")),
        ("/x", "93.184.215.14", HERE, ("93.184.215.14", 80, b"/x")),
    ],
)
def test_where_a_request_goes(target: str, host: str, place: Place | None, expected: tuple[object, ...]) -> None:
    wanted = read_request(request(target, host), place)
    assert (wanted.host, wanted.port, wanted.path) == expected


@pytest.mark.parametrize(
    ("target", "host", "place"),
    [
        ("/", "a.example:81", HERE),
        ("/", "a.example:x", HERE),
        ("/", "a.example:", HERE),
        ("/", "", HERE),
        ("/", "127.1", HERE),
        ("/", "a.example, b.example", HERE),
        ("/", "user@a.example", HERE),
        ("*", "a.example", HERE),
        ("a.example:80", "a.example", HERE),
        ("x", "a.example", HERE),
        ("http://b.example/", "a.example", HERE),
        ("http://a.example:81/", "a.example:81", HERE),
        ("https://a.example/", "a.example", None),
        ("ftp://a.example/", "a.example", None),
        ("http://a.example@b.example/", "b.example", None),
        ("http://a.example/#x", "a.example", None),
        ("http:///x", "a.example", None),
        ("http://a.example:0/", "a.example", None),
        ("http://[::1/", "a.example", None),
        ("http://a.example\\@b.example/", "a.example", None),
        ("/", "a.example", None),
    ],
)
def test_n6_what_names_no_one_place_is_refused(target: str, host: str, place: Place | None) -> None:
    with pytest.raises(Refused):
        read_request(request(target, host), place)


@pytest.mark.parametrize(
    "target", ["a.example", "a.example:", "a.example:0", ":80", "http://a.example:80", "a@b:80", "127.1:80"]
)
def test_n6_connect_needs_a_host_and_a_port(target: str) -> None:
    with pytest.raises(Refused):
        read_request(request(target, "a", method="CONNECT"), None)


def test_n6_connect_is_for_the_proxy_alone() -> None:
    assert read_request(request("a.example:443", "b", method="CONNECT"), None).host == "a.example"
    for place in (HERE, TUNNEL):
        with pytest.raises(Refused):
            read_request(request("a.example:80", "a.example:80", method="CONNECT"), place)


def test_an_old_request_without_a_host_goes_where_its_connection_goes() -> None:
    assert read_request(parsed(b"GET / HTTP/1.0\r\n\r\n"), HERE).host == "93.184.215.14"
    with pytest.raises(Refused):
        read_request(parsed(b"GET / HTTP/1.0\r\n\r\n"), None)


def test_too_many_headers_are_refused() -> None:
    with pytest.raises(Refused):
        read_request(request("/", "a.example", *["X: 1"] * bound.HEADERS_MAX), HERE)


def test_only_what_the_server_is_to_have_goes_on() -> None:
    asked = request(
        "/", "a.example", "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "TE: trailers", "Cookie: c",
        "Proxy-Authorization: p", "Upgrade: h2c", "HTTP2-Settings: x", "Accept: all", "X-Key: guest's",
    )  # fmt: skip
    policy = msgspec.convert(
        {
            "strip_headers": ["COOKIE"],
            "inject": [{"host": "a.example", "header": "x-key", "secret": "s", "value": "v"}],
        },
        NetworkPolicy,
    )
    sent = outgoing(asked, read_request(asked, HERE), policy, "a.example")
    assert sorted(sent.headers) == [(b"accept", b"all"), (b"host", b"a.example"), (b"x-key", b"v")]


def test_injection_is_for_its_host_alone() -> None:
    policy = msgspec.convert(
        {"inject": [{"host": "b.example", "header": "x-key", "secret": "s", "value": "v"}]}, NetworkPolicy
    )
    asked = request("/", "a.example", "X-Key: guest's")
    assert (b"x-key", b"guest's") in list(outgoing(asked, read_request(asked, HERE), policy, "a.example").headers)


def test_n6_who_says_the_name_of_a_host_and_is_connected_to_another_gets_nothing_of_its_secrets() -> None:
    policy = msgspec.convert(
        {"inject": [{"host": "A.example.", "header": "x-key", "secret": "s", "value": "v"}]}, NetworkPolicy
    )
    asked = request("/", "a.example")
    assert b"x-key" not in dict(outgoing(asked, read_request(asked, HERE), policy, "203.0.113.9").headers)
    assert dict(outgoing(asked, read_request(asked, HERE), policy, "a.example").headers)[b"x-key"] == b"v"


@pytest.mark.parametrize("method", ["TRACE", "trace", "TRACK"])
def test_n6_a_method_that_shows_what_was_injected_is_refused(method: str) -> None:
    with pytest.raises(Refused):
        read_request(request("/", "a.example", method=method), HERE)


def test_what_frames_a_message_cannot_be_hidden_by_a_header() -> None:
    asked = request("/", "a.example", "Connection: content-length, host", "Content-Length: 5", method="POST")
    sent = list(outgoing(asked, read_request(asked, HERE), POLICY, "a.example").headers)
    assert (b"content-length", b"5") in sent


def test_an_answer_with_two_lengths_keeps_the_one_that_counts() -> None:
    both = [("Transfer-Encoding", "chunked"), ("Content-Length", "5"), ("Connection", "keep-alive"), ("X", "1")]
    assert incoming(h11.Response(status_code=200, headers=both)) == [(b"Transfer-Encoding", b"chunked"), (b"X", b"1")]


AUTHORITIES = st.text(alphabet="ab.-_:@[]/\\%#?0123456789x*", max_size=24)


@given(AUTHORITIES, AUTHORITIES, st.sampled_from([HERE, TUNNEL, None]), st.sampled_from(["", "http://", "/"]))
def test_n6_whatever_is_asked_names_one_normal_host_or_is_refused(
    target: str, host: str, place: Place | None, begin: str
) -> None:
    try:
        asked = request(f"{begin}{target or '/'}", host)
        wanted = read_request(asked, place)
    except (Refused, h11.RemoteProtocolError):
        return
    assert normal_host(wanted.host) == wanted.host
    assert place_of(wanted).shown == wanted.host
    again = parsed(h11.Connection(h11.CLIENT).send(outgoing(asked, wanted, POLICY, wanted.host)) or b"")
    assert again.target == wanted.path
    if place is not None:
        assert wanted.port == place.port
        second = read_request(again, place)
        assert (second.host, second.port) == (wanted.host, wanted.port)
