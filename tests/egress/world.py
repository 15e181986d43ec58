"""Namespaces for tests of the gateway: a guest whose only way is the gateway, the gateway's machine, and a world.

All are made without the rights of root. A socket belongs to the namespace that it was made in, so tests speak from the
guest's, and serve in the world's, with sockets that a process in there has handed them.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import dns.message
import dns.rcode

from casemate.egress.gateway import COMMAND, Gateways, Sockets, Way
from casemate.egress.wire import Settings
from casemate.model.flow import Flow
from casemate.model.network import NetworkPolicy

HELPER = Path(__file__).with_name("namespace.py")
TIMEOUT_S = 60.0
HOST_ADDRESS = "9.9.9.1"
HOST_ADDRESS6 = "2620:fe::1"
PUBLIC = "93.184.215.14"
OTHER = "93.184.215.15"
PUBLIC6 = "2606:2800::14"
PRIVATE = "10.1.2.3"
METADATA = "169.254.169.254"
RESOLVER = "93.184.215.53"
IN_WORLD = (PUBLIC, OTHER, RESOLVER, PRIVATE, METADATA)
TCP_PORT = 15001
DNS_PORT = 53
PROXY_PORT = 3128
TRANSPARENT = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
INTERCEPTION = """
table {family} casemate {{
  chain way {{
    type filter hook prerouting priority -150
    {family} daddr {loopback} accept
    {dns}
    meta l4proto tcp tproxy to {address}:{port} accept
  }}
}}
"""


class Namespace:
    """One network namespace, as long as the process in it."""

    def __init__(self, channel: socket.socket, process: subprocess.Popen[bytes] | None = None, pid: int = 0) -> None:
        self._channel = channel
        self._process = process
        self.pid = process.pid if process else pid

    @classmethod
    def fresh(cls) -> Namespace:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = ["unshare", "-Urn", sys.executable, "-I", str(HELPER), str(theirs.fileno())]
            process = subprocess.Popen(words, pass_fds=[theirs.fileno()])
        return cls(ours, process).ready()

    def _ask(self, **request: Any) -> tuple[Any, list[int]]:
        self._channel.settimeout(TIMEOUT_S)
        self._channel.send(json.dumps(request).encode())
        data, fds, _, _ = socket.recv_fds(self._channel, 65536, 1)
        return json.loads(data), fds

    def run(self, *commands: str) -> None:
        problems, _ = self._ask(run=commands)
        assert not any(problems), problems

    def beside(self) -> Namespace:
        pid, (fd,) = self._ask(child=True)
        return Namespace(socket.socket(fileno=fd), pid=pid).ready()

    def ready(self) -> Self:
        """Who answers is inside it."""
        self.run()
        return self

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, *, transparent: bool = False
    ) -> socket.socket:
        _, (fd,) = self._ask(socket=[family, kind, transparent])
        made = socket.socket(fileno=fd)
        made.settimeout(TIMEOUT_S)
        return made

    def close(self) -> None:
        self._channel.close()
        if self._process is not None:
            self._process.wait(TIMEOUT_S)


class Server:
    """Serves connections of one listening socket, each with `serve` in a thread of its own."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], object]) -> None:
        self._listener = listener
        self._listener.settimeout(None)
        self._serve = serve
        self.connections = 0
        self.got: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(TIMEOUT_S)
            self._serve(client)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT_S)


class NameServer:
    """Knows of no name, and remembers which it was asked for."""

    def __init__(self, sock: socket.socket) -> None:
        sock.bind((RESOLVER, DNS_PORT))
        sock.settimeout(None)
        self._sock = sock
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                data, sender = self._sock.recvfrom(65536)
                if not data:
                    return
                question = dns.message.from_wire(data)
                self.asked.append(question.question[0].name.to_text())
                answer = dns.message.make_response(question)
                answer.set_rcode(dns.rcode.NXDOMAIN)
                self._sock.sendto(answer.to_wire(), sender)

    def close(self) -> None:
        self._sock.sendto(b"", (RESOLVER, DNS_PORT))
        self._thread.join(TIMEOUT_S)
        self._sock.close()


class World:
    """The gateway's machine, and behind it hosts with addresses and names of their own."""

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self.hosts = directory / "hosts"
        self.hosts.write_text("")
        self.machine = Namespace.fresh()
        self._stack.callback(self.machine.close)
        self.outside = self.machine.beside()
        self._stack.callback(self.outside.close)
        self._link()
        self.name_server = NameServer(self.outside.socket(kind=socket.SOCK_DGRAM))
        self._stack.callback(self.name_server.close)
        command = ("nsenter", "-t", str(self.machine.pid), "-U", "-n", "--preserve-credentials", *COMMAND)
        self.gateways = Gateways(Settings(hosts=str(self.hosts), resolvers=(RESOLVER,)), command=command)
        self._stack.callback(self.gateways.close)

    def _link(self) -> None:
        self.machine.run(
            "ip link set lo up",
            "ip link add near type veth peer name far",
            f"ip link set far netns {self.outside.pid}",
            f"ip addr add {HOST_ADDRESS}/32 dev near",
            f"ip -6 addr add {HOST_ADDRESS6}/128 dev near nodad",
            "ip link set near up",
        )
        self.outside.run(
            "ip link set lo up",
            *(f"ip addr add {address}/32 dev far" for address in IN_WORLD),
            f"ip -6 addr add {PUBLIC6}/128 dev far nodad",
            "ip link set far up",
            "ip route add default dev far",
            "ip -6 route add default dev far",
        )
        self.machine.run("ip route add default dev near", "ip -6 route add default dev near")

    def names(self, **names: str) -> None:
        """Names, with `_` for a dot, and their addresses; the gateway reads them anew."""
        lines = [f"{address} {name.replace('_', '.')}" for name, text in names.items() for address in text.split()]
        self.hosts.write_text("\n".join(lines) + "\n")

    def serve(self, address: str, port: int, serve: Callable[[socket.socket], object], *, here: bool = False) -> Server:
        """A server in the world, or with `here` on the gateway's own machine."""
        place = self.machine if here else self.outside
        listener = place.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(512)
        server = Server(listener, serve)
        self._stack.callback(server.close)
        return server

    def guest(self, policy: NetworkPolicy) -> Guest:
        return self._stack.enter_context(Guest(self.gateways, policy))

    def close(self) -> None:
        self._stack.close()


class Guest:
    """A sandbox's network namespace: everything that it sends ends at the gateway."""

    def __init__(self, gateways: Gateways, policy: NetworkPolicy) -> None:
        self._namespace = Namespace.fresh()
        self.flows: list[Flow] = []
        self._seen = threading.Condition()
        self._namespace.run(
            "ip link set lo up", "ip route add local default dev lo", "ip -6 route add local default dev lo"
        )
        self._intercept()
        tcp = self._listener(socket.AF_INET, TRANSPARENT[socket.AF_INET], TCP_PORT)
        tcp6 = self._listener(socket.AF_INET6, TRANSPARENT[socket.AF_INET6], TCP_PORT)
        dns_tcp = self._listener(socket.AF_INET, "0.0.0.0", DNS_PORT)
        proxy = self._listener(socket.AF_INET, "127.0.0.1", PROXY_PORT)
        dns = self._namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        dns.bind(("0.0.0.0", DNS_PORT))
        numbers = [each.detach() for each in (tcp, tcp6, dns, dns_tcp, proxy)]
        sockets = Sockets(**dict(zip(("tcp", "tcp6", "dns", "dns_tcp", "proxy"), numbers, strict=True)))
        self.way: Way = gateways.open(policy, sockets, self._note)

    def _listener(self, family: int, address: str, port: int) -> socket.socket:
        made = self._namespace.socket(family, transparent=port == TCP_PORT)
        made.bind((address, port))
        made.listen(512)
        return made

    def _intercept(self) -> None:
        four = INTERCEPTION.format(
            family="ip", loopback="127.0.0.0/8", dns="tcp dport 53 accept", address="192.0.2.1", port=TCP_PORT
        )
        six = INTERCEPTION.format(family="ip6", loopback="::1", dns="", address="[2001:db8::1]", port=TCP_PORT)
        self._namespace.run(f"nft -f - <<'END'\n{four}\n{six}\nEND\n")

    def _note(self, flow: Flow) -> None:
        with self._seen:
            self.flows.append(flow)
            self._seen.notify_all()

    def flow(self, index: int = 0) -> Flow:
        """The flow of that index, as soon as it is known."""
        return self.first(index + 1)[index]

    def first(self, count: int) -> list[Flow]:
        """So many flows, as soon as they are known; then there are no others."""
        with self._seen:
            assert self._seen.wait_for(lambda: len(self.flows) >= count, TIMEOUT_S), self.flows
            return list(self.flows)

    def wait_for(self, is_it: Callable[[Flow], bool]) -> None:
        """Wait until there is such a flow."""
        with self._seen:
            assert self._seen.wait_for(lambda: any(map(is_it, self.flows)), TIMEOUT_S), self.flows

    def connect(self, address: str, port: int) -> socket.socket:
        made = self._namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def proxy(self) -> socket.socket:
        return self.connect("127.0.0.1", PROXY_PORT)

    def datagram(self, family: int = socket.AF_INET) -> socket.socket:
        return self._namespace.socket(family, socket.SOCK_DGRAM)

    def talk(self, address: str, port: int, *pieces: bytes) -> bytes:
        """What comes back; nothing where the connection was cut off."""
        try:
            return talk(self.connect(address, port), *pieces)
        except ConnectionResetError:
            return b""

    def look_up(self, name: str, kind: str = "A") -> dns.message.Message:
        """The answer to a question, from whichever server is asked."""
        with self.datagram() as asking:
            asking.connect(("8.8.8.8", DNS_PORT))
            asking.send(dns.message.make_query(name, kind).to_wire())
            return dns.message.from_wire(asking.recv(65536))

    def addresses(self, name: str, kind: str = "A") -> list[str]:
        return [str(record) for each in self.look_up(name, kind).answer for record in each]

    def ask(self, *pieces: bytes) -> bytes:
        """What the proxy answers."""
        return talk(self.proxy(), *pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.way.close()
        self._namespace.close()


def talk(client: socket.socket, *pieces: bytes) -> bytes:
    """Everything that comes back for these bytes, until the other side ends or hangs up."""
    found = b""
    with client, suppress(ConnectionError):
        with suppress(OSError):  # it may have been told already
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            found += data
    return found
