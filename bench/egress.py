"""The gateway: how much goes through it, how many connections a second, and what idle ones cost.

All in network namespaces of its own, as in tests/egress; the copy that it is compared with is by the same client over
the loopback of one of them.
"""

from __future__ import annotations

import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.egress.world import PUBLIC, Guest, Namespace, World

from bench.rows import Row
from casemate.model.network import NetworkPolicy

COPIED_BYTES = 1 << 30
PIECE_BYTES = 1 << 20
IDLE = 1000
GROUP = "The way out of a sandbox"
COPY_PORT, ECHO_PORT = 7000, 7001


def give(client: socket.socket) -> None:
    """Send as fast as it is taken."""
    if not client.recv(1):
        return
    piece = b"x" * PIECE_BYTES
    for _ in range(COPIED_BYTES // PIECE_BYTES):
        client.sendall(piece)


def take(client: socket.socket) -> float:
    """Bytes a second that come."""
    scratch = bytearray(PIECE_BYTES)
    client.sendall(b"\0")
    started_s, total = time.perf_counter(), 0
    while count := client.recv_into(scratch):
        total += count
    assert total == COPIED_BYTES, total
    return total / (time.perf_counter() - started_s)


def plain() -> float:
    """The same client and server over one loopback."""
    place = Namespace.fresh()
    place.run("ip link set lo up")
    listener, client = place.socket(), place.socket()
    listener.bind(("127.0.0.1", COPY_PORT))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as accepted:
            give(accepted)

    thread = threading.Thread(target=serve)
    thread.start()
    with client:
        client.connect(("127.0.0.1", COPY_PORT))
        speed = take(client)
    thread.join()
    place.close()
    return speed


def through(guest: Guest) -> float:
    with guest.connect(PUBLIC, COPY_PORT) as client:
        return take(client)


def a_connection_s(guest: Guest, count: int) -> float:
    """Connections one after the other, each with one answer."""
    started_s = time.perf_counter()
    for _ in range(count):
        with guest.connect(PUBLIC, ECHO_PORT) as client:
            client.sendall(b"\0")
            assert client.recv(1) == b"\0"
    return (time.perf_counter() - started_s) / count


def memory_of(pid: int) -> int:
    """What a process has for itself."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) << 10


def idle_bytes(world: World, policy: NetworkPolicy) -> int:
    """The gateway's memory with many connections that rest."""
    guests = [Guest(world.gateways, policy) for _ in range(2)]
    opened = []
    for number in range(IDLE):
        opened.append(guests[number % 2].connect(PUBLIC, ECHO_PORT))
        opened[-1].sendall(b"\0")
        assert opened[-1].recv(1) == b"\0"
    pid = world.gateways.pid
    assert pid is not None
    found = memory_of(pid)
    for each in opened:
        each.close()
    for guest in guests:
        guest.__exit__()
    return found


def echo(listener: socket.socket) -> None:
    """Many connections by one thread."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                waiting.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            client = key.fileobj
            assert isinstance(client, socket.socket)
            data = client.recv(65536)
            if data:
                client.sendall(data)
            else:
                waiting.unregister(client)
                client.close()


def egress(share: float) -> Iterator[Row]:
    """The rows, in namespaces of their own."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            yield from _rows(world, max(1, round(8 * share)), max(100, round(1000 * share)))
        finally:
            world.close()


def _rows(world: World, rounds: int, connections: int) -> Iterator[Row]:
    world.serve(PUBLIC, COPY_PORT, give)
    listener = world.outside.socket()
    listener.bind((PUBLIC, ECHO_PORT))
    listener.listen(512)
    listener.settimeout(None)
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    policy = NetworkPolicy(outbound=True, allowed_hosts=(PUBLIC,))
    with Guest(world.gateways, policy) as guest:
        pairs = [(plain(), through(guest)) for _ in range(rounds)]
        each_s = a_connection_s(guest, connections)
    direct, found = (median(each) for each in zip(*pairs, strict=True))
    more = {"loopback_GB_per_s": direct / 1e9, "gateway_GB_per_s": found / 1e9}
    yield Row(group=GROUP, name="a copy, to one over loopback", value=direct / found, unit="times", bound=4, more=more)
    yield Row(group=GROUP, name="a connection and its answer", value=each_s * 1000, unit="ms", bound=5)
    idle_mib = idle_bytes(world, policy) / 2**20
    yield Row(group=GROUP, name=f"the gateway with {IDLE} idle connections", value=idle_mib, unit="MiB", bound=150)
