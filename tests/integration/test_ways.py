"""The way out of a sandbox: what its programs send, to whatever address, comes to the sockets that the engine got."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.networks import OtherEnd, lacks_egress

import casemate
from casemate.engine.drive import drive
from casemate.engine.inside import see_through
from casemate.engine.run import prepare_command
from casemate.isolation import stages, way
from casemate.isolation.native import NativeSandbox
from casemate.limits import KIB
from casemate.model.layers import Layer
from casemate.model.spec import SandboxSpec

TIMEOUT_S = 20.0
SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SAY = """
import errno, socket, sys
def ask(host, port, family=socket.AF_INET):
    with socket.socket(family) as tcp:
        tcp.settimeout(10)
        try:
            tcp.connect((host, port))
            return tcp.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
def ask_udp(host, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        try:
            udp.connect((host, port))
            udp.send(b"who is it")
            return udp.recv(100).decode()
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
"""


@pytest.fixture(autouse=True)
def possible(engine: casemate.Engine) -> None:
    if lacks_egress(engine):
        pytest.skip("layer egress: this kernel has no nf_tables with tproxy")


@contextmanager
def started(engine: casemate.Engine, **spec: object) -> Iterator[NativeSandbox]:
    sandbox = drive(engine.start(SandboxSpec(network=True, **spec)))  # type: ignore[arg-type]
    try:
        yield sandbox
    finally:
        sandbox.close()


def lines(engine: casemate.Engine, sandbox: NativeSandbox, code: str, slowness: float) -> list[str]:
    """What a script in the base's own Python prints in that sandbox."""
    argv = ["/usr/bin/python3", "-I", "-S", "-c", SAY + textwrap.dedent(code)]
    run = prepare_command(engine, argv, limits={"timeout": TIMEOUT_S * slowness})
    result = drive(see_through(sandbox, run, None, None, None))
    assert result.ok, result.stderr.text
    return result.stdout.text.splitlines()


def has_ipv6(engine: casemate.Engine) -> bool:
    return engine.backend.host.ipv6


def test_tcp_to_any_address_comes_with_the_address_that_was_meant(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)):
        found = lines(
            engine,
            sandbox,
            """
            for host, port in [("8.8.8.8", 443), ("10.0.0.1", 22), ("169.254.169.254", 80), ("192.0.2.1", 15001)]:
                print(ask(host, port))
            """,
            slowness,
        )
    assert found == ["tcp 8.8.8.8 443", "tcp 10.0.0.1 22", "tcp 169.254.169.254 80", "tcp 192.0.2.1 15001"]


def test_tcp_by_ipv6_comes_with_the_address_that_was_meant(engine: casemate.Engine, slowness: float) -> None:
    if not has_ipv6(engine):
        pytest.skip("this machine has no IPv6")
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=True):
        found = lines(
            engine,
            sandbox,
            """
            for host in ["2001:4860:4860::8888", "fd00:ec2::254", "::ffff:1.2.3.4"]:
                print(ask(host, 443, socket.AF_INET6))
            """,
            slowness,
        )
    assert found == ["tcp6 2001:4860:4860::8888 443", "tcp6 fd00:ec2::254 443", "tcp 1.2.3.4 443"]


def test_dns_by_udp_and_tcp_comes_whatever_resolver_is_asked(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)) as other_end:
        found = lines(
            engine,
            sandbox,
            """
            print(ask_udp("127.0.0.1", 53), ask_udp("9.9.9.9", 53), sep="; ")
            print(ask("127.0.0.1", 53), ask("9.9.9.9", 53), sep="; ")
            print(open("/etc/resolv.conf").read().strip())
            """,
            slowness,
        )
        assert found == [
            "WHO IS IT; WHO IS IT",
            "dns_tcp 127.0.0.1 53; dns_tcp 9.9.9.9 53",
            way.RESOLVER.strip(),
        ]
        assert [name for name, _, _ in other_end.came] == ["dns", "dns", "dns_tcp", "dns_tcp"]


def test_nothing_answers_any_other_datagram(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)) as other_end:
        found = lines(
            engine,
            sandbox,
            """
            print(ask_udp("8.8.8.8", 443), ask_udp("8.8.8.8", 123), ask_udp("127.0.0.1", 5353))
            """,
            slowness,
        )
        assert (found, other_end.came) == ([" ".join(["ECONNREFUSED"] * 3)], [])


def test_its_own_loopback_is_left_alone(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)) as other_end:
        found = lines(
            engine,
            sandbox,
            """
            import threading
            server = socket.create_server(("0.0.0.0", 8080))
            def serve():
                for _ in range(3):
                    server.accept()[0].sendall(b"own")
            threading.Thread(target=serve, daemon=True).start()
            print(ask("127.0.0.1", 8080), ask("127.1.2.3", 8080), ask("0.0.0.0", 8080), ask("127.0.0.1", 15001))
            """,
            slowness,
        )
        assert (found, other_end.came) == (["own own own ECONNREFUSED"], [])


def test_the_proxy_s_socket_is_on_its_loopback(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)):
        assert lines(engine, sandbox, 'print(ask("127.0.0.1", 3128))', slowness) == ["proxy 127.0.0.1 3128"]


def test_without_its_other_end_there_is_no_network(engine: casemate.Engine, slowness: float) -> None:
    with started(engine) as sandbox:
        OtherEnd(sandbox, ipv6=has_ipv6(engine)).close()
        found = lines(
            engine,
            sandbox,
            'print(ask("8.8.8.8", 443), ask("127.0.0.1", 3128), ask("9.9.9.9", 53), ask_udp("127.0.0.1", 53))',
            slowness,
        )
    assert found == [" ".join(["ECONNREFUSED"] * 4)]


def test_n17_what_a_connection_holds_of_the_machine_s_memory_is_bounded(
    engine: casemate.Engine, slowness: float
) -> None:
    with started(engine) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)) as other_end:
        lines(engine, sandbox, "print(ask('8.8.8.8', 443), ask('127.0.0.1', 3128), ask('9.9.9.9', 53))", slowness)
        assert len(other_end.buffers) == 6
        assert max(other_end.buffers) <= 2 * 256 * KIB


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def test_its_sockets_close_with_it_unless_somebody_takes_them(engine: casemate.Engine) -> None:
    before = open_files()
    with started(engine) as sandbox:
        pass
    assert sandbox.way.take() == ()
    with started(engine) as sandbox:
        taken = sandbox.way.take()
    assert len(taken) == len(way.names(ipv6=has_ipv6(engine)))
    for fd in taken:
        os.close(fd)
    assert open_files() == before


def test_other_listening_sockets_may_stand_beside_it(engine: casemate.Engine, slowness: float) -> None:
    with started(engine, listen=(7000,)) as sandbox, OtherEnd(sandbox, ipv6=has_ipv6(engine)):
        assert len(sandbox.listeners) == 1
        assert lines(engine, sandbox, 'print(ask("1.1.1.1", 7000))', slowness) == ["tcp 1.1.1.1 7000"]


def test_the_layer_is_in_force_with_a_network_alone(engine: casemate.Engine) -> None:
    with started(engine) as sandbox:
        assert Layer.EGRESS in sandbox.isolation.layers
    assert Layer.EGRESS not in casemate.execute(["true"], engine=engine).isolation.layers


def test_a_kernel_without_the_means_has_runs_with_a_network_refused(
    engine: casemate.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = next(step for step in way.steps(ipv6=False) if step.kind.name == "NETLINK")
    protocol_of_nothing = 21
    broken = (msgspec.structs.replace(step, arguments=(protocol_of_nothing, *step.arguments[1:])),)
    monkeypatch.setattr(way, "steps", lambda **_: broken)
    monkeypatch.setattr(way, "names", lambda **_: ())
    with pytest.raises(casemate.LayerMissing) as caught:
        drive(engine.start(SandboxSpec(network=True)))
    assert caught.value.layers == (Layer.EGRESS,)
    assert casemate.execute(["true"], engine=engine).ok


def test_a_network_that_cannot_be_made_is_no_network(engine: casemate.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the kernel's answer is, no program starts."""
    assert errno.EPERM not in stages.EGRESS_REFUSED
    step = next(step for step in way.steps(ipv6=False) if step.kind.name == "NETLINK")
    twice = (step, step)
    monkeypatch.setattr(way, "steps", lambda **_: twice)
    monkeypatch.setattr(way, "names", lambda **_: ())
    with pytest.raises(casemate.LaunchError) as caught:
        drive(engine.start(SandboxSpec(network=True)))
    assert (caught.value.step, caught.value.errno) == ("netlink", errno.EEXIST)


# What the bytes mean --------------------------------------------------------------------------------

SEND = """
import socket, struct, subprocess, sys
from casemate.isolation import way
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for step in way.steps(ipv6=sys.argv[1] == "6"):
    if step.kind.name != "NETLINK":
        continue
    protocol, acknowledged, data = step.arguments
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.send(data)
        answers = [netlink.recv(4096) for _ in range(acknowledged)]
    assert [struct.unpack_from("<HHIIi", answer, 4)[-1] for answer in answers] == [0] * acknowledged, answers
"""
RULESET = """
table ip casemate {
    chain way {
        type filter hook prerouting priority mangle; policy accept;
        ip daddr 127.0.0.0/8 accept
        tcp dport 53 accept
        meta l4proto tcp tproxy to 192.0.2.1:15001
    }
}
table ip6 casemate {
    chain way {
        type filter hook prerouting priority mangle; policy accept;
        ip6 daddr ::1 accept
        meta l4proto tcp tproxy to [2001:db8::1]:15001
    }
}
"""


def in_namespace(*words: str) -> str:
    """What a command prints in a network namespace with a way out, of a user namespace of its own."""
    script = f'"$0" -c "$1" {"6" if Path("/proc/net/if_inet6").exists() else "4"} && shift && exec "$@"'
    command = ["unshare", "-rn", "sh", "-c", script, sys.executable, SEND, *words]
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def without_spaces(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_rules_are_those_that_nft_would_make(engine: casemate.Engine) -> None:
    assert shutil.which("nft", path=SYSTEM_PATH), "nft is missing: `make packages-dev` installs it"
    if not has_ipv6(engine):
        pytest.skip("this machine has no IPv6")
    assert without_spaces(in_namespace("nft", "list", "ruleset")) == without_spaces(RULESET)


def test_every_address_is_local(engine: casemate.Engine) -> None:
    assert "local default dev lo scope host" in in_namespace("ip", "route", "show", "table", "local")
    if has_ipv6(engine):
        assert "local default dev lo" in in_namespace("ip", "-6", "route", "show", "table", "local")
