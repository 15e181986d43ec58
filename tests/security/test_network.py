"""Attacks on the network (N1 to N19) of a sandbox that has none: its own loopback, and no way out of it.

Cases that need the egress gateway (N4 to N7, N17, N18) belong to it; the addresses of N4 are tried here without one.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from casemate import Layer, Result

Execute = Callable[..., Result]
Answers = Callable[..., "dict[str, str]"]

HAS_IPV6: Final = Path("/proc/net/if_inet6").exists()
NO_WAY: Final = "ENETUNREACH"
NO_WAY_IPV6: Final = NO_WAY if HAS_IPV6 else "EAFNOSUPPORT"
REFUSED_IPV6: Final = "ECONNREFUSED" if HAS_IPV6 else "EAFNOSUPPORT"

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
FAMILIES: Final = (*range(46), 46, 63, 255, 0x7FFFFFFF, 0xFFFFFFFF)
TYPES: Final = {"stream": 1, "datagram": 2, "raw": 3, "seqpacket": 5}

CONNECT: Final = """
import socket
def connect(address):
    host, port = address.rsplit(",", 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tcp:
        tcp.settimeout(5)
        tcp.connect((host, int(port)))
for address in sys.argv[1:]:
    attempt(address, connect, address)
"""


def addresses_of_this_machine() -> set[str]:
    """Return the machine's own IPv4 addresses, as the kernel routes them."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    return {line.split()[-1] for line, after in pairwise(lines) if "/32 host LOCAL" in after}


@pytest.fixture
def host_ports() -> Iterator[dict[socket.AddressFamily, socket.socket]]:
    """Listen on every address of the machine, on one port of each family."""
    families = [socket.AF_INET, socket.AF_INET6] if HAS_IPV6 else [socket.AF_INET]
    with socket.socket() as tcp, socket.socket(families[-1]) as tcp6:
        listening = {socket.AF_INET: tcp, families[-1]: tcp6}
        for family, listener in listening.items():
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("", 0))
            listener.listen()
            listener.setblocking(False)
        yield listening


# N1 N2: the world and the metadata services -------------------------------------------------------


def test_n1_internet_by_tcp(ask_python: Answers) -> None:
    answers = ask_python(CONNECT, "1.1.1.1,443", "8.8.8.8,53", "2606:4700:4700::1111,443")
    assert answers == {
        "1.1.1.1,443": NO_WAY,
        "8.8.8.8,53": NO_WAY,
        "2606:4700:4700::1111,443": NO_WAY_IPV6,
    }


def test_n1_internet_by_udp_broadcast_and_multicast(ask_python: Answers) -> None:
    answers = ask_python("""
        import socket
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for host in ["8.8.8.8", "255.255.255.255", "224.0.0.251", "192.168.0.255"]:
            attempt(host, udp.sendto, b"x", (host, 53))
    """)
    assert set(answers.values()) == {NO_WAY}


def test_n1_internet_by_names(ask_python: Answers) -> None:
    answers = ask_python("""
        import socket
        try:
            say("example.com", socket.getaddrinfo("example.com", 443))
        except socket.gaierror as error:
            say("example.com", "not resolved" if error.errno in {socket.EAI_AGAIN, socket.EAI_NONAME} else error)
        say("localhost", socket.gethostbyname("localhost"))
    """)
    assert answers == {"example.com": "not resolved", "localhost": "127.0.0.1"}


def test_n1_internet_by_ping(call: Answers) -> None:
    icmp, icmp6 = 1, 58
    answers = call(
        {
            "ping": ("socket", INET, TYPES["datagram"], icmp),
            "ping6": ("socket", INET6, TYPES["datagram"], icmp6),
            "raw": ("socket", INET, TYPES["raw"], icmp),
            "raw6": ("socket", INET6, TYPES["raw"], icmp6),
        }
    )
    assert answers == {"ping": "EPROTONOSUPPORT", "ping6": "EPROTONOSUPPORT", "raw": "EPERM", "raw6": "EPERM"}


def test_n1_no_interface_is_up_but_loopback(ask_python: Answers) -> None:
    answers = ask_python("""
        import fcntl, socket, struct
        IFF_UP, SIOCGIFFLAGS = 1, 0x8913
        with socket.socket() as any_socket:
            for number, name in socket.if_nameindex():
                request = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
                say(name, struct.unpack("16sH14x", request)[1] & IFF_UP)
        say("routes", open("/proc/net/route").read().count("\\n"))
    """)
    assert answers.pop("routes") == "1", "only the heading"
    assert {name for name, is_up in answers.items() if is_up == "1"} == {"lo"}


def test_n2_metadata(ask_python: Answers) -> None:
    answers = ask_python(CONNECT, "169.254.169.254,80", "169.254.170.2,80", "100.100.100.200,80", "fd00:ec2::254,80")
    assert answers == {
        "169.254.169.254,80": NO_WAY,
        "169.254.170.2,80": NO_WAY,
        "100.100.100.200,80": NO_WAY,
        "fd00:ec2::254,80": NO_WAY_IPV6,
    }


def test_n4_private_ranges(ask_python: Answers) -> None:
    hosts = ["10.0.0.1", "172.16.0.1", "172.17.0.1", "192.168.0.1", "100.64.0.1", "198.18.0.1"]
    answers = ask_python(CONNECT, *(f"{host},80" for host in hosts), "fc00::1,80", "fe80::1,80")
    link_local = answers.pop("fe80::1,80")
    assert link_local in {"EINVAL", NO_WAY_IPV6}, "an address of a link needs a link"
    assert answers.pop("fc00::1,80") == NO_WAY_IPV6
    assert set(answers.values()) == {NO_WAY}


# N3 N8: the machine's loopback and the guest's own ------------------------------------------------


def test_n3_host_loopback(ask_python: Answers, host_ports: dict[socket.AddressFamily, socket.socket]) -> None:
    port = host_ports[socket.AF_INET].getsockname()[1]
    names = ["127.0.0.1", "0.0.0.0", "127.1", "127.255.255.254", "0x7f.1", "2130706433", "localhost"]
    answers = ask_python(CONNECT, *(f"{name},{port}" for name in names))
    assert set(answers.values()) == {"ECONNREFUSED"}
    with pytest.raises(BlockingIOError):
        host_ports[socket.AF_INET].accept()


def test_n3_host_loopback_by_ipv6(ask_python: Answers, host_ports: dict[socket.AddressFamily, socket.socket]) -> None:
    port = host_ports[socket.AF_INET].getsockname()[1]
    port6 = host_ports.get(socket.AF_INET6, host_ports[socket.AF_INET]).getsockname()[1]
    answers = ask_python(CONNECT, f"::1,{port6}", f"::,{port6}", f"::ffff:127.0.0.1,{port}", f"::ffff:0.0.0.0,{port}")
    assert set(answers.values()) == {REFUSED_IPV6}
    for listener in host_ports.values():
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_n3_host_addresses(ask_python: Answers, host_ports: dict[socket.AddressFamily, socket.socket]) -> None:
    port = host_ports[socket.AF_INET].getsockname()[1]
    for host in addresses_of_this_machine():
        with socket.create_connection((host, port)):
            host_ports[socket.AF_INET].accept()[0].close()
    answers = ask_python(CONNECT, "127.0.0.1,1", *(f"{host},{port}" for host in addresses_of_this_machine()))
    assert set(answers.values()) <= {"ECONNREFUSED", NO_WAY}
    with pytest.raises(BlockingIOError):
        host_ports[socket.AF_INET].accept()


def test_n3_host_loopback_by_udp(ask_python: Answers) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.setblocking(False)
        answers = ask_python(
            """
            import socket
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.settimeout(5)
            udp.connect(("127.0.0.1", int(sys.argv[1])))
            attempt("send", udp.send, b"x")
            attempt("receive", udp.recv, 1)
            """,
            str(listener.getsockname()[1]),
        )
        assert answers == {"send": "OK", "receive": "ECONNREFUSED"}
        with pytest.raises(BlockingIOError):
            listener.recv(1)


LISTEN: Final = """
import socket, sys
listeners = [socket.create_server(("0.0.0.0", port)) for port in (80, 8080, *map(int, sys.argv[1:]))]
client = socket.create_connection(("127.0.0.1", 80))
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


def test_n8_listening_on_the_same_ports_in_two_runs_at_once(meanwhile: Execute, execute: Execute) -> None:
    argv = ["/usr/bin/python3", "-c", LISTEN]
    inner: list[Result] = []
    outer = meanwhile(argv, lambda _: inner.append(execute(argv)))
    for result in (outer, *inner):
        assert result.stdout.text == "listening\n" + 2 * "nobody came\n", result


def test_n8_listening_is_not_reachable_from_outside(meanwhile: Execute) -> None:
    answers: list[int] = []
    with socket.socket() as kept:  # bound, so that nobody out here listens there, and not listening either
        kept.bind(("", 0))
        port = kept.getsockname()[1]

        def connect(_: str) -> None:
            for host in addresses_of_this_machine():
                with socket.socket() as tcp:
                    answers.append(tcp.connect_ex((host, port)))

        result = meanwhile(["/usr/bin/python3", "-c", LISTEN, str(port)], connect)
    assert result.stdout.text == "listening\n" + 3 * "nobody came\n"
    assert set(answers) == {errno.ECONNREFUSED}


# N9 N10 N19: unix sockets -------------------------------------------------------------------------


def unix_sockets_of_this_machine() -> list[str]:
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]
    return [words[7] for line in lines if len(words := line.split(maxsplit=7)) == 8]


def test_n9_abstract_unix_sockets(ask_python: Answers) -> None:
    name = f"casemate-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()
        listener.setblocking(False)
        names = {found[1:] for found in unix_sockets_of_this_machine() if found.startswith("@")}
        assert name in names
        answers = ask_python(
            """
            import socket
            for name in sys.argv[1:]:
                with socket.socket(socket.AF_UNIX) as client:
                    attempt(name, client.connect, "\\0" + name)
            say("listed", open("/proc/net/unix").read().count("@"))
            """,
            *sorted(names),
            "/tmp/.X11-unix/X0",
            "/containerd-shim/x.sock",
        )
        assert answers.pop("listed") == "0"
        assert set(answers.values()) == {"ECONNREFUSED"}
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_n10_unix_sockets_by_path(ask_python: Answers, tmp_path: Path) -> None:
    path = tmp_path / "host.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        path.chmod(0o777)
        known = [
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
        ]
        known += ["/run/dbus/system_bus_socket", "/run/systemd/notify", "/run/systemd/private"]
        known += [found for found in unix_sockets_of_this_machine() if found.startswith("/")]
        answers = ask_python(
            """
            import socket
            for path in sys.argv[1:]:
                with socket.socket(socket.AF_UNIX) as client:
                    attempt(path, client.connect, path)
            """,
            *known,
            str(path),
        )
        assert answers[str(path)] == "ENOENT"
        assert set(answers.values()) == {"ENOENT"}
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_n19_no_socket_is_shared_with_anybody(ask_python: Answers) -> None:
    answers = ask_python("""
        import stat
        say("inherited", [fd for fd in range(1024) if os.path.exists(f"/proc/self/fd/{fd}")
                          and stat.S_ISSOCK(os.stat(f"/proc/self/fd/{fd}").st_mode)])
        found = []
        for top in ["/work", "/code", "/home", "/tmp", "/dev", "/run", "/var", "/opt", "/mnt", "/etc"]:
            for folder, _, names in os.walk(top):
                paths = [os.path.join(folder, name) for name in names]
                found += [path for path in paths if stat.S_ISSOCK(os.lstat(path).st_mode)]
        say("in the tree", found)
        say("listed", open("/proc/net/unix").read().count("\\n"))
    """)
    assert answers == {"inherited": "[]", "in the tree": "[]", "listed": "1"}


# N11 to N16: kinds of sockets ---------------------------------------------------------------------


def test_n11_raw_and_packet_sockets(call: Answers) -> None:
    packet, xdp = 17, 44
    answers = call(
        {
            "packet raw": ("socket", packet, TYPES["raw"], 0x0300),
            "packet datagram": ("socket", packet, TYPES["datagram"], 0x0300),
            "packet old": ("socket", INET, 10, 0x0300),
            "raw": ("socket", INET, TYPES["raw"], 255),
            "raw nonblocking": ("socket", INET, TYPES["raw"] | 0o4000 | 0o2000000, 6),
            "raw6": ("socket", INET6, TYPES["raw"], 255),
            "xdp": ("socket", xdp, TYPES["raw"], 0),
        }
    )
    assert answers == {
        "packet raw": "EAFNOSUPPORT",
        "packet datagram": "EAFNOSUPPORT",
        "packet old": "EPERM",
        "raw": "EPERM",
        "raw nonblocking": "EPERM",
        "raw6": "EPERM",
        "xdp": "EAFNOSUPPORT",
    }


def test_n12_vsock(call: Answers) -> None:
    vsock = 40
    kinds = {name: ("socket", vsock, kind, 0) for name, kind in TYPES.items()}
    assert set(call(kinds).values()) == {"EAFNOSUPPORT"}


def expected_answer(family: int, kind: str) -> str:
    if family == UNIX:
        return "OK"
    if family == INET6 and not HAS_IPV6 and kind in {"stream", "datagram"}:
        return "EAFNOSUPPORT"
    if family in {INET, INET6}:
        return "OK" if kind in {"stream", "datagram"} else "EPERM"
    if family == NETLINK:
        return "OK" if kind in {"raw", "datagram"} else "ESOCKTNOSUPPORT"
    return "EAFNOSUPPORT"


def test_n13_only_listed_families_have_sockets(call: Answers) -> None:
    tried = {f"{family} {kind}": (family, kind) for family in FAMILIES for kind in TYPES}
    answers = call({what: ("socket", family, TYPES[kind], 0) for what, (family, kind) in tried.items()})
    assert answers == {what: expected_answer(family, kind) for what, (family, kind) in tried.items()}


def test_n13_the_upper_half_of_an_argument_changes_nothing(call: Answers) -> None:
    alg, garbage = 38, 0xDEAD << 32
    answers = call(
        {
            "alg": ("socket", garbage | alg, TYPES["seqpacket"], 0),
            "unix": ("socket", garbage | UNIX, TYPES["stream"], 0),
            "icmp": ("socket", INET, TYPES["datagram"], garbage | 1),
        }
    )
    assert answers == {"alg": "EAFNOSUPPORT", "unix": "OK", "icmp": "EPROTONOSUPPORT"}


def test_n13_only_unix_sockets_come_in_pairs(call: Answers) -> None:
    tried = {str(family): ("socketpair", family, TYPES["stream"], 0, "p") for family in FAMILIES}
    answers = call(tried)
    assert answers.pop(str(UNIX)) == "OK"
    assert set(answers.values()) == {"EAFNOSUPPORT"}


def test_n13_other_transports_of_the_internet(call: Answers) -> None:
    stream, datagram = TYPES["stream"], TYPES["datagram"]
    transports = {"sctp": (stream, 132), "smc": (stream, 256), "mptcp": (stream, 262)}
    transports |= {"udplite": (datagram, 136), "l2tp": (datagram, 115), "dccp": (6, 33), "sctp packets": (5, 132)}
    answers = call({name: ("socket", INET, kind, protocol) for name, (kind, protocol) in transports.items()})
    assert answers.pop("dccp") == "EPERM"
    assert answers.pop("sctp packets") == "EPERM"
    assert set(answers.values()) == {"EPROTONOSUPPORT"}


def test_n14_netlink_families(call: Answers) -> None:
    protocols = {str(protocol): ("socket", NETLINK, TYPES["raw"], protocol) for protocol in range(32)}
    answers = call(protocols)
    assert answers.pop("0") == "OK"
    assert set(answers.values()) == {"EAFNOSUPPORT"}


def test_n14_the_route_family_only_reads(ask_python: Answers) -> None:
    """Each change is refused for want of a capability, before the kernel looks at its details."""
    answers = ask_python("""
        import socket, struct
        REQUEST, ACK, CREATE = 1, 4, 0x400
        LO = socket.if_nametoindex("lo")
        link = struct.pack("BxHiII", 0, 0, LO, 0, 1)
        address = struct.pack("BBBBI", socket.AF_INET, 24, 0, 0, LO) + struct.pack("HH4s", 8, 2, bytes([10, 0, 0, 1]))
        route = struct.pack("BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0)
        neighbour = struct.pack("BxxxiHBB", socket.AF_INET, LO, 0, 0, 0)
        changes = {
            "new link": (16, link), "delete link": (17, link), "set link": (19, link),
            "new address": (20, address), "delete address": (21, address),
            "new route": (24, route), "delete route": (25, route), "new rule": (32, route),
            "new neighbour": (28, neighbour), "new queue": (36, link + bytes(4)), "new namespace id": (88, bytes(4)),
        }
        for what, (kind, body) in changes.items():
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
                netlink.settimeout(5)
                netlink.send(struct.pack("IHHII", 16 + len(body), kind, REQUEST | ACK | CREATE, 1, 0) + body)
                code = struct.unpack_from("i", netlink.recv(65536), 16)[0]
                say(what, errno.errorcode.get(-code, code))
    """)
    assert set(answers.values()) == {"EPERM"}, answers


def test_n15_sockets_by_32_bit_and_x32_calls(ask: Answers, is_emulated: bool) -> None:
    answers = ask("legacy")
    assert answers["x32 socket"] == "ENOSYS"
    assert answers["int80 socket"] in {"ENOSYS", "SIGSEGV"}
    if is_emulated:
        assert answers["int80 socketcall"] == "1000", "number 102 is getuid there: the one table that the filter knows"
    else:
        assert answers["int80 socketcall"] in {"ENOSYS", "SIGSEGV"}


def test_n16_sockets_by_io_uring(call: Answers) -> None:
    answers = call(
        {
            "setup": ("io_uring_setup", 8, "p"),
            "enter": ("io_uring_enter", 0, 1, 0, 0, 0, 0),
            "register": ("io_uring_register", 0, 0, 0, 0),
        }
    )
    assert set(answers.values()) == {"ENOSYS"}


def test_n16_zero_copy_and_upper_layer_protocols(call: Answers) -> None:
    """What writes into pages of packets that a file may own is closed on every socket."""
    sol_socket, tcp, udp = 1, 6, 17
    answers = call(
        {
            "zero copy": ("setsockopt", 1, sol_socket, 60, "m", 4),
            "upper layer protocol": ("setsockopt", 1, tcp, 31, "s/tls", 3),
            "encapsulation": ("setsockopt", 1, udp, 100, "m", 4),
        }
    )
    assert set(answers.values()) == {"ENOPROTOOPT"}


def test_n19_the_network_namespace_is_its_own(ask_python: Answers, execute: Execute) -> None:
    inside = ask_python('say("net", os.readlink("/proc/self/ns/net"))')["net"]
    assert inside != str(Path("/proc/self/ns/net").readlink())
    assert Layer.NETWORK_NAMESPACE in execute(["/bin/true"]).isolation.layers
