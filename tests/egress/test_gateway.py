"""The gateway against guests that do their worst: whatever is not allowed by name does not leave the sandbox."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dns.message
import dns.rcode
import msgspec
import pytest
from tests.egress.hellos import ECH, hello, in_records, with_extension
from tests.egress.world import (
    HOST_ADDRESS,
    METADATA,
    OTHER,
    PRIVATE,
    PUBLIC,
    PUBLIC6,
    TIMEOUT_S,
    Guest,
    Server,
    World,
)

from casemate import network_limits as bound
from casemate.egress.gateway import Gateways, Sockets
from casemate.egress.wire import Settings
from casemate.model.network import NetworkPolicy

GET = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
RAW_PORT = 7000
HTTPS_PORT = 443
OPEN_PORT = 8080
MakeGuest = Callable[..., Guest]
ALERT = bytes.fromhex("15030100020231")
ALLOWED = "allowed.example"


class Site:
    """HTTP/1.1 as servers speak it: keeps connections alive, and remembers every byte."""

    def __init__(self) -> None:
        self.got = b""
        self.connections = 0

    def serve(self, client: socket.socket) -> None:
        self.connections += 1
        waiting = b""
        while data := client.recv(65536):
            self.got += data
            waiting += data
            while b"\r\n\r\n" in waiting:
                _, _, waiting = waiting.partition(b"\r\n\r\n")
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    made = Site()
    for address in (PUBLIC, OTHER, PUBLIC6, PRIVATE, METADATA):
        for port in (80, OPEN_PORT):
            world.serve(address, port, made.serve)
    world.serve(HOST_ADDRESS, 80, made.serve, here=True)
    return made


@pytest.fixture(scope="module")
def echo(world: World) -> list[Server]:
    def answer(client: socket.socket) -> None:
        while data := client.recv(65536):
            client.sendall(data)

    places = ((PUBLIC, RAW_PORT), (PUBLIC6, RAW_PORT), (OTHER, RAW_PORT), (PUBLIC, 3306), (PUBLIC, 22))
    return [world.serve(address, port, answer) for address, port in places]


@pytest.fixture(autouse=True)
def _names(world: World, site: Site) -> None:
    site.got, site.connections = b"", 0
    world.names(
        allowed_example=PUBLIC,
        six_example=PUBLIC6,
        both_example=f"{PUBLIC6} {PUBLIC}",
        other_example=OTHER,
        private_example=PRIVATE,
        metadata_example=METADATA,
        loopback_example="127.0.0.1",
        mapped_example=f"::ffff:{PRIVATE}",
        machine_example=HOST_ADDRESS,
        a_below_example=PUBLIC,
    )


@pytest.fixture(scope="module")
def one_tls_site(world: World, server_tls: ssl.SSLContext) -> Server:
    def serve(client: socket.socket) -> None:
        with server_tls.wrap_socket(client, server_side=True) as secured:
            secured.sendall(b"hello " + secured.recv(1000))

    return world.serve(PUBLIC, HTTPS_PORT, serve)


@pytest.fixture
def tls_site(one_tls_site: Server) -> Server:
    one_tls_site.connections = 0
    return one_tls_site


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


# What is allowed ----------------------------------------------------------------------------------


def test_s2_14_a_listed_host_is_reached_and_others_are_not(guest: MakeGuest, site: Site) -> None:
    found = guest(ALLOWED)
    assert found.addresses(ALLOWED) == [PUBLIC]
    assert found.talk(PUBLIC, 80, GET % b"allowed.example").endswith(b"hello")
    assert found.addresses("other.example") == []
    assert status(found.talk(OTHER, 80, GET % b"other.example")) == 403
    assert status(found.talk(OTHER, 80, GET % OTHER.encode())) == 403
    assert (found.flow(0).host, found.flow(0).allowed, found.flow(0).address) == (ALLOWED, True, PUBLIC)
    assert site.connections == 1


def test_s2_14_ipv6_is_reached_as_well(guest: MakeGuest, site: Site, echo: list[Server]) -> None:
    found = guest("six.example", f"six.example:{RAW_PORT}")
    assert found.addresses("six.example", "AAAA") == [PUBLIC6]
    assert found.addresses("six.example", "A") == []
    assert found.talk(PUBLIC6, 80, GET % b"six.example").endswith(b"hello")
    assert found.talk(PUBLIC6, RAW_PORT, b"raw") == b"raw"


def test_s2_14_an_address_and_a_network_can_be_listed(guest: MakeGuest, echo: list[Server]) -> None:
    found = guest("93.184.215.14/31")
    assert found.talk(PUBLIC, RAW_PORT, b"raw") == b"raw"
    assert found.talk(OTHER, RAW_PORT, b"raw") == b"raw"
    assert guest(PUBLIC).talk(OTHER, RAW_PORT, b"raw") == b""
    assert guest(PUBLIC6).talk(PUBLIC6, RAW_PORT, b"raw") == b"raw"


def test_a_suffix_is_for_what_is_below_it(guest: MakeGuest, site: Site) -> None:
    found = guest("*.below.example")
    assert found.talk(PUBLIC, 80, GET % b"a.below.example").endswith(b"hello")
    assert status(found.talk(PUBLIC, 80, GET % b"below.example")) == 403
    assert status(found.talk(PUBLIC, 80, GET % b"abelow.example")) == 403


def test_tls_goes_to_the_name_that_it_asks_for(guest: MakeGuest, tls_site: Server, client_tls: ssl.SSLContext) -> None:
    found = guest(ALLOWED)
    with client_tls.wrap_socket(found.connect(PUBLIC, HTTPS_PORT), server_hostname=ALLOWED) as client:
        client.sendall(b"you")
        assert client.recv(100) == b"hello you"
    flow = found.flow()
    assert (flow.host, flow.protocol, flow.allowed) == (ALLOWED, "tls", True)
    assert flow.sent_bytes > 100
    assert flow.received_bytes > 100


def test_a_server_that_speaks_first_is_heard(guest: MakeGuest, world: World) -> None:
    world.serve(PUBLIC, 7100, lambda client: client.sendall(b"220 ready\r\n"))
    found = guest(f"{ALLOWED}:7100")
    found.addresses(ALLOWED)
    with found.connect(PUBLIC, 7100) as client:
        assert client.recv(100) == b"220 ready\r\n"


def test_a_half_closed_connection_still_gets_its_answer(guest: MakeGuest, world: World) -> None:
    def count(client: socket.socket) -> None:
        total = 0
        while data := client.recv(65536):
            total += len(data)
        client.sendall(str(total).encode())

    world.serve(PUBLIC, 7101, count)
    assert guest(PUBLIC).talk(PUBLIC, 7101, b"x" * 3_000_000) == b"3000000"


# Off, ports, and nothing at all --------------------------------------------------------------------


def test_s2_16_without_outbound_there_is_no_connection_at_all(world: World, site: Site) -> None:
    with Guest(world.gateways, NetworkPolicy(outbound=False, allowed_hosts=("*",))) as found:
        assert found.talk(PUBLIC, 80, GET % b"allowed.example") == b""
        assert found.addresses(ALLOWED) == []
        assert status(found.ask(b"CONNECT allowed.example:443 HTTP/1.1\r\nHost: a\r\n\r\n")) == 403
    assert site.connections == 0


def test_s2_51_without_a_word_of_the_operator_or_the_job_nothing_is_reached(world: World, site: Site) -> None:
    with Guest(world.gateways, NetworkPolicy()) as found:
        assert found.talk(PUBLIC, 80, GET % b"allowed.example") == b""
        assert status(found.ask(b"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\r\n\r\n")) == 403
    assert site.connections == 0


def test_n7_an_empty_list_allows_nothing(guest: MakeGuest, site: Site, echo: list[Server]) -> None:
    found = guest()
    assert status(found.talk(PUBLIC, 80, GET % b"allowed.example")) == 403
    assert found.talk(PUBLIC, RAW_PORT, b"raw") == b""
    assert found.talk(PUBLIC, HTTPS_PORT, hello(ALLOWED)) == ALERT
    assert found.addresses(ALLOWED) == []
    assert status(found.ask(b"GET http://allowed.example/ HTTP/1.1\r\nHost: allowed.example\r\n\r\n")) == 403
    assert site.connections == 0
    assert not any(flow.allowed for flow in found.flows)


@pytest.mark.parametrize("port", [22, 3306])
def test_s2_15_a_blocked_port_is_refused_on_an_allowed_host(guest: MakeGuest, echo: list[Server], port: int) -> None:
    found = guest("*", f"{ALLOWED}:{port}", PUBLIC)
    found.addresses(ALLOWED)
    assert found.talk(PUBLIC, port, b"raw") == b""
    assert status(found.ask(f"CONNECT allowed.example:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode())) == 403
    assert [(flow.allowed, flow.reason) for flow in found.first(2)] == [(False, "port")] * 2


def test_s2_52_the_ports_of_a_policy_replace_those_that_are_blocked(guest: MakeGuest, echo: list[Server]) -> None:
    found = guest(PUBLIC, blocked_ports=(RAW_PORT,))
    assert found.talk(PUBLIC, 3306, b"raw") == b"raw"
    assert found.talk(PUBLIC, RAW_PORT, b"raw") == b""
    assert guest(PUBLIC, allowed_ports=(RAW_PORT,)).talk(PUBLIC, 7999, b"raw") == b""


def test_s2_53_everything_public_is_one_entry(guest: MakeGuest, site: Site, echo: list[Server]) -> None:
    found = guest("*")
    assert found.talk(OTHER, 80, GET % b"other.example").endswith(b"hello")
    assert found.talk(OTHER, RAW_PORT, b"raw") == b"raw"
    assert found.talk(PRIVATE, 80, GET % b"private.example") == b""
    assert found.talk(METADATA, 80, GET % b"metadata.example") == b""
    assert [flow.reason for flow in found.first(4)[2:]] == ["address"] * 2


# Names that lead elsewhere --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["private", "metadata", "loopback", "mapped", "machine"])
def test_n5_a_name_that_leads_to_a_place_that_is_not_public_is_refused(guest: MakeGuest, site: Site, name: str) -> None:
    host = f"{name}.example"
    found = guest("*.example", "*")
    assert found.addresses(host) == []
    assert found.addresses(host, "AAAA") == []
    assert status(found.talk(PUBLIC, 80, GET % host.encode())) == 403
    assert status(found.ask(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == 403
    assert found.ask(f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), b"x").startswith(b"HTTP/1.1 403")
    assert {flow.reason for flow in found.flows} == {"address"}
    assert site.connections == 0


def test_n5_a_name_that_is_rebound_after_it_was_told_is_refused(guest: MakeGuest, world: World, site: Site) -> None:
    found = guest(ALLOWED)
    assert found.addresses(ALLOWED) == [PUBLIC]
    assert found.talk(PUBLIC, 80, GET % b"allowed.example").endswith(b"hello")
    world.names(allowed_example=f"{PRIVATE}")
    assert status(found.talk(PUBLIC, 80, GET % b"allowed.example")) == 403
    assert found.flow(1).reason == "address"


def test_n5_of_several_addresses_only_the_public_ones_are_used(guest: MakeGuest, world: World, site: Site) -> None:
    world.names(allowed_example=f"{PRIVATE} {PUBLIC} {METADATA}")
    found = guest(ALLOWED)
    assert found.addresses(ALLOWED) == [PUBLIC]
    assert found.talk(PUBLIC, 80, GET % b"allowed.example").endswith(b"hello")
    assert found.flow().address == PUBLIC


def test_n5_a_redirect_to_a_private_address_ends_there(guest: MakeGuest, world: World, site: Site) -> None:
    world.serve(
        PUBLIC,
        8008,
        lambda client: client.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: http://10.1.2.3/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
    )
    found = guest(ALLOWED)
    assert b"Location: http://10.1.2.3/" in found.talk(PUBLIC, 8008, GET % b"allowed.example:8008")
    assert found.talk(PRIVATE, 80, GET % b"10.1.2.3") == b""
    assert site.connections == 0


@pytest.mark.parametrize("address", [PRIVATE, METADATA, "10.255.0.1", "192.168.1.1", "100.64.0.1", "fd00:ec2::254"])
def test_n2_n4_private_addresses_are_refused_whatever_is_said(guest: MakeGuest, site: Site, address: str) -> None:
    found = guest("*", address, ALLOWED)
    for first in (GET % b"allowed.example", hello(ALLOWED), b"\0raw"):
        assert found.talk(address, 80, first) == b""
    assert {(flow.allowed, flow.reason) for flow in found.first(3)} == {(False, "address")}
    assert site.connections == 0


def test_n3_the_machine_that_the_gateway_stands_on_is_refused(guest: MakeGuest, site: Site) -> None:
    found = guest("*", HOST_ADDRESS, "machine.example")
    for host in (HOST_ADDRESS, "machine.example"):
        assert b"hello" not in found.talk(HOST_ADDRESS, 80, GET % host.encode())
        assert b"hello" not in found.ask(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert site.connections == 0


def test_only_the_operator_lets_a_host_lead_to_a_private_place(guest: MakeGuest, site: Site) -> None:
    found = guest("private.example", "metadata.example", anywhere=("private.example", "metadata.example"))
    assert found.talk(PRIVATE, 80, GET % b"private.example") == b""  # nobody has told it this address
    assert found.addresses("private.example") == [PRIVATE]
    assert found.talk(PRIVATE, 80, GET % b"private.example").endswith(b"hello")
    assert found.addresses("metadata.example") == []
    assert status(found.talk(PRIVATE, 80, GET % b"metadata.example")) == 403


LITERALS = ["2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1", "127.0.0.1", "[::1]", "0", "0.0.0.0",
            "[::ffff:127.0.0.1]", "[::ffff:a01:203]", "[64:ff9b::a01:203]", "[2002:a01:203::]", "169.254.169.254",
            "10.1.2.3", "167838211", "[::10.1.2.3]", "[fe80::1]", "[fe80::1%25lo]", "localhost"]  # fmt: skip


@pytest.mark.parametrize("literal", LITERALS)
def test_n6_no_way_of_writing_an_address_leads_to_a_private_place(guest: MakeGuest, site: Site, literal: str) -> None:
    found = guest("*")
    for port in (80, OPEN_PORT):
        assert status(found.ask(f"CONNECT {literal}:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), b"x")) in {
            400,
            403,
            502,
        }
        asked = f"GET http://{literal}:{port}/ HTTP/1.1\r\nHost: {literal}:{port}\r\n\r\n"
        assert status(found.ask(asked.encode())) in {400, 403, 502}
        assert b"hello" not in found.talk(PUBLIC, 80, GET % literal.encode())
    assert site.connections == 0


# TLS that is not what it seems ------------------------------------------------------------------------


def test_n6_a_name_in_tls_that_is_not_allowed_is_refused(guest: MakeGuest, tls_site: Server) -> None:
    found = guest(ALLOWED)
    assert found.talk(PUBLIC, HTTPS_PORT, hello("other.example")) == ALERT
    assert (found.flow().host, found.flow().reason) == ("other.example", "host")
    assert tls_site.connections == 0


def test_n6_the_name_counts_and_not_the_address_that_a_guest_chose(
    guest: MakeGuest, world: World, tls_site: Server, client_tls: ssl.SSLContext
) -> None:
    found = guest(ALLOWED)
    with client_tls.wrap_socket(found.connect(OTHER, HTTPS_PORT), server_hostname=ALLOWED) as client:
        client.sendall(b"you")
        assert client.recv(100) == b"hello you"
    assert found.flow().address == PUBLIC


def test_n6_a_tunnel_to_one_host_that_asks_for_another_is_refused(guest: MakeGuest, tls_site: Server) -> None:
    found = guest(ALLOWED, "other.example")
    asked = b"CONNECT allowed.example:443 HTTP/1.1\r\nHost: allowed.example:443\r\n\r\n"
    answer = found.ask(asked, hello("other.example"))
    assert answer.endswith(ALERT)
    assert (found.flow().reason, found.flow().protocol) == ("other-name", "connect")


def test_tls_that_says_no_name_is_refused_where_a_name_is_needed(guest: MakeGuest, tls_site: Server) -> None:
    found = guest(ALLOWED)
    found.addresses(ALLOWED)
    assert found.talk(PUBLIC, HTTPS_PORT, hello(None)) == ALERT
    assert found.flow().reason == "no-name"
    asked = b"CONNECT allowed.example:443 HTTP/1.1\r\nHost: allowed.example:443\r\n\r\n"
    assert found.ask(asked, hello(None)).endswith(ALERT)
    assert tls_site.got == []


def test_tls_that_hides_its_name_is_refused_even_with_an_allowed_one_outside(
    guest: MakeGuest, tls_site: Server
) -> None:
    found = guest(ALLOWED)
    assert found.talk(PUBLIC, HTTPS_PORT, with_extension(hello(ALLOWED), ECH)) == ALERT
    assert found.flow().reason == "hidden-name"
    assert tls_site.connections == 0


@pytest.mark.parametrize("size", [1, 3, 50])
def test_tls_cut_into_pieces_is_read_as_a_whole(guest: MakeGuest, tls_site: Server, size: int) -> None:
    found = guest(ALLOWED)
    expected = ALERT if size > 10 else b""  # in so many pieces nobody sends it
    assert found.talk(PUBLIC, HTTPS_PORT, in_records(hello("other.example"), size)) == expected
    assert found.talk(PUBLIC, HTTPS_PORT, *(bytes([each]) for each in hello("other.example")[:80])) in {b"", ALERT}
    assert tls_site.connections == 0


def test_what_begins_like_tls_and_is_none_is_refused(guest: MakeGuest, tls_site: Server) -> None:
    found = guest(ALLOWED)
    found.addresses(ALLOWED)
    for data in (b"\x16\x03\x01\x00\x00", b"\x16\x02" + b"\0" * 50, hello(ALLOWED)[:60] + b"\xff" * 400):
        assert found.talk(PUBLIC, HTTPS_PORT, data) == b""
    assert {flow.reason for flow in found.first(3)} == {"malformed"}
    assert tls_site.connections == 0


def test_other_protocols_pass_by_name_only_where_a_port_is_named(
    guest: MakeGuest, tls_site: Server, echo: list[Server]
) -> None:
    found = guest(ALLOWED, "*.example:443")
    found.addresses(ALLOWED)
    for port in (RAW_PORT, HTTPS_PORT):
        assert found.talk(PUBLIC, port, b"\0\1raw") == b""
    assert [flow.reason for flow in found.first(2)] == ["protocol"] * 2
    named = guest(f"{ALLOWED}:{RAW_PORT}")
    assert named.talk(PUBLIC, RAW_PORT, b"\0\1raw") == b""  # an address that it was not told
    named.addresses(ALLOWED)
    assert named.talk(PUBLIC, RAW_PORT, b"\0\1raw") == b"\0\1raw"
    assert tls_site.connections == 0


# Plain HTTP -------------------------------------------------------------------------------------------


def test_n6_a_second_request_to_another_host_is_refused(guest: MakeGuest, site: Site) -> None:
    found = guest(ALLOWED)
    answer = found.talk(PUBLIC, 80, GET % b"allowed.example" + GET % b"other.example")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"HTTP/1.1 403" in answer
    assert b"other" not in site.got


def test_n6_every_request_on_one_connection_is_judged(guest: MakeGuest, site: Site) -> None:
    found = guest("*.example")
    answer = found.talk(PUBLIC, 80, *[GET % b"allowed.example"] * 3, GET % b"other.example", GET % b"allowed.example")
    assert answer.count(b"HTTP/1.1 200") == 5
    assert b"Host: other.example" in site.got
    assert [flow.address for flow in found.first(3)] == [PUBLIC, OTHER, PUBLIC]


SMUGGLED = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 4\r\nTransfer-Encoding: "
    b"chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 4, 40\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: +4\r\n\r\nabcd",
    "another coding": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
    b"identity\r\n\r\n",
    "old with a coding": b"POST / HTTP/1.0\r\nHost: allowed.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before a colon": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: allowed.example\r\nHost: other.example\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: allowed.example@other.example\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: allowed.example other.example\r\n\r\n",
    "a bad chunk": b"POST / HTTP/1.1\r\nHost: allowed.example\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a bare line end in a value": b"GET / HTTP/1.1\r\nHost: allowed.example\r\nX: a\rHost: other.example\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
    "a method inside": b"CONNECT other.example:80 HTTP/1.1\r\nHost: other.example:80\r\n\r\n",
    "a method inside, allowed": b"CONNECT allowed.example:80 HTTP/1.1\r\nHost: allowed.example:80\r\n\r\n",
    "another target": b"GET http://other.example/ HTTP/1.1\r\nHost: allowed.example\r\n\r\n",
    "another host": b"GET http://allowed.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "another port": b"GET / HTTP/1.1\r\nHost: allowed.example:8080\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_n6_what_two_readers_read_in_two_ways_is_refused(guest: MakeGuest, site: Site, name: str) -> None:
    found = guest(ALLOWED)
    hidden = b"GET /hidden HTTP/1.1\r\nHost: other.example\r\n\r\n"
    answer = found.talk(PUBLIC, 80, SMUGGLED[name] + hidden)
    expected = {"a bad chunk": {200}, "no method": {0}}.get(name, {400, 403})  # a good head; and no HTTP at all
    assert status(answer) in expected
    assert b"hidden" not in site.got
    assert b"other" not in site.got


def test_n6_a_body_is_never_taken_for_a_request(guest: MakeGuest, site: Site) -> None:
    found = guest(ALLOWED)
    hidden = b"GET /hidden HTTP/1.1\r\nHost: other.example\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    with found.connect(PUBLIC, 80) as client:
        client.sendall(head + hidden + GET % b"other.example")
        answer = b""
        while b"403" not in answer:
            answer += client.recv(65536)
    found.wait_for(lambda flow: flow.host == "other.example" and not flow.allowed)


@pytest.mark.parametrize(
    "target", ["other.example:443", "allowed.example:444", "sub.allowed.example:443", "allowed.example"]
)
def test_n6_connect_to_what_is_not_allowed_is_refused(guest: MakeGuest, site: Site, target: str) -> None:
    found = guest(f"{ALLOWED}:443")
    assert status(found.ask(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())) in {400, 403}
    assert not found.flow().allowed


def test_n6_a_tunnel_that_carries_plain_http_is_read_as_such(guest: MakeGuest, site: Site) -> None:
    found = guest(ALLOWED)
    asked = b"CONNECT allowed.example:80 HTTP/1.1\r\nHost: allowed.example:80\r\n\r\n"
    assert found.ask(asked, GET % b"allowed.example").endswith(b"hello")
    for hidden in (GET % b"other.example", b"CONNECT allowed.example:80 HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert b"HTTP/1.1 403" in found.ask(asked, hidden)
    assert b"other" not in site.got


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_tunnel_may_be_asked_for_in_old_words_too(guest: MakeGuest, echo: list[Server], version: str) -> None:
    asked = f"CONNECT 93.184.215.14:7000 HTTP/{version}\r\nHost: 93.184.215.14:7000\r\n\r\n".encode()
    head, _, answer = guest(PUBLIC).ask(asked, b"raw").partition(b"\r\n\r\n")
    assert (status(head), answer) == (200, b"raw")


def test_a_connection_that_says_nothing_is_no_refusal(guest: MakeGuest) -> None:
    found = guest(ALLOWED)
    found.addresses(ALLOWED)
    assert found.talk(PUBLIC, 443) == b""
    assert (found.flow().allowed, found.flow().problem) == (True, "nothing was sent")
    assert found.talk(OTHER, 443) == b""
    assert (found.flow(1).allowed, found.flow(1).reason) == (False, "host")


def test_n6_requests_to_the_proxy_are_judged_one_by_one(guest: MakeGuest, site: Site) -> None:
    found = guest(ALLOWED, "six.example")

    def asked(host: str) -> bytes:
        return f"GET http://{host}/x?y HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: secret\r\n\r\n".encode()

    answer = found.ask(asked(ALLOWED) + asked("six.example") + asked("other.example") + asked(ALLOWED))
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"403"]
    assert site.got.startswith(b"GET /x?y HTTP/1.1\r\nHost: allowed.example\r\n")
    assert b"secret" not in site.got
    assert [flow.host for flow in found.first(3)] == [ALLOWED, "other.example", "six.example"]


def test_n6_a_target_that_says_one_host_and_a_header_that_says_another_is_refused(guest: MakeGuest, site: Site) -> None:
    found = guest("*.example")
    assert status(found.ask(b"GET http://allowed.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n")) == 403
    assert site.connections == 0


def test_headers_are_stripped_and_injected_without_the_sandbox_knowing(guest: MakeGuest, site: Site) -> None:
    inject = [{"host": ALLOWED, "header": "Authorization", "secret": "token", "value": "Bearer 12345"}]
    policy = msgspec.convert({"outbound": True, "allowed_hosts": [ALLOWED, "other.example"], "inject": inject,
                              "strip_headers": ["Cookie"]}, NetworkPolicy)  # fmt: skip
    found = guest(*policy.allowed_hosts, inject=policy.inject, strip_headers=policy.strip_headers)
    asked = b"GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: mine\r\ncookie: a=b\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    answer = found.talk(PUBLIC, 80, asked % b"allowed.example")
    assert answer.endswith(b"hello")
    assert b"12345" not in answer
    assert b"Authorization: Bearer 12345\r\n" in site.got
    for gone in (b"mine", b"a=b", b"X-Hop"):
        assert gone not in site.got
    site.got = b""
    found.talk(PUBLIC, 80, asked % b"other.example")
    assert b"Authorization: mine\r\n" in site.got
    assert b"12345" not in site.got


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(guest: MakeGuest, world: World) -> None:
    def serve(client: socket.socket) -> None:
        assert b"100-continue" in client.recv(65536)
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + client.recv(4))

    world.serve(PUBLIC, 8400, serve)
    head = b"POST / HTTP/1.1\r\nHost: allowed.example:8400\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with guest(ALLOWED).connect(PUBLIC, 8400) as client:
        client.sendall(head)
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"body")
        answer = b""
        while not answer.endswith(b"body"):
            answer += client.recv(100)


def test_an_answer_before_the_body_has_gone_is_passed_on(guest: MakeGuest, world: World) -> None:
    def serve(client: socket.socket) -> None:
        client.recv(100)
        client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while client.recv(65536):
            pass

    world.serve(PUBLIC, 8401, serve)
    with guest(ALLOWED).connect(PUBLIC, 8401) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: allowed.example:8401\r\nContent-Length: 1000\r\n\r\nbegin")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_n6_a_secret_of_a_host_does_not_go_to_an_address_beside_it(guest: MakeGuest, site: Site) -> None:
    inject = [{"host": "hidden.example", "header": "Authorization", "secret": "token", "value": "Bearer 12345"}]
    policy = msgspec.convert({"inject": inject}, NetworkPolicy)
    found = guest("93.184.215.0/24", inject=policy.inject)
    assert found.talk(OTHER, 80, GET % b"hidden.example").endswith(b"hello")
    assert found.ask(b"GET http://93.184.215.15/ HTTP/1.1\r\nHost: 93.184.215.15\r\n\r\n").endswith(b"hello")
    assert site.got
    assert b"12345" not in site.got


def test_n6_no_server_is_asked_to_show_what_it_was_sent(guest: MakeGuest, site: Site) -> None:
    assert status(guest(ALLOWED).talk(PUBLIC, 80, b"TRACE / HTTP/1.1\r\nHost: allowed.example\r\n\r\n")) == 403
    assert site.connections == 0


def test_n17_a_guest_whose_body_never_ends_leaves_a_turn_to_others(guest: MakeGuest, world: World, site: Site) -> None:
    def swallow(client: socket.socket) -> None:
        while client.recv(1 << 20):
            pass

    world.serve(PUBLIC, 8001, swallow)
    greedy, other = guest(ALLOWED), guest(ALLOWED)
    is_over = threading.Event()

    def flood(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not is_over.is_set():
                client.sendall(b"1\r\nx\r\n" * 40_000)

    with greedy.connect(PUBLIC, 8001) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: allowed.example:8001\r\nTransfer-Encoding: chunked\r\n\r\n")
        thread = threading.Thread(target=flood, args=(client,))
        thread.start()
        try:
            for _ in range(5):
                assert other.talk(PUBLIC, 80, GET % b"allowed.example").endswith(b"hello")
        finally:
            is_over.set()
            client.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_n17_what_waits_for_slow_readers_is_bounded_for_all_connections_together(
    guest: MakeGuest, world: World
) -> None:
    flowing, is_over, data = threading.Event(), threading.Event(), bytes(8 << 20)

    def pour(client: socket.socket) -> None:
        client.sendall(client.recv(1))
        flowing.wait(TIMEOUT_S)
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            client.sendall(data)
        is_over.wait(2 * TIMEOUT_S)

    world.serve(PUBLIC, RAW_PORT + 1, pour)
    found = guest(f"{ALLOWED}:{RAW_PORT + 1}")
    assert found.addresses(ALLOWED)
    with contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        clients = []
        for _ in range(150):
            clients.append(stack.enter_context(found.connect(PUBLIC, RAW_PORT + 1)))
            clients[-1].sendall(b"\x01")
            assert clients[-1].recv(1) == b"\x01"
        before = resident_bytes(world)
        flowing.set()
        for client in clients:
            assert client.recv(1)
        wait_until_still(lambda: resident_bytes(world))
        assert resident_bytes(world) - before < 3 * bound.WAY_WAITING_MAX_BYTES


def resident_bytes(world: World) -> int:
    pages = int(Path(f"/proc/{world.gateways.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wait_until_still(look: Callable[[], int]) -> None:
    last = -1
    while (now := look()) != last:
        last = now
        time.sleep(0.3)


def test_a_websocket_goes_on_and_no_other_protocol_does(guest: MakeGuest, world: World) -> None:
    def switch(client: socket.socket) -> None:
        head = client.recv(65536)
        if b"Upgrade: websocket" not in head:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
            return
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        client.sendall(client.recv(100))

    world.serve(PUBLIC, 8000, switch)
    found = guest(ALLOWED)
    asked = b"GET / HTTP/1.1\r\nHost: allowed.example:8000\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    with found.connect(PUBLIC, 8000) as client:
        client.sendall(asked % b"websocket")
        answer = b""
        while not answer.endswith(b"first"):
            answer += client.recv(65536)
        client.sendall(b"frame")
        assert client.recv(100) == b"frame"
    assert found.talk(PUBLIC, 8000, asked % b"h2c").endswith(b"no")


@pytest.mark.parametrize("body", [b"", b"x" * 2_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_requests_and_answers_arrive_whole(
    guest: MakeGuest, world: World, body: bytes, chunked: bool
) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self._read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _read(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found

        def log_message(self, *_: object) -> None:
            pass

    port = 9000 + 2 * chunked + bool(body)
    world.serve(PUBLIC, port, lambda client: Handler(client, ("", 0), None))  # type: ignore[arg-type]
    found = guest(ALLOWED)
    with found.connect(PUBLIC, port) as client:
        connection = http.client.HTTPConnection(ALLOWED, port)
        connection.sock = client
        for _ in range(3):
            pieces = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
            connection.request("POST", "/", body=pieces if chunked else body, encode_chunked=chunked)
            assert connection.getresponse().read() == body
        connection.close()
    found.way.close()
    assert found.way.sent_bytes >= 3 * len(body)
    assert found.way.received_bytes >= 3 * len(body)


# DNS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TXT", "MX", "HTTPS", "NS", "ANY", "CNAME", "SRV"])
def test_dns_answers_questions_about_addresses_alone(guest: MakeGuest, kind: str) -> None:
    answer = guest(ALLOWED).look_up(ALLOWED, kind)
    assert (int(answer.rcode()), answer.answer) == (0, [])


def test_dns_answers_over_tcp_as_well(guest: MakeGuest) -> None:
    found = guest(ALLOWED)
    question = dns.message.make_query(ALLOWED, "A").to_wire()
    with found.connect("8.8.8.8", 53) as client:
        for _ in range(3):
            client.sendall(len(question).to_bytes(2, "big") + question)
            size = int.from_bytes(client.recv(2), "big")
            assert len(dns.message.from_wire(client.recv(size)).answer) == 1


def test_dns_does_not_carry_data_out(guest: MakeGuest) -> None:
    found = guest("*.below.example", "*.example")
    long = ".".join(["x" * 60] * 3) + ".below.example"
    assert found.look_up(long).rcode() == dns.rcode.SERVFAIL
    refused = 0
    for index in range(bound.DNS_NAMES_BURST + 50):
        refused += found.look_up(f"d{index}.below.example").rcode() == dns.rcode.SERVFAIL
    assert refused > 0
    assert found.addresses("a.below.example") == [PUBLIC]  # what is known needs nobody to be asked
    found.wait_for(lambda flow: flow.reason == "limit")


def test_dns_of_nonsense_goes_unanswered_and_harms_nobody(guest: MakeGuest) -> None:
    found = guest(ALLOWED)
    with found.datagram() as asking:
        asking.connect(("8.8.8.8", 53))
        for data in (b"", b"\0", b"\xff" * 40, b"\0" * 12, os.urandom(600), b"x" * 5000):
            asking.send(data)
    assert found.addresses(ALLOWED) == [PUBLIC]


def test_quic_and_every_other_datagram_is_refused(guest: MakeGuest) -> None:
    found = guest("*")
    for address, family in ((PUBLIC, socket.AF_INET), (PUBLIC6, socket.AF_INET6)):
        with found.datagram(family) as quic:
            quic.connect((address, 443))
            quic.send(b"\xc0" * 1200)
            with pytest.raises(ConnectionRefusedError):
                quic.recv(100)


# Bounds -----------------------------------------------------------------------------------------------


def test_n17_connections_are_bounded(guest: MakeGuest, world: World) -> None:
    world.serve(PUBLIC, 7200, lambda client: client.recv(1))
    found = guest(PUBLIC)
    opened = []
    try:
        for _ in range(bound.WAY_CONNECTIONS_MAX + 20):
            opened.append(found.connect(PUBLIC, 7200))
            opened[-1].sendall(b"\0")
    except ConnectionError:
        pass
    found.wait_for(lambda flow: flow.reason == "limit")
    for each in opened:
        each.close()
    assert guest(PUBLIC6) is not None


def test_n18_what_a_sandbox_sends_is_bounded_too(guest: MakeGuest, world: World) -> None:
    rate, size = 400_000, 500_000
    arrived = threading.Event()

    def count(client: socket.socket) -> None:
        total = 0
        while total < size:
            total += len(client.recv(65536))
        arrived.set()

    world.serve(PUBLIC, 7301, count)
    found = guest(PUBLIC, bandwidth_bytes_per_s=rate)
    started = time.monotonic()
    with found.connect(PUBLIC, 7301) as client:
        client.sendall(b"\0" * size)
        assert arrived.wait(TIMEOUT_S)
    assert time.monotonic() - started >= (size - rate / 4) / rate * 0.95


def test_s2_50_bandwidth_is_shared_by_all_connections_and_bounded(guest: MakeGuest, world: World) -> None:
    rate, size = 400_000, 200_000
    world.serve(PUBLIC, 7300, lambda client: client.sendall(client.recv(1) * size))
    found = guest(PUBLIC, bandwidth_bytes_per_s=rate)
    results: list[int] = []
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: results.append(len(found.talk(PUBLIC, 7300, b"\0")))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    took_s = time.monotonic() - started
    assert results == [size] * 3
    assert took_s >= (3 * size - rate / 4) / rate * 0.95


def test_s2_61_every_attempt_is_recorded_with_its_bytes(guest: MakeGuest, echo: list[Server]) -> None:
    found = guest(PUBLIC)
    assert found.talk(PUBLIC, RAW_PORT, b"x" * 1000) == b"x" * 1000
    found.talk(OTHER, RAW_PORT, b"y")
    good, bad = found.flow(0), found.flow(1)
    assert (good.sent_bytes, good.received_bytes, good.protocol) == (1000, 1000, "tcp")
    assert (bad.allowed, bad.reason, bad.sent_bytes) == (False, "host", 0)
    assert good.at_us > 0
    found.way.close()
    assert (found.way.sent_bytes, found.way.received_bytes) == (1000, 1000)


def test_a_host_that_does_not_answer_is_said(guest: MakeGuest) -> None:
    found = guest(ALLOWED)
    assert status(found.talk(PUBLIC, 8443, GET % b"allowed.example:8443")) == 502
    flow = found.flow()
    assert (flow.allowed, flow.reason) == (True, "")
    assert "cannot be reached" in flow.problem


# Life and death -----------------------------------------------------------------------------------------


def test_closing_a_way_ends_its_connections_and_no_others(guest: MakeGuest, echo: list[Server]) -> None:
    one, other = guest(PUBLIC), guest(PUBLIC)
    with one.connect(PUBLIC, RAW_PORT) as first, other.connect(PUBLIC, RAW_PORT) as second:
        for client in (first, second):
            client.sendall(b"a")
            assert client.recv(1) == b"a"
        one.way.close()
        one.way.close()
        assert cut_off(first)
        second.sendall(b"b")
        assert second.recv(1) == b"b"
    assert not one.way.failed
    assert one.flow().sent_bytes == 1
    with pytest.raises(ConnectionError):
        one.connect(PUBLIC, RAW_PORT)


def test_a_gateway_that_is_killed_takes_the_network_with_it_and_the_next_sandbox_has_one(
    guest: MakeGuest, world: World, echo: list[Server]
) -> None:
    found = guest(PUBLIC)
    with found.connect(PUBLIC, RAW_PORT) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"a"
        pid = world.gateways.pid
        assert pid is not None
        with os.fdopen(os.pidfd_open(pid)) as ended:
            os.kill(pid, signal.SIGKILL)
            assert cut_off(client)
            assert select.select([ended], [], [], TIMEOUT_S)[0]
    with pytest.raises(ConnectionError):
        found.connect(PUBLIC, RAW_PORT)
    found.way.close()
    assert found.way.failed
    assert guest(PUBLIC).talk(PUBLIC, RAW_PORT, b"again") == b"again"
    assert world.gateways.pid != pid


def test_a_gateway_that_serves_nobody_ends_and_the_next_sandbox_gets_another_one(world: World) -> None:
    gateways = Gateways(Settings(rest_s=0.0))
    try:
        seen = []
        for _ in range(3):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                way = gateways.open(NetworkPolicy(), Sockets(proxy=os.dup(listener.fileno())), lambda _: None)
            pid = gateways.pid
            assert pid is not None
            seen.append(pid)
            with os.fdopen(os.pidfd_open(pid)) as ended:
                way.close()
                assert not way.failed
                assert select.select([ended], [], [], TIMEOUT_S)[0]
        assert len(set(seen)) == 3
    finally:
        gateways.close()


def test_the_gateway_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, socket\n"
        "from casemate.egress.gateway import Gateways, Sockets\n"
        "from casemate.model.network import NetworkPolicy\n"
        "made = [socket.create_server(('127.0.0.1', 0)).detach() for _ in range(3)]\n"
        "made.insert(1, socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach())\n"
        "gateways = Gateways()\n"
        "sockets = Sockets(tcp=made[0], dns=made[1], dns_tcp=made[2], proxy=made[3])\n"
        "way = gateways.open(NetworkPolicy(outbound=True), sockets, print)\n"
        "print(gateways.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(pidfd) as ended:
        assert select.select([ended], [], [], TIMEOUT_S)[0]


def test_nothing_that_a_guest_sends_ends_the_gateway(guest: MakeGuest, world: World, site: Site) -> None:
    found = guest(ALLOWED, f"{ALLOWED}:{RAW_PORT}")
    pid = world.gateways.pid
    chance = random.Random(5)
    asked = dns.message.make_query(ALLOWED, "A").to_wire()
    good = [hello(ALLOWED), GET % b"allowed.example", *SMUGGLED.values(), len(asked).to_bytes(2, "big") + asked]
    for number in range(400):
        data = bytearray(chance.choice(good) * chance.choice([1, 1, 3]))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        cut = chance.randrange(len(data) + 1)
        place = chance.choice([(PUBLIC, 80), (PUBLIC, HTTPS_PORT), ("8.8.8.8", 53), ("127.0.0.1", 3128)])
        with suppress(OSError), found.connect(*place) as client:
            client.sendall(data[:cut])
            if number % 2:
                client.sendall(data[cut:])
                client.shutdown(socket.SHUT_WR)
                client.recv(65536)
    assert world.gateways.pid == pid
    assert not found.way.failed
    assert found.talk(PUBLIC, 80, GET % b"allowed.example").endswith(b"hello")
    assert b"Host: other.example" not in site.got


def test_the_gateway_has_given_up_what_it_can(guest: MakeGuest, world: World) -> None:
    guest(PUBLIC)
    about = Path(f"/proc/{world.gateways.pid}/status").read_text()
    assert "NoNewPrivs:\t1\n" in about
    environment = Path(f"/proc/{world.gateways.pid}/environ")
    if os.access(environment, os.R_OK):
        assert environment.read_bytes() == b"LANG=C.UTF-8\0"


def cut_off(client: socket.socket) -> bool:
    """Whether the other end has hung up."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
