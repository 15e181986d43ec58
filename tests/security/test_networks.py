"""Attacks on the network (N1 to N19) of a sandbox that has one: what is not named stays out of reach, and nothing
inside changes that. What names and addresses are let through is attacked in tests/egress.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.networks import lacks_egress

import casemate
from casemate import Result
from casemate.model.layers import Layer

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]

NAMED: Final = ["named.test"]
EVERYTHING: Final = {"allowed_hosts": ["*"], "blocked_ports": []}
RESET, REFUSED, UNREACHED = "ECONNRESET", "ECONNREFUSED", "ENETUNREACH"
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DATAGRAM, RAW, SEQPACKET = 1, 2, 3, 5
CONNECT: Final = """
import socket
def connect(address):
    host, port = address.rsplit(",", 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tcp:
        tcp.settimeout(10)
        tcp.connect((host, int(port)))
        tcp.sendall(b"hello, is anybody there?\\n")
        if not tcp.recv(1):
            raise OSError(104, "closed")
for address in sys.argv[1:]:
    attempt(address, connect, address)
"""
"""Whoever connects reaches the gateway; that it goes no further shows when nothing comes back."""


@pytest.fixture(autouse=True)
def possible(engine: casemate.Engine, not_run: Callable[[str, str], Any]) -> None:
    if lacks_egress(engine):
        not_run("networks", "layer egress: this kernel has no nf_tables with tproxy")


@pytest.fixture(scope="module", autouse=True)
def gateway(engine: casemate.Engine) -> None:
    """Started before footprints are taken: it serves all sandboxes of the engine."""
    if not lacks_egress(engine):
        assert casemate.execute(["true"], engine=engine, network=NAMED).ok


@pytest.fixture(scope="session")
def has_ipv6(engine: casemate.Engine) -> bool:
    return engine.backend.host.ipv6


@pytest.fixture
def host_port() -> Iterator[socket.socket]:
    """A listener on every IPv4 address of this machine, to which nobody must come."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


# N1 to N4: what is not named --------------------------------------------------------------------------


def test_n1_the_internet_is_what_is_named(ask_python: Answers, has_ipv6: bool) -> None:
    six = ["2606:4700:4700::1111,443"] if has_ipv6 else []
    answers = ask_python(CONNECT, "1.1.1.1,443", "8.8.8.8,80", "93.184.215.14,25", *six, network=NAMED)
    assert set(answers.values()) == {RESET}


def test_n1_no_datagram_leaves(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import socket
        for place in ["8.8.8.8,443", "1.1.1.1,123", "9.9.9.9,5353", "255.255.255.255,67", "224.0.0.251,5353"]:
            host, port = place.split(",")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                udp.settimeout(0.2)
                try:
                    udp.connect((host, int(port)))
                    udp.send(b"x")
                    say(place, udp.recv(1))
                except TimeoutError:
                    say(place, "nothing")
                except OSError as error:
                    say(place, errno.errorcode[error.errno])
        """,
        network=EVERYTHING,
    )
    assert set(answers.values()) <= {REFUSED, UNREACHED, "EINVAL", "nothing"}
    assert answers["8.8.8.8,443"] == REFUSED, "QUIC is refused at once"


def test_n1_names_that_are_not_allowed_have_no_address(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import socket
        for name in ["other.test", "localhost.test", "x.named.test", "metadata.google.internal"]:
            try:
                say(name, socket.getaddrinfo(name, 443))
            except socket.gaierror:
                say(name, "none")
        """,
        network=NAMED,
    )
    assert set(answers.values()) == {"none"}


def test_n1_no_interface_and_no_route_but_the_loopback_s(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import fcntl, socket, struct
        IFF_UP, SIOCGIFFLAGS, up = 1, 0x8913, 0
        with socket.socket() as any_socket:
            for _, name in socket.if_nameindex():
                request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
                up += name != "lo" and struct.unpack("16sH14x", request)[1] & IFF_UP
        say("interfaces", up)
        say("gateways", [line.split()[2] for line in open("/proc/net/route").readlines()[1:]])
        """,
        network=EVERYTHING,
    )
    assert answers["gateways"] == "[]"
    assert answers["interfaces"] == "0", "that are up"


def test_n2_metadata_is_out_of_reach_whatever_is_allowed(ask_python: Answers, has_ipv6: bool) -> None:
    six = ["fd00:ec2::254,80", "fe80::a9fe:a9fe,80", "::ffff:169.254.169.254,80"] if has_ipv6 else []
    places = ["169.254.169.254,80", "169.254.170.2,80", *six]
    policy = {**EVERYTHING, "anywhere": ["*"]}
    answers = ask_python(CONNECT, *places, network=policy)
    assert set(answers.values()) <= {RESET, "EINVAL"}, "an address of a link needs a link"
    assert answers["169.254.169.254,80"] == RESET


def test_n3_the_machine_s_loopback_is_not_the_guest_s(ask_python: Answers, host_port: socket.socket) -> None:
    port = host_port.getsockname()[1]
    names = ["127.0.0.1", "0.0.0.0", "127.1", "127.255.255.254", "0x7f.1", "2130706433", "localhost"]
    answers = ask_python(CONNECT, *(f"{name},{port}" for name in names), network=EVERYTHING)
    assert set(answers.values()) == {REFUSED}


def test_n3_addresses_of_the_machine_are_refused(ask_python: Answers, host_port: socket.socket) -> None:
    port = host_port.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.7", 9))
        except OSError:
            pytest.skip("this machine has no address but its loopback's")
        own = probe.getsockname()[0]
    answers = ask_python(CONNECT, f"{own},{port}", network=NAMED)
    assert set(answers.values()) == {RESET}


def test_n4_private_ranges_are_refused_whatever_is_allowed(ask_python: Answers, has_ipv6: bool) -> None:
    hosts = ["10.0.0.1", "172.16.0.1", "172.17.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1", "0.0.0.1", "240.0.0.1"]
    six = [f"{host},80" for host in ("fc00::1", "fd12::1", "::ffff:10.0.0.1", "64:ff9b::a00:1")] if has_ipv6 else []
    answers = ask_python(CONNECT, *(f"{host},80" for host in hosts), *six, network=EVERYTHING)
    assert set(answers.values()) <= {RESET, "EINVAL"}
    assert answers["10.0.0.1,80"] == RESET


# N8: listening ----------------------------------------------------------------------------------------

LISTEN: Final = """
import socket, sys
listeners = [socket.create_server((host, port)) for host, port in
             [("0.0.0.0", 80), ("0.0.0.0", 8080), ("127.0.0.1", 443), ("8.8.8.8", 443)]]
with socket.create_connection(("127.0.0.1", 80)):
    listeners[0].accept()
print("listening", flush=True)
sys.stdin.read()
for listener in listeners:
    listener.setblocking(False)
    try:
        print("somebody came", listener.accept()[1])
    except BlockingIOError:
        print("nobody came")
"""


def test_n8_two_sandboxes_listen_on_the_same_ports_and_reach_neither(
    meanwhile: Execute, execute: Execute, ask_python: Answers
) -> None:
    argv = ["/usr/bin/python3", "-c", LISTEN]
    tried: dict[str, str] = {}
    inner: list[Result] = []

    def beside(_: str) -> None:
        inner.append(execute(argv, network=EVERYTHING))
        tried.update(ask_python(CONNECT, "127.0.0.1,8080", "0.0.0.0,80", network=EVERYTHING))

    outer = meanwhile(argv, beside, network=EVERYTHING)
    for result in (outer, *inner):
        assert result.stdout.text == "listening\n" + 4 * "nobody came\n", result
    assert set(tried.values()) == {REFUSED}


def test_n8_the_gateway_s_own_ports_cannot_be_taken(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import socket
        SHARE = [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)]
        for what, kind, host, port in [
            ("tcp", socket.SOCK_STREAM, "192.0.2.1", 15001), ("tcp all", socket.SOCK_STREAM, "0.0.0.0", 15001),
            ("dns", socket.SOCK_DGRAM, "0.0.0.0", 53), ("dns own", socket.SOCK_DGRAM, "127.0.0.1", 53),
            ("dns other", socket.SOCK_DGRAM, "9.9.9.9", 53), ("dns tcp", socket.SOCK_STREAM, "0.0.0.0", 53),
            ("proxy", socket.SOCK_STREAM, "127.0.0.1", 3128),
        ]:
            for number, options in enumerate(SHARE):
                with socket.socket(socket.AF_INET, kind) as taker:
                    for option in options:
                        taker.setsockopt(socket.SOL_SOCKET, option, 1)
                    if attempt(f"{what} {number}", lambda: taker.bind((host, port)) or taker):
                        attempt(f"{what} {number} listen", taker.listen)
        """,
        network=NAMED,
    )
    assert set(answers.values()) == {"EADDRINUSE"}, answers


def test_n8_what_a_guest_binds_elsewhere_gets_nothing_of_the_gateway_s(ask_python: Answers) -> None:
    """Every address is local, so any can be bound; connections to it come to the gateway all the same."""
    answers = ask_python(
        """
        import socket
        server = socket.create_server(("93.184.215.14", 443))
        server.setblocking(False)
        with socket.socket() as tcp:
            tcp.settimeout(10)
            tcp.connect(("93.184.215.14", 443))
            tcp.sendall(b"x\\n")
            attempt("client", lambda: tcp.recv(1) or (_ for _ in ()).throw(OSError(104, "")))
        attempt("server", server.accept)
        """,
        network=NAMED,
    )
    assert answers == {"client": RESET, "server": "EAGAIN"}


# The rules that make it so ------------------------------------------------------------------------------


def test_n14_routes_rules_and_tables_cannot_be_changed(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import socket, struct
        REQUEST, ACK = 1, 4
        LO = socket.if_nametoindex("lo")
        route = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 255, 3, 254, 2, 0) + struct.pack("HHi", 8, 4, LO)
        rule = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 0, 0, 1, 0)
        link = struct.pack("BxHiII", 0, 0, LO, 0, 1)
        address = struct.pack("BBBBI", socket.AF_INET, 8, 0, 0, LO) + struct.pack("HH4s", 8, 2, bytes([127, 0, 0, 1]))
        for what, kind, body in [("delete route", 25, route), ("new route", 24, route), ("new rule", 32, rule),
                                 ("link down", 16, link), ("delete address", 21, address), ("delete link", 17, link)]:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
                netlink.settimeout(5)
                netlink.send(struct.pack("IHHII", 16 + len(body), kind, REQUEST | ACK | 0x400, 1, 0) + body)
                code = struct.unpack_from("i", netlink.recv(65536), 16)[0]
                say(what, errno.errorcode.get(-code, code))
        attempt("nf_tables", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 12)
        for path in ["ip_forward", "conf/lo/route_localnet", "conf/all/accept_local", "ip_unprivileged_port_start"]:
            attempt(path, open, f"/proc/sys/net/ipv4/{path}", "w")
        with socket.socket() as tcp:
            attempt("transparent", tcp.setsockopt, socket.SOL_IP, 19, 1)
            attempt("mark", tcp.setsockopt, socket.SOL_SOCKET, socket.SO_MARK, 1)
            attempt("old tables", tcp.setsockopt, socket.SOL_IP, 64, bytes(100))
        """,
        network=NAMED,
    )
    assert set(answers.values()) <= {"EPERM", "EAFNOSUPPORT", "EROFS", "EACCES", "ENOENT", "ENOPROTOOPT"}, answers
    assert "OK" not in answers.values()


def test_n14_netlink_families(call: Answers) -> None:
    answers = call({str(protocol): ("socket", NETLINK, RAW, protocol) for protocol in range(32)}, network=NAMED)
    assert answers.pop("0") == "OK"
    assert set(answers.values()) == {"EAFNOSUPPORT"}


def test_n19_no_other_namespace_can_be_entered(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def call(name, *args):
            if getattr(libc, name)(*args):
                raise OSError(ctypes.get_errno(), "")
        NEWNET = 0x40000000
        attempt("unshare", call, "unshare", NEWNET)
        for pid in ("1", "self"):
            try:
                fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
                attempt(f"setns {pid}", call, "setns", fd, NEWNET)
            except OSError as error:
                say(f"setns {pid}", errno.errorcode[error.errno])
        """,
        network=NAMED,
    )
    assert "OK" not in answers.values()
    assert set(answers.values()) <= {"EPERM", "EACCES", "ENOENT"}


# N9 N10 N19: unix sockets -------------------------------------------------------------------------------


def test_n9_abstract_sockets_of_the_machine_are_not_there(ask_python: Answers) -> None:
    name = f"casemate-networks-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        answers = ask_python(
            """
            import socket
            with socket.socket(socket.AF_UNIX) as client:
                attempt("connect", client.connect, "\\0" + sys.argv[1])
            say("listed", open("/proc/net/unix").read().count("@"))
            """,
            name,
            network=EVERYTHING,
        )
    assert answers == {"connect": REFUSED, "listed": "0"}


def test_n10_sockets_of_the_machine_by_path_are_not_there(ask_python: Answers) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as directory,  # a short path: a socket's has 107 bytes at most
        socket.socket(socket.AF_UNIX) as listener,
    ):
        path = Path(directory, "host.sock")
        Path(directory).chmod(0o755)
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o777)
        paths = [str(path), "/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/notify"]
        answers = ask_python(
            """
            import socket
            for path in sys.argv[1:]:
                with socket.socket(socket.AF_UNIX) as client:
                    attempt(path, client.connect, path)
            """,
            *paths,
            network=EVERYTHING,
        )
    assert set(answers.values()) == {"ENOENT"}


def test_n19_nothing_of_the_gateway_is_inside(ask_python: Answers) -> None:
    answers = ask_python(
        """
        import stat
        say("inherited", [fd for fd in range(1024) if os.path.exists(f"/proc/self/fd/{fd}")
                          and stat.S_ISSOCK(os.stat(f"/proc/self/fd/{fd}").st_mode)])
        say("unix", open("/proc/net/unix").read().count("\\n"))
        say("processes", sorted(name for name in os.listdir("/proc") if name.isdigit() and int(name) > 1)
            == [str(os.getpid())])
        """,
        network=EVERYTHING,
    )
    assert answers == {"inherited": "[]", "unix": "1", "processes": "True"}


# N11 to N16: kinds of sockets -----------------------------------------------------------------------------


def test_n11_to_n13_n16_kinds_of_sockets_are_the_same_as_without_a_network(call: Answers) -> None:
    packet, xdp, vsock, alg, rxrpc, key, tipc = 17, 44, 40, 38, 33, 15, 30
    tried = {
        "packet": ("socket", packet, RAW, 0x0300),
        "raw": ("socket", INET, RAW, 255),
        "raw6": ("socket", INET6, RAW, 255),
        "ping": ("socket", INET, DATAGRAM, 1),
        "xdp": ("socket", xdp, RAW, 0),
        "vsock": ("socket", vsock, STREAM, 0),
        "alg": ("socket", alg, SEQPACKET, 0),
        "rxrpc": ("socket", rxrpc, DATAGRAM, 2),
        "key": ("socket", key, RAW, 2),
        "tipc": ("socket", tipc, STREAM, 0),
        "sctp": ("socket", INET, STREAM, 132),
        "mptcp": ("socket", INET, STREAM, 262),
        "io_uring": ("io_uring_setup", 8, "p"),
        "zero copy": ("setsockopt", 1, 1, 60, "m", 4),
        "tls in the kernel": ("setsockopt", 1, 6, 31, "s/tls", 3),
    }
    answers = call(tried, network=EVERYTHING)
    assert answers == call(tried)
    assert "OK" not in answers.values()


def test_n15_sockets_by_32_bit_and_x32_calls(ask: Answers, is_emulated: bool) -> None:
    answers = ask("legacy", network=EVERYTHING)
    assert answers["x32 socket"] == "ENOSYS"
    assert answers["int80 socket"] in {"ENOSYS", "SIGSEGV"}


# N17 N18: exhaustion ------------------------------------------------------------------------------------


def tracked() -> int:
    """How many connections this machine's kernel tracks here, where it can track any."""
    try:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    except OSError:
        return 0


def test_n17_connections_are_bounded_and_none_is_tracked(
    ask_python: Answers, execute: Execute, slowness: float
) -> None:
    before = tracked()
    answers = ask_python(
        """
        import socket
        held, refused = [], {}
        for number in range(4000):
            tcp = socket.socket()
            try:
                tcp.settimeout(10)
                tcp.connect((f"93.184.{number // 250}.{number % 250 + 1}", 443))
                held.append(tcp)
            except OSError as error:
                refused[error.errno] = refused.get(error.errno, 0) + 1
                tcp.close()
                if error.errno == errno.EMFILE:
                    break
        say("held", len(held))
        try:
            say("tracked", int(open("/proc/sys/net/netfilter/nf_conntrack_count").read()))
        except FileNotFoundError:
            say("tracked", 0)
        """,
        network=NAMED,
        limits={"open_files": 4096, "timeout": 60 * slowness},
    )
    assert answers["tracked"] == "0"
    assert tracked() <= before
    assert execute(["true"], network=NAMED).ok


def test_n17_a_sandbox_that_uses_up_its_connections_leaves_others_theirs(
    meanwhile: Execute, ask_python: Answers, slowness: float
) -> None:
    hold = """
import socket, sys
held = []
try:
    while True:
        held.append(socket.create_connection(("93.184.215.14", 443), timeout=5))
except OSError:
    pass
print("full", flush=True)
sys.stdin.read()
"""
    tried: dict[str, str] = {}
    result = meanwhile(
        ["/usr/bin/python3", "-c", hold],
        lambda _: tried.update(ask_python(CONNECT, "10.0.0.1,80", network=NAMED)),
        network=NAMED,
        limits={"open_files": 4096, "timeout": 60 * slowness},
    )
    assert result.ok, result.stderr.text
    assert tried == {"10.0.0.1,80": RESET}


def test_n17_ports_of_one_sandbox_are_its_own(ask_python: Answers, meanwhile: Execute, slowness: float) -> None:
    """Used up in one, they are there in the next: each namespace has all of them."""
    use = """
import socket, sys
held = []
try:
    for port in range(1, 65536):
        held.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            held[-1].bind(("0.0.0.0", port))
        except OSError:
            held.pop().close()
except OSError:
    pass
print("full", flush=True)
sys.stdin.read()
"""
    answers: dict[str, str] = {}
    code = """
        import socket
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            attempt("bind", udp.bind, ("0.0.0.0", 5000))
    """
    result = meanwhile(
        ["/usr/bin/python3", "-c", use],
        lambda _: answers.update(ask_python(code, network=NAMED)),
        network=NAMED,
        limits={"timeout": 60 * slowness},
    )
    assert result.ok
    assert answers == {"bind": "OK"}


def test_n18_s2_50_what_goes_through_is_as_fast_as_the_policy_says(execute: Execute, slowness: float) -> None:
    """By the proxy to a listener here: only an upper bound is looked at, which a slow machine keeps as well."""
    rate, amount = 200_000, 600_000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with listener.accept()[0] as client:
                client.sendall(bytes(amount))

        serving = threading.Thread(target=serve)
        serving.start()
        code = """
import socket, sys, time
with socket.create_connection(("127.0.0.1", 3128)) as tcp:
    tcp.sendall(f"CONNECT 127.0.0.1:{sys.argv[1]} HTTP/1.1\\r\\nHost: 127.0.0.1:{sys.argv[1]}\\r\\n\\r\\n".encode())
    head = b""
    while not head.endswith(b"\\r\\n\\r\\n"):
        head += tcp.recv(1)
    began, count = time.monotonic(), 0
    while data := tcp.recv(65536):
        count += len(data)
    print(count, time.monotonic() - began)
"""
        policy = {
            "allowed_hosts": [f"127.0.0.1:{port}"],
            "anywhere": ["127.0.0.1"],
            "bandwidth_bytes_per_s": rate,
        }
        result = execute(["/usr/bin/python3", "-c", code, str(port)], network=policy, limits={"timeout": 60 * slowness})
        serving.join()
    count, seconds = result.stdout.text.split()
    assert int(count) == amount
    assert float(seconds) >= (amount - 2 * rate) / rate


def test_the_layer_is_there_and_the_others_are_as_ever(execute: Execute) -> None:
    with_network = set(execute(["true"], network=NAMED).isolation.layers)
    assert with_network - set(execute(["true"]).isolation.layers) == {Layer.EGRESS}
