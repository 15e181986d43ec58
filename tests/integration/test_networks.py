"""Runs with a network: what is allowed is reached, everything is told, and without a gateway there is nothing."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.egress.world import PUBLIC, World
from tests.machine import left_running
from tests.networks import lacks_egress

import casemate
from casemate import network_limits as bound
from casemate.egress.gateway import Gateways
from casemate.isolation import way
from casemate.model.layers import Layer
from casemate.model.network import BLOCKED_PORTS, NetworkPolicy

HOST: Final = "server.test"
PORT: Final = 7777
TIMEOUT_S: Final = 20.0
ASK: Final = """
import socket, sys
def ask(host, port):
    try:
        with socket.create_connection((host, int(port)), timeout=10) as tcp:
            tcp.sendall(b"who\\n")
            answer = b""
            while data := tcp.recv(1 << 16):
                answer += data
            return answer
    except OSError as error:
        return type(error).__name__
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Hosts with public addresses of their own, and a machine for the gateway that reaches them."""
    made = World(tmp_path_factory.mktemp("world"))
    made.names(server_test=PUBLIC)
    yield made
    made.close()


@pytest.fixture(scope="module")
def networked(request: pytest.FixtureRequest) -> Iterator[casemate.Engine]:
    """An engine whose gateway is on that machine."""
    with casemate.Engine(warm=False) as opened:
        if lacks_egress(opened):
            pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
        opened._gateways = request.getfixturevalue("world").gateways
        yield opened


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """What the server was sent."""
    return []


@pytest.fixture(scope="module")
def port(world: World, lines: list[bytes]) -> int:
    """Of a server that answers a line with a word."""

    def serve(client: socket.socket) -> None:
        lines.append(client.makefile("rb").readline())
        client.sendall(b"hello")

    world.serve(PUBLIC, PORT, serve)
    return PORT


@pytest.fixture
def no_gateway(networked: casemate.Engine) -> Iterator[Callable[..., None]]:
    """Give the engine another gateway, for one test."""
    own = networked.gateways
    with ExitStack() as others:

        def replace(*command: str) -> None:
            networked._gateways = Gateways(command=command)
            others.callback(networked._gateways.close)

        yield replace
        networked._gateways = own


def python(engine: casemate.Engine, code: str, *args: object, slowness: float = 1, **options: Any) -> casemate.Result:
    argv = ["/usr/bin/python3", "-I", "-S", "-c", ASK + code, *map(str, args)]
    return casemate.execute(argv, engine=engine, limits={"timeout": TIMEOUT_S * slowness}, **options)


ONE: Final = "print(ask(sys.argv[1], sys.argv[2]))"


def test_s2_14_an_allowed_host_is_reached(networked: casemate.Engine, port: int, slowness: float) -> None:
    result = python(networked, ONE, HOST, port, network=[f"{HOST}:{port}"], slowness=slowness)
    assert result.stdout.text == "b'hello'\n"
    (flow,) = result.flows
    assert (flow.host, flow.port, flow.address, flow.allowed) == (HOST, port, PUBLIC, True)
    assert Layer.EGRESS in result.isolation.layers
    assert result.events == ()


def test_s2_94_what_went_through_is_counted(networked: casemate.Engine, world: World, slowness: float) -> None:
    answer, port = bytes(3_000_000), PORT + 1

    def serve(client: socket.socket) -> None:
        client.recv(10)
        client.sendall(answer)

    world.serve(PUBLIC, port, serve)
    code = "print(len(ask(sys.argv[1], sys.argv[2])))"
    result = python(networked, code, HOST, port, network=[f"{HOST}:{port}"], slowness=slowness)
    assert result.stdout.text == f"{len(answer)}\n"
    assert result.usage.network_received_bytes >= len(answer)
    assert 0 < result.usage.network_sent_bytes < 10_000
    assert sum(flow.received_bytes for flow in result.flows) == result.usage.network_received_bytes


def test_n7_s2_14_a_policy_without_hosts_allows_nothing(
    networked: casemate.Engine, port: int, lines: list[bytes], slowness: float
) -> None:
    before = list(lines)
    result = python(networked, ONE, HOST, port, network=[], slowness=slowness)
    assert (result.stdout.text, lines) == ("gaierror\n", before)
    assert [event.kind for event in result.events] == ["network-refused"]
    assert [flow.allowed for flow in result.flows] == [False] * len(result.flows)


def test_s2_16_s2_51_without_a_policy_there_is_no_network(
    networked: casemate.Engine, port: int, slowness: float
) -> None:
    for options in ({}, {"network": None}, {"network": NetworkPolicy(allowed_hosts=("*",))}):
        result = python(networked, ONE, "8.8.8.8", port, slowness=slowness, **options)
        assert (result.stdout.text, result.flows) == ("OSError\n", ())
        assert Layer.EGRESS not in result.isolation.layers


@pytest.mark.parametrize(
    "network",
    [
        ["server.test"],
        ("*.test",),
        {"allowed_hosts": ["server.test"], "blocked_ports": [22], "bandwidth": "10Mi"},
        NetworkPolicy(outbound=True, allowed_hosts=("server.test",)),
    ],
)
def test_a_policy_may_be_written_in_many_ways(networked: casemate.Engine, network: object, slowness: float) -> None:
    code = "print(bool(socket.getaddrinfo(sys.argv[1], 80)))"
    assert python(networked, code, HOST, network=network, slowness=slowness).stdout.text == "True\n"


@pytest.mark.parametrize(
    ("network", "field"),
    [
        ("server.test", "network"),
        (7, "network"),
        ({"hosts": ["server.test"]}, "network"),
        ({"allowed_hosts": "server.test"}, "network"),
        ({"allowed_hosts": ["no host!"]}, "allowed_hosts"),
        ({"bandwidth": "fast"}, "network.bandwidth"),
        ({"blocked_ports": [70000]}, "blocked_ports"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(networked: casemate.Engine, network: object, field: str) -> None:
    with pytest.raises(casemate.InvalidInput) as caught:
        python(networked, ONE, network=network)
    assert caught.value.field == field


def test_an_isolate_has_no_network(networked: casemate.Engine) -> None:
    with pytest.raises(casemate.InvalidInput, match="network"):
        casemate.run("1", runtime="javascript", network=["server.test"], engine=networked)


def test_programs_are_told_of_the_proxy_if_that_is_asked(
    networked: casemate.Engine, port: int, slowness: float
) -> None:
    code = """
import os
proxy = os.environ["HTTP_PROXY"].removeprefix("http://").split(":")
with socket.create_connection(proxy) as tcp:
    tcp.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\nHost: {sys.argv[1]}\\r\\n\\r\\n".encode())
    print(tcp.recv(1000).split(b"\\r\\n")[0])
    tcp.sendall(b"who\\n")
    print(tcp.recv(1000))
print(os.environ["no_proxy"])
"""
    network = {"allowed_hosts": [f"{HOST}:{port}"], "proxy": True}
    env = {"no_proxy": "mine"}
    result = python(networked, code, HOST, port, network=network, env=env, slowness=slowness)
    status, answer, own = result.stdout.text.splitlines()
    assert " 200 " in status
    assert (answer, own) == ("b'hello'", "mine")
    assert way.PROXY_URL not in str(python(networked, "import os; print(os.environ)", network=[]).stdout.text)


def test_s2_15_s2_52_blocked_ports_are_refused_on_every_host(networked: casemate.Engine, slowness: float) -> None:
    code = "print([ask(sys.argv[1], port) for port in sys.argv[2:]])"
    for network, ports in (([HOST, "*"], BLOCKED_PORTS), ({"allowed_hosts": [HOST], "blocked_ports": [PORT]}, [PORT])):
        result = python(networked, code, HOST, *ports, network=network, slowness=slowness)
        assert result.stdout.text == f"{['ConnectionResetError'] * len(ports)}\n"
        assert [(flow.port, flow.allowed, flow.reason) for flow in result.flows] == [
            (port, False, "port") for port in ports
        ]


def test_who_requires_the_layer_has_it_or_no_network_at_all(networked: casemate.Engine) -> None:
    for network, expected in ((None, False), ([], True)):
        result = casemate.execute(["true"], engine=networked, network=network, require=["egress"])
        assert (Layer.EGRESS in result.isolation.layers) == expected


def test_on_a_machine_without_ipv6_there_is_the_other_one(
    networked: casemate.Engine, port: int, slowness: float
) -> None:
    host = networked.backend.host
    networked.backend._host = msgspec.structs.replace(host, ipv6=False)
    try:
        code = ONE + "\nprint(ask('2606:2800::14', 80))"
        result = python(networked, code, HOST, port, network=[f"{HOST}:{port}"], slowness=slowness)
    finally:
        networked.backend._host = host
    assert result.stdout.text == "b'hello'\nOSError\n"
    assert [flow.host for flow in result.flows] == [HOST]


# The gateway ----------------------------------------------------------------------------------------


def end_of(pid: int) -> None:
    """Kill it and wait until it has closed everything."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
    finally:
        os.close(pidfd)


def test_s2_51_when_the_gateway_dies_the_network_is_gone(
    networked: casemate.Engine, port: int, slowness: float
) -> None:
    code = """
print(ask(sys.argv[1], sys.argv[2]), flush=True)
sys.stdin.read(1)
print(ask("127.0.0.1", 53), ask("127.0.0.1", 3128), ask("93.184.215.14", 443))
"""
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as stdin, os.fdopen(write_fd, "wb") as held:

        def kill(_: casemate.Chunk) -> None:
            pid = networked.gateways.pid
            if pid is not None and not held.closed:
                end_of(pid)
                held.close()

        network = [f"{HOST}:{port}"]
        result = python(networked, code, HOST, port, network=network, stdin=stdin, on_output=kill, slowness=slowness)
    refused = " ".join(["ConnectionRefusedError"] * 3)
    assert result.stdout.text == f"b'hello'\n{refused}\n"
    assert "network-lost" in [event.kind for event in result.events]
    assert python(networked, ONE, HOST, port, network=network, slowness=slowness).stdout.text == "b'hello'\n"


def test_without_a_gateway_nothing_starts(
    networked: casemate.Engine, no_gateway: Callable[..., None], slowness: float
) -> None:
    for command in ("/bin/false", "/nowhere"):
        no_gateway(command)
        with pytest.raises(casemate.LaunchError) as caught:
            python(networked, ONE, HOST, 80, network=[HOST])
        assert caught.value.step == "network"
    assert left_running(networked, slowness) == []


def test_who_cancels_while_the_gateway_is_started_waits_for_nothing(
    networked: casemate.Engine, no_gateway: Callable[..., None], slowness: float, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    no_gateway("/bin/sh", "-c", f"echo > {started}; exec sleep 1000")
    cancel = casemate.CancelToken()

    def cancel_when_started() -> None:
        started.read_text()
        cancel.cancel()

    canceller = threading.Thread(target=cancel_when_started)
    canceller.start()
    result = python(networked, ONE, network=[HOST], cancel=cancel)
    canceller.join()
    assert result.reason is casemate.Reason.CANCELLED
    assert left_running(networked, slowness) == []


def test_an_engine_that_closes_takes_its_gateway_along() -> None:
    with casemate.Engine(warm=False) as opened:
        if lacks_egress(opened):
            pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
        gateways = opened.gateways
        before = gateways.pid
        assert python(opened, "", network=[]).ok
        pid = gateways.pid
        assert (before, bool(pid)) == (None, True)
        pidfd = os.pidfd_open(pid or 0)
    try:
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def test_nothing_that_was_made_ahead_gets_a_network() -> None:
    with casemate.Engine() as opened:
        if lacks_egress(opened):
            pytest.skip("layer egress: this kernel has no nf_tables with tproxy")
        opened.keep_ready("python", 1)
        kept = {each.label: each.ready for each in opened.pools()}
        with_network = casemate.run("1", engine=opened, network=["server.test"])
        assert Layer.EGRESS in with_network.isolation.layers
        assert {each.label: each.ready for each in opened.pools()} == kept
        assert Layer.EGRESS not in casemate.run("1", engine=opened).isolation.layers


def test_no_more_flows_are_kept_than_the_bound(
    networked: casemate.Engine, monkeypatch: pytest.MonkeyPatch, slowness: float
) -> None:
    monkeypatch.setattr(bound, "FLOWS_KEPT_MAX", 5)
    code = "for i in range(20): ask('10.0.0.1', 80)"
    result = python(networked, code, network=[], slowness=slowness)
    assert len(result.flows) == 5
    details = {event.kind: event.detail for event in result.events}
    assert details == {"network-refused": "20 attempts", "flows-dropped": "15 beyond what is kept"}


def test_two_runs_at_once_have_their_own_policies(networked: casemate.Engine, port: int, slowness: float) -> None:
    async def main() -> list[casemate.Result]:
        argv = ["/usr/bin/python3", "-I", "-S", "-c", ASK + ONE, HOST, str(port)]
        policies = [[f"{HOST}:{port}"], []] * 3
        limits = {"timeout": TIMEOUT_S * slowness}
        runs = [casemate.aexecute(argv, engine=networked, network=each, limits=limits) for each in policies]
        return list(await asyncio.gather(*runs))

    texts = [result.stdout.text for result in asyncio.run(main())]
    assert texts == ["b'hello'\n", "gaierror\n"] * 3


# Sandboxes that stay --------------------------------------------------------------------------------


@pytest.mark.parametrize("stateful", [False, True])
def test_a_sandbox_that_stays_keeps_its_network(
    networked: casemate.Engine, port: int, slowness: float, stateful: bool
) -> None:
    limits = {"timeout": TIMEOUT_S * slowness}
    network = {"allowed_hosts": [f"{HOST}:{port}"], "proxy": True}
    with casemate.Sandbox(engine=networked, limits=limits, network=network, stateful=stateful) as sandbox:
        assert Layer.EGRESS in sandbox.isolation.layers
        first = sandbox.run(ASK + f"print(ask({HOST!r}, {port}), ask('10.0.0.1', 80))")
        second = sandbox.run(ASK + f"import os; print(ask({HOST!r}, {port}), os.environ['HTTPS_PROXY'])")
        assert first.stdout.text == "b'hello' ConnectionResetError\n"
        assert second.stdout.text == f"b'hello' {way.PROXY_URL}\n"
        flows = [*first.flows, *second.flows]
        while len(flows) < 3:  # what has ended with a run may be told with the next
            flows += sandbox.run("").flows
        assert sorted((flow.host, flow.allowed) for flow in flows) == [("10.0.0.1", False), *[(HOST, True)] * 2]
    assert left_running(networked, slowness) == []


def test_a_sandbox_that_stays_does_not_open_without_a_gateway(
    networked: casemate.Engine, no_gateway: Callable[..., None], slowness: float
) -> None:
    no_gateway("/bin/false")
    with pytest.raises(casemate.LaunchError):
        casemate.Sandbox(engine=networked, network=[HOST])
    assert left_running(networked, slowness) == []


# The command line -----------------------------------------------------------------------------------


CONNECT: Final = """
with socket.create_connection(("127.0.0.1", 3128)) as tcp:
    tcp.sendall(f"CONNECT 127.0.0.1:{sys.argv[1]} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n".encode())
    print(tcp.recv(1000).split(b" ")[1], tcp.recv(1000))
print(ask("10.0.0.1", 81), ask("other.test", 80))
"""


def test_the_command_line_allows_hosts_and_says_what_was_refused(networked: casemate.Engine, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[network]\nanywhere = ["127.0.0.1"]\n')
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def greet() -> None:
            for _ in range(2):
                with listener.accept()[0] as client:
                    client.sendall(b"hello")

        greeting = threading.Thread(target=greet)
        greeting.start()
        ours = [sys.executable, "-m", "casemate", "exec", "--allow", f"127.0.0.1:{port}"]
        words = ["--", "/usr/bin/python3", "-c", ASK + CONNECT, str(port)]
        environment = {**os.environ, "CASEMATE_CONFIG": str(config)}
        done = subprocess.run([*ours, *words], env=environment, capture_output=True, text=True, check=True)
        shown = subprocess.run([*ours, "--json", *words], env=environment, capture_output=True, check=True)
        greeting.join()
    assert done.stdout == "b'200' b'hello'\nConnectionResetError gaierror\n"
    assert done.stderr == "casemate: it was refused 10.0.0.1:81, other.test; --allow lets it reach what you trust\n"
    document = msgspec.json.decode(shown.stdout)
    assert {flow["host"]: flow["allowed"] for flow in document["flows"]} == {
        "127.0.0.1": True,
        "10.0.0.1": False,
        "other.test": False,
    }
