"""Attacks by packages (S15, S17, X7) and on the way out for fetching them (N2, N6): nothing gets anywhere."""

from __future__ import annotations

import os
import socket
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.packages.making import BACKEND, npm_tarball, r_tarball, source_package, tarball, wheel

import casemate
from casemate.config import load_config
from casemate.egress.gateway import Gateways, Sockets
from casemate.egress.rules import HostRule
from casemate.egress.wire import Settings
from casemate.engine.drive import drive
from casemate.engine.execution import Execution
from casemate.engine.program import Command
from casemate.model.flow import Flow
from casemate.model.resources import Limits
from casemate.model.spec import SandboxSpec
from casemate.sets.build import copy_source
from casemate.sets.phase import PROXY_PORT, policy_of

SECRET = "casemate-host-secret"

Make = Callable[..., casemate.PackageSet]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[casemate.Engine]:
    """An engine of the test's own, with a place for its sets: what it holds of them ends with it."""
    ours = load_config()
    engine = msgspec.structs.replace(ours.engine, data_directory=str(tmp_path / "data"))
    with casemate.Engine(msgspec.structs.replace(ours, engine=engine)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "packages"
    found.mkdir()
    return found


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture
def build(own: casemate.Engine, folder: Path) -> Make:
    """Build a set from the test's folder."""

    def start(package: str, runtime: str = "python", **options: object) -> casemate.PackageSet:
        call: Make = casemate.Sets(own).build
        return call("ours", [package], runtime=runtime, source=str(folder), **options)

    return start


@pytest.fixture
def host_port() -> Iterator[int]:
    """Something that listens on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# S15: code that runs when packages are installed --------------------------------------------------

ATTACK = """
import os, socket
def attempt(call, *arguments):
    try:
        return repr(call(*arguments))
    except (OSError, RuntimeError) as error:
        return type(error).__name__
def connect(address):
    with socket.create_connection(address, 2):
        return "connected"
def write(path):
    with open(path, "a") as file:
        file.write("x")
    return "written"
def attack():
    paths = {secrets!r} + [os.path.expanduser("~root/.ssh"), "/root", "/etc/shadow"]
    places = ["/usr/lib/x", "/etc/x", "/opt/packages/x", "/opt/artifacts/x", "/opt/runtime/x"] + {secrets!r}
    hosts = [("127.0.0.1", {port}), ("127.0.0.1", 3128), ("169.254.169.254", 80), ("192.0.2.1", 443)]
    hosts += [("example.org", 80)]
    return {{
        **{{"read " + path: attempt(lambda: open(path).read()) for path in paths}},
        **{{"write " + path: attempt(write, path) for path in places}},
        **{{"connect " + str(host): attempt(connect, host) for host in hosts}},
        "secrets": [name for name in os.environ if "CASEMATE" in name or "INDEX" in name],
    }}
"""


def test_s15_the_build_of_a_python_package_reads_writes_and_reaches_nothing(
    build: Make, own: casemate.Engine, folder: Path, secret: Path, host_port: int
) -> None:
    code = ATTACK.format(secrets=[str(secret)], port=host_port)
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    before = everything_below(folder)
    build("evil")
    result = casemate.run("import evil; output = evil.findings", "ours", engine=own)
    assert isinstance(result.output, dict)
    findings = result.output
    assert len(findings) > 12
    assert findings.pop("secrets") == []
    errors = {"FileNotFoundError", "PermissionError", "OSError", "ConnectionRefusedError", "gaierror", "TimeoutError"}
    assert {what: answer for what, answer in findings.items() if answer not in errors} == {}
    assert secret.read_text() == SECRET
    assert everything_below(folder) == before


def test_s15_a_postinstall_script_of_npm_reads_writes_and_reaches_nothing(
    build: Make, own: casemate.Engine, folder: Path, secret: Path, host_port: int
) -> None:
    script = f"""
    const fs = require('fs'), net = require('net');
    const found = [];
    for (const path of ['{secret}', '/etc/shadow', '/root/.npmrc'])
      try {{ found.push(['read', path, fs.readFileSync(path, 'utf8')]); }} catch {{}}
    for (const path of ['{secret}', '/usr/x', '/node_modules/x', '/opt/artifacts/x'])
      try {{ fs.appendFileSync(path, 'x'); found.push(['write', path]); }} catch {{}}
    let left = 3;
    const done = () => --left || fs.writeFileSync('found.js', 'module.exports = ' + JSON.stringify(found));
    for (const [host, port] of [['127.0.0.1', {host_port}], ['127.0.0.1', {PROXY_PORT}], ['192.0.2.1', 443]]) {{
      const client = net.connect(port, host, () => client.destroy(found.push(['connect', host, port])) && done());
      client.on('error', done);
    }}
    """
    files = {"index.js": "module.exports = require('./found');", "evil.js": textwrap.dedent(script)}
    npm_tarball(folder, "evil", "1.0.0", files, scripts={"postinstall": "node evil.js"})
    build("evil", "node")
    result = casemate.run("output = require('evil')", "ours", engine=own)
    assert result.output == []
    assert secret.read_text() == SECRET


def test_s15_a_configure_script_of_r_reads_writes_and_reaches_nothing(
    build: Make, own: casemate.Engine, folder: Path, secret: Path, host_port: int
) -> None:
    configure = f"""#!/bin/bash
    exec 2>/dev/null
    found=""
    for path in {secret} /etc/shadow /root/.Renviron; do [ -r $path ] && found="$found read:$path"; done
    for path in {secret} /usr/x /opt/artifacts/x /opt/packages/x; do
        (echo x >> $path) && found="$found write:$path"
    done
    for place in 127.0.0.1/{host_port} 127.0.0.1/{PROXY_PORT} 192.0.2.1/443; do
        (: > /dev/tcp/$place) && found="$found connect:$place"
    done
    echo "findings <- function() '$found'" > R/found.R
    """
    files = {"configure": textwrap.dedent(configure), "NAMESPACE": "export(findings)\n", "R/found.R": ""}
    r_tarball(folder, "evil", "1.0", files, programs=("configure",))
    build("evil", "r")
    assert casemate.run("output <- evil::findings()", "ours", engine=own).output == ""
    assert secret.read_text() == SECRET


def test_s15_a_package_that_never_ends_is_stopped(build: Make, folder: Path) -> None:
    code = "def attack():\n    while True: pass"
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    with pytest.raises(casemate.BuildFailed, match="timeout"):
        build("evil", limits={"timeout": "5s"})


def test_s15_what_a_package_says_moves_no_terminal(build: Make, folder: Path) -> None:
    code = "def attack():\n    import sys; sys.stderr.write('\\033[2J\\033]0;owned\\a\\u202e'); sys.exit(3)"
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    with pytest.raises(casemate.BuildFailed) as caught:
        build("evil")
    assert "owned" in caught.value.log
    assert {char for char in caught.value.log if not char.isprintable()} <= {"\n"}


# S17: archives that unpack to elsewhere -----------------------------------------------------------

ESCAPES = ["../escaped.py", "../../../../../../tmp/escaped.py", "/tmp/escaped.py", "tiny/../../escaped.py"]


@pytest.mark.parametrize("name", ESCAPES)
def test_s17_a_wheel_with_names_that_lead_elsewhere_leaves_nothing_there(
    build: Make, own: casemate.Engine, folder: Path, tmp_path: Path, name: str
) -> None:
    wheel(folder, "evil", "1", {"evil.py": "", name: "escaped = True"}, raw=True)
    try:
        made = build("evil")
    except casemate.BuildFailed:
        assert casemate.Sets(own).list() == ()
    else:
        assert everything_below(Path(made.source_path)).keys() <= {
            str(path) for path in Path(made.source_path).rglob("*") if path.is_file()
        }
    assert not [path for path in tmp_path.rglob("escaped.py") if "tree" not in path.parts]
    assert not Path("/tmp/escaped.py").exists()


def test_s17_a_wheel_with_symbolic_links_makes_none(
    build: Make, own: casemate.Engine, folder: Path, secret: Path
) -> None:
    path = wheel(folder, "evil", "1", {"evil.py": ""}, raw=True)
    with zipfile.ZipFile(path, "a") as archive:
        for name, target in (("evil_link.py", str(secret)), ("evil_up", "../../..")):
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o120777 << 16
            archive.writestr(member, target)
    made = build("evil")
    assert [each for each in Path(made.source_path).rglob("*") if each.is_symlink()] == []
    assert SECRET not in "".join(map(str, everything_below(Path(made.source_path)).values()))


def test_s17_a_tarball_of_npm_with_links_and_names_that_lead_elsewhere(
    build: Make, own: casemate.Engine, folder: Path, tmp_path: Path, secret: Path
) -> None:
    files = {"index.js": "", "../../../escaped.js": "", "/tmp/escaped.js": ""}
    npm_tarball(folder, "evil", "1.0.0", files, links={"package/link.js": str(secret), "package/up": "../.."})
    try:
        made = build("evil", "node")
    except casemate.BuildFailed:
        assert casemate.Sets(own).list() == ()
    else:
        assert [each for each in Path(made.source_path).rglob("*") if each.is_symlink()] == []
    assert not [path for path in tmp_path.rglob("escaped.js") if "tree" not in path.parts]
    assert not Path("/tmp/escaped.js").exists()


LEAVE = """
def attack():
    import os
    out = os.environ["OUT"]
    {code}
"""
LEFTOVERS = {
    "symbolic link": "os.symlink('/etc/passwd', out + '/x-1-py3-none-any.whl')",
    "linked directory": "os.symlink('/etc', out + '/etc')",
    "fifo": "os.mkfifo(out + '/fifo')",
    "socket": "import socket; socket.socket(socket.AF_UNIX).bind(out + '/socket')",
}


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_s17_what_is_no_file_is_never_taken_out(build: Make, folder: Path, leftover: str) -> None:
    code = LEAVE.format(code=LEFTOVERS[leftover])
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    made = build("evil")
    assert [each.name for each in made.manifest.lock] == ["evil"]
    assert all(each.is_file() or each.is_dir() for each in Path(made.source_path).rglob("*"))


BOMBS = {
    "large": "os.truncate(os.open(out + '/bomb', os.O_CREAT | os.O_WRONLY), 2**40)",
    "sum": "[os.truncate(os.open(f'{out}/{n}', os.O_CREAT | os.O_WRONLY), 2**26) for n in range(40)]",
    "deep": "[(os.mkdir('d'), os.chdir('d')) for _ in [os.chdir(out), *range(200)]]",
    "names": "open(os.fsencode(out) + b'/a\\xff\\n.whl', 'w').close()",
    "locked": "os.mkdir(out + '/d'); open(out + '/d/f', 'w').close(); os.chmod(out + '/d', 0)",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_s17_too_much_or_too_odd_is_refused(build: Make, own: casemate.Engine, folder: Path, bomb: str) -> None:
    code = LEAVE.format(code=BOMBS[bomb])
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    with pytest.raises(casemate.BuildFailed):
        build("evil", limits={"disk": "1Gi"})
    assert casemate.Sets(own).list() == ()


def test_s17_a_wheel_that_unpacks_to_more_than_the_limit(build: Make, folder: Path) -> None:
    path = folder / "bomb-1-py3-none-any.whl"
    wheel(folder, "bomb", "1", {"bomb.py": ""}, raw=True)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    with pytest.raises(casemate.BuildFailed, match=r"room|installer failed"):
        build("bomb", limits={"disk": "32Mi"})


def test_s17_a_directory_of_packages_takes_no_file_of_the_callers_along(
    build: Make, own: casemate.Engine, folder: Path, secret: Path
) -> None:
    code = "def attack():\n    return open('/opt/artifacts/readme.txt').read()"
    source_package(folder, "evil", "1", BACKEND.format(code=code, name="evil", version="1"))
    (folder / "readme.txt").symlink_to(secret)
    with pytest.raises(casemate.InvalidInput, match=r"'readme\.txt' is a symbolic link"):
        build("evil")
    assert casemate.Sets(own).list() == ()


def test_s17_a_file_that_becomes_a_link_while_it_is_taken_is_not_followed(
    folder: Path, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "readme.txt").write_text("harmless")
    real = os.open

    def open_late(path: str, *arguments: int, **options: int) -> int:
        if path == "readme.txt":
            (folder / path).unlink()
            (folder / path).symlink_to(secret)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_late)
    with pytest.raises(casemate.InvalidInput, match=r"readme\.txt"):
        copy_source(folder, tmp_path / "copy", 1 << 20)


def test_s17_links_within_an_archive_of_a_directory_give_nothing_away(build: Make, folder: Path) -> None:
    tarball(folder / "evil.tar.gz", {"x": ""}, links={"y": "/etc/passwd"})
    with pytest.raises(casemate.CasemateError):
        build("evil")


# X7: what several sandboxes share -----------------------------------------------------------------


def test_x7_a_guest_cannot_change_the_set_that_others_use(build: Make, own: casemate.Engine, folder: Path) -> None:
    wheel(folder, "shared", "1", {"shared/__init__.py": "value = 1\n"})
    made = build("shared")
    before = everything_below(Path(made.source_path))
    code = """
    import os, shared
    place = os.path.dirname(shared.__file__)
    def attempt(call, *arguments):
        try:
            call(*arguments)
        except OSError as error:
            return None
        return call.__name__
    output = [found for found in [
        attempt(open, shared.__file__, "a"),
        attempt(open, place + "/more.py", "w"),
        attempt(open, shared.__cached__, "wb"),
        attempt(os.unlink, shared.__file__),
        attempt(os.rename, shared.__file__, place + "/x.py"),
        attempt(os.mkdir, place + "/d"),
        attempt(os.symlink, "/tmp", place + "/l"),
        attempt(os.chmod, shared.__file__, 0o777),
        attempt(os.utime, shared.__file__, (0, 0)),
        attempt(os.setxattr, shared.__file__, "user.x", b"x"),
        attempt(os.truncate, shared.__file__, 0),
        attempt(os.link, shared.__file__, place + "/hard.py"),
    ] if found]
    """
    result = casemate.run(textwrap.dedent(code), "ours", engine=own)
    assert (result.output, result.stderr.text) == ([], "")
    assert everything_below(Path(made.source_path)) == before


def test_x7_locks_on_a_set_do_not_meet(build: Make, own: casemate.Engine, folder: Path) -> None:
    wheel(folder, "shared", "1", {"shared.py": "value = 1\n"})
    build("shared")
    lock = "import fcntl, shared; file = open(shared.__file__); fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with casemate.Sandbox("ours", engine=own) as one, casemate.Sandbox("ours", engine=own) as other:
        hold = "import subprocess; subprocess.Popen(['sleep', '60'], pass_fds=[file.fileno()])"
        assert one.run(f"{lock}\n{hold}").ok
        if casemate.Layer.PRIVATE_BASE in one.isolation.layers:
            assert other.run(lock).ok


# N2 and N6: the way out ---------------------------------------------------------------------------

TALK = """
import json, socket, sys
answers = []
for request in json.loads(sys.argv[1]):
    with socket.create_connection(("127.0.0.1", int(sys.argv[2])), 10) as client:
        client.sendall(request.encode())
        data = b""
        while (piece := client.recv(65536)):
            data += piece
            if b"200 Connection established" in data:
                break
        answers.append(data.decode(errors="replace").split("\\r\\n")[0])
print(json.dumps(answers))
"""


def talk(
    engine: casemate.Engine, rules: tuple[HostRule, ...], requests: list[str], hosts: Path
) -> tuple[list[str], list[Flow]]:
    """The first lines of what the proxy answers from inside a sandbox, and its flows."""
    limits = Limits()
    with_python = ("/usr/bin/python3", "-I", "-S", "-c", TALK)
    text = msgspec.json.encode(requests).decode()
    command = Command(argv=(*with_python, text, str(PROXY_PORT)), environment={}, cwd="/work")
    sandbox = drive(engine.start(SandboxSpec(limits=limits, listen=(PROXY_PORT,))))
    flows: list[Flow] = []
    gateways = Gateways(Settings(hosts=str(hosts)))
    try:
        way = gateways.open(policy_of(rules), Sockets(proxy=os.dup(sandbox.listeners[0])), flows.append)
        outcome = drive(Execution(sandbox, command, limits).run())
        way.close()
    finally:
        gateways.close()
        sandbox.close()
    assert outcome.wait_status == 0, outcome.stderr.text
    return msgspec.json.decode(outcome.stdout.text, type=list[str]), flows


def hosts_file(path: Path, names: dict[str, str]) -> Path:
    path.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    return path


METADATA = ["169.254.169.254", "fd00:ec2::254", "fe80::1", "100.100.100.200", "::ffff:169.254.169.254"]


def test_n2_metadata_addresses_are_refused_by_address_and_by_name(engine: casemate.Engine, tmp_path: Path) -> None:
    rules = (HostRule("*.example", 80), *(HostRule(address, 80) for address in METADATA))
    resolved = {f"m{number}.example": address for number, address in enumerate(METADATA)}
    names = [*resolved, *(f"[{each}]" if ":" in each else each for each in METADATA)]
    requests = [f"CONNECT {name}:80 HTTP/1.1\r\nHost: {name}\r\n\r\n" for name in names]
    requests += [f"GET http://{name}/latest/meta-data/ HTTP/1.1\r\nHost: {name}\r\n\r\n" for name in names]
    answers, flows = talk(engine, rules, requests, hosts_file(tmp_path / "hosts", resolved))
    assert answers == ["HTTP/1.1 403 Forbidden"] * len(requests)
    assert len(flows) == len(requests)
    assert not any(flow.address for flow in flows)


def test_n6_the_proxy_goes_where_it_may_and_nowhere_else(
    engine: casemate.Engine, host_port: int, tmp_path: Path
) -> None:
    rules = (HostRule("index.example", host_port, anywhere=True),)
    resolved = {"index.example": "127.0.0.1", "other.example": "127.0.0.1", "localhost": "127.0.0.1"}
    allowed = f"CONNECT index.example:{host_port} HTTP/1.0\r\n\r\n"
    refused = [
        f"CONNECT other.example:{host_port} HTTP/1.0\r\n\r\n",
        f"CONNECT 127.0.0.1:{host_port} HTTP/1.1\r\nHost: index.example:{host_port}\r\n\r\n",
        f"CONNECT localhost:{host_port} HTTP/1.0\r\n\r\n",
        "CONNECT index.example:22 HTTP/1.0\r\n\r\n",
        f"GET http://127.0.0.1:{host_port}/ HTTP/1.1\r\nHost: index.example:{host_port}\r\n\r\n",
        f"GET http://index.example.other.example:{host_port}/ HTTP/1.0\r\n\r\n",
    ]
    malformed = [
        f"CONNECT index.example:{host_port}@127.0.0.1:22 HTTP/1.1\r\n\r\n",
        f"CONNECT 2130706433:{host_port} HTTP/1.1\r\n\r\n",
        f"CONNECT 0x7f000001:{host_port} HTTP/1.1\r\n\r\n",
        f"GET http://index.example:{host_port}@127.0.0.1/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: index.example\r\n\r\n",
        "\x05\x01\x00",
    ]
    hosts = hosts_file(tmp_path / "hosts", resolved)
    answers, flows = talk(engine, rules, [allowed, *refused, *malformed[:-1]], hosts)
    assert answers[0] == "HTTP/1.1 200 Connection established"
    assert answers[1 : 1 + len(refused)] == ["HTTP/1.1 403 Forbidden"] * len(refused)
    assert set(answers[1 + len(refused) :]) == {"HTTP/1.1 400 Bad Request"}
    assert [flow.host for flow in flows if flow.allowed] == ["index.example"]


def test_n6_a_relay_that_a_sandbox_makes_itself_leads_nowhere(engine: casemate.Engine, host_port: int) -> None:
    """Whoever has no listening socket of ours finds nothing on its port, and one of its own is nobody's way out."""
    code = f"""
import socket
try:
    socket.create_connection(("127.0.0.1", {PROXY_PORT}), 2)
except OSError as error:
    print(type(error).__name__)
with socket.create_server(("127.0.0.1", {PROXY_PORT})):
    try:
        socket.create_connection(("127.0.0.1", {host_port}), 2)
    except OSError as error:
        print(type(error).__name__)
"""
    result = casemate.execute(["/usr/bin/python3", "-I", "-S", "-c", code], engine=engine)
    assert result.stdout.text.split() == ["ConnectionRefusedError"] * 2
