"""Attacks over HTTP: on the service itself, and from one tenant on another."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from tests.service.live import LiveService, Tenant, answered, events, refused, serving

from casemate.kernel.processes import process_tree

LATER: Final = {"Prefer": "respond-async"}
JSON: Final = {"Content-Type": "application/json"}
PIECE: Final = b"x" * 65_536
GIGABYTE: Final = 1_000_000_000
SLOTS: Final = 3
"""Turns at a time of the service that the tests share, as its configuration says."""

SETTLE_S: Final = 20.0
"""Less than the time limit of a run that names none, so that what ends meanwhile was ended."""


def soon(is_so: Callable[[], bool], slowness: float = 1.0) -> bool:
    """Whether it comes true within a while."""
    until_s = time.monotonic() + SETTLE_S * slowness
    while not (found := is_so()) and time.monotonic() < until_s:
        threading.Event().wait(0.01)
    return found


def connection(service: LiveService) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def head(key: str, path: str, *lines: str) -> bytes:
    common = ("Host: localhost", f"Authorization: Bearer {key}", "Content-Type: application/json")
    return "\r\n".join([f"POST {path} HTTP/1.1", *common, *lines, "", ""]).encode()


def programs(service: LiveService) -> list[str]:
    """The command lines of everything that runs below the service."""
    found = []
    for pid in process_tree(service.process.pid):
        with suppress(OSError):
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def child(service: LiveService, module: str) -> int:
    """The pid of the API or the node."""
    for pid in process_tree(service.process.pid):
        with suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise AssertionError(f"there is no {module}")


def post(tenant: Tenant, content: bytes | str, path: str = "/v1/executions") -> Any:
    return tenant.http.post(path, content=content, headers=JSON)


# O15: what a request may be -----------------------------------------------------------------------


def test_o15_a_body_of_a_gigabyte_is_refused_by_its_length(service: LiveService, tenant: Tenant) -> None:
    with connection(service) as peer:
        peer.sendall(head(tenant.key, "/v1/executions", f"Content-Length: {GIGABYTE}"))
        answer = peer.makefile("rb").read()
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"application/problem+json" in answer
    assert b'"too_large"' in answer


def test_o15_a_body_without_a_length_is_cut_off_at_the_bound(service: LiveService, tenant: Tenant) -> None:
    sent = 0
    with connection(service) as peer:
        peer.sendall(head(tenant.key, "/v1/executions", "Transfer-Encoding: chunked"))
        peer.settimeout(5)
        with suppress(OSError):
            while sent < GIGABYTE:
                peer.sendall(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
                sent += len(PIECE)
        answer = b""
        with suppress(OSError):
            answer = peer.recv(4096)
    assert sent < 64 * 1024 * 1024
    assert not answer or b" 413 " in answer.split(b"\r\n")[0]
    answered(tenant.http.get("/v1/me"))


def test_o15_without_a_key_no_body_is_waited_for(service: LiveService) -> None:
    with connection(service) as peer:
        peer.sendall(head("cm_none", "/v1/executions", f"Content-Length: {1024 * 1024}"))
        assert b" 401 " in peer.recv(4096).split(b"\r\n")[0]


def test_o15_a_hundred_thousand_files_are_refused(tenant: Tenant) -> None:
    body = {"code": "pass", "files": {f"f{number}": "" for number in range(100_000)}}
    refused(post(tenant, json.dumps(body)), 422, "invalid_input", "files")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"code": "", "limits": {"timeout": -1}}', "limits.timeout"),
        ('{"code": "", "limits": {"timeout": NaN}}', "body"),
        ('{"code": "", "limits": {"timeout": -Infinity}}', "body"),
        ('{"code": "", "limits": {"timeout": 1e400}}', "body"),
        ('{"code": "", "limits": {"timeout": "1e400s"}}', "limits.timeout"),
        ('{"code": "", "limits": {"memory": 99999999999999999999999999}}', "limits.memory"),
        ('{"code": "", "limits": {"memory": -1}}', "limits.memory"),
        ('{"code": "", "limits": {"memory": 0}}', "limits.memory"),
        ('{"code": "", "limits": {"memory": true}}', None),
        ('{"code": "", "limits": {"memory": "٣Mi"}}', "limits.memory"),
        ('{"code": "", "limits": {"memori": 1}}', "limits.memori"),
        ('{"code": "", "limits": []}', "limits"),
        ('{"code": "", "limits": {"timeout": ' + "9" * 5000 + "}}", "body"),
        ('{"code": "", "priority": true}', "priority"),
        ('{"code": "", "priority": 10}', "priority"),
        ('{"code": "", "priority": 1.0}', "priority"),
        ('{"code": "", "fresh": 1}', "fresh"),
        ('{"code": 1}', "code"),
        ('{"code": "", "code": "pass"}', "body"),
        ('{"code": "", "labels": {"a": "1", "a": "2"}}', "body"),
        ('{"code": "", "runtime": "cobol"}', "runtime"),
        ('{"code": "", "runtime": "python\\u0000"}', "runtime"),
        ('{"code": "", "runtime": "' + "x" * 300 + '"}', "runtime"),
        ('{"code": "", "\\u0441ode": "pass"}', "\u0441ode"),
        ('{"code": "", "files": {"../x": ""}}', None),
        ('{"code": "", "files": {"/etc/x": ""}}', None),
        ('{"code": "", "files": {"a\\u0000b": ""}}', None),
        ('{"code": "", "files": {"": ""}}', None),
        ('{"code": "", "files": {"x": {"base64": "?"}}}', "files.x"),
        ('{"code": "", "env": {"A=B": "x"}}', None),
        ('{"code": "", "env": {"A": "x\\u0000"}}', None),
        ('{"code": "", "args": ["\\u0000"]}', None),
        ('{"code": "", "args": ' + json.dumps(["x"] * 100_000) + "}", "args"),
        ('{"code": "", "collect": ["../*"]}', None),
        ('{"code": "", "collect": ["/etc/*"]}', None),
        ('{"code": "", "input": ' + "[" * 100_000 + "]" * 100_000 + "}", "body"),
        ('{"code": "", "tenant": "operator"}', "tenant"),
        ('{"code": "", "filename": "../../x"}', "filename"),
        ('{"code": "", "filename": "x\\u0000"}', "filename"),
        ("[]", None),
        ("null", None),
        ("", None),
        ("{", "body"),
        ('{"code": ""}{}', "body"),
    ],
    ids=lambda value: str(value)[:60] if value else "any field",
)  # fmt: skip
def test_o15_a_wrong_request_is_refused_with_its_field(tenant: Tenant, text: str, field: str | None) -> None:
    problem = refused(post(tenant, text), 422)
    assert field is None or problem["field"].startswith(field), problem
    assert len(problem["message"]) < 1000


@pytest.mark.parametrize("content", [b'{"code": "\xff"}', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"\0"])
def test_o15_a_body_that_is_no_utf8_is_refused(tenant: Tenant, content: bytes) -> None:
    refused(post(tenant, content), 422)


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\u0000"', '"\\u202e"', '"\U0001f600"'])
def test_o15_odd_characters_in_code_are_the_programs_own(tenant: Tenant, text: str) -> None:
    response = post(tenant, '{"code": ' + text + ', "input": ' + text + "}")
    assert response.status_code in {200, 422}, response.text


def test_o15_millions_of_keys_are_refused_quickly(tenant: Tenant, slowness: float) -> None:
    began_s = time.monotonic()
    text = "[" + ",".join(["{}"] * 2_000_000) + "]"
    refused(post(tenant, '{"code": "", "input": ' + text + "}"), 422, field="body")
    assert time.monotonic() - began_s < 30 * slowness


def test_o15_labels_beyond_their_bounds_are_refused(tenant: Tenant) -> None:
    for labels in ({"": "x"}, {"x" * 129: "x"}, {"x": "x" * 5000}, {str(n): "" for n in range(33)}):
        refused(tenant.http.post("/v1/executions", json={"code": "", "labels": labels}), 422)


def test_o15_methods_and_addresses_that_there_are_not(tenant: Tenant) -> None:
    refused(tenant.http.get("/v1/nothing"), 404, "not_found")
    refused(tenant.http.get("/v1/executions/../../etc/passwd"), 404)
    refused(tenant.http.get("/v1/executions/%00"), 404)
    refused(tenant.http.get("/v1/executions/" + "x" * 5000), 404)
    response = tenant.http.request("TRACE", "/v1/executions")
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"


def test_i13_a_mistake_of_ours_shows_no_source(tenant: Tenant) -> None:
    for response in (post(tenant, "{"), tenant.http.get("/v1/nothing"), post(tenant, '{"code": 1}')):
        assert not any(word in response.text for word in ("Traceback", ".py", "site-packages", "line "))
        assert "server" not in response.headers


# O16: clients that go away ------------------------------------------------------------------------


@pytest.fixture
def narrow(service: LiveService) -> Tenant:
    """A tenant that has one turn at a time."""
    return service.tenant(concurrency_max=1)


SLEEPS: Final = {"runtime": "bash", "code": "exec sleep 98765"}


def asked(tenant: Tenant, service: LiveService, path: str, body: dict[str, Any]) -> socket.socket:
    """A request on a connection of its own, whose program runs."""
    content = json.dumps(body).encode()
    peer = connection(service)
    peer.sendall(head(tenant.key, path, f"Content-Length: {len(content)}") + content)
    assert soon(lambda: any("sleep 98765" in each for each in programs(service)))
    return peer


@pytest.mark.parametrize("way", ["execution", "function", "batch"])
def test_o16_a_run_whose_client_vanishes_is_killed(
    service: LiveService, narrow: Tenant, way: str, slowness: float
) -> None:
    answered(narrow.http.put("/v1/functions/sleeps", json={**SLEEPS, "limits": {"timeout": "30s"}}), 201)
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "execution": ("/v1/executions", SLEEPS),
        "function": ("/v1/functions/sleeps/invoke", {}),
        "batch": ("/v1/functions/sleeps/batch", {"items": [{"id": "a"}, {"id": "b"}]}),
    }
    path, body = ways[way]
    asked(narrow, service, path, body).close()
    assert soon(lambda: not any("sleep 98765" in each for each in programs(service)), slowness)
    assert answered(narrow.http.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1
    left = answered(narrow.http.get("/v1/executions"))["items"][-1]
    assert (left["state"], left["reason"]) == ("ended", "cancelled")


@pytest.mark.slow
def test_o16_a_stream_that_nobody_comes_back_to_ends_its_run(
    service: LiveService, narrow: Tenant, slowness: float
) -> None:
    """It may be followed again for a moment, as after a network that broke."""
    headers = {"Accept": "text/event-stream"}
    with narrow.http.stream("POST", "/v1/executions", json=SLEEPS, headers=headers) as response:
        assert next(events(response.iter_lines()))[0] == "accepted"
        assert soon(lambda: states(narrow) == ["running"], slowness)
    assert states(narrow) == ["running"]
    assert soon(lambda: states(narrow) == ["ended"], 2 * slowness)
    assert answered(narrow.http.get("/v1/executions"))["items"][0]["reason"] == "cancelled"


def test_o16_a_client_that_vanishes_while_it_waits_gives_up_its_place(service: LiveService, narrow: Tenant) -> None:
    with asked(narrow, service, "/v1/executions", SLEEPS) as first:
        content = b'{"code": "output = 2"}'
        second = connection(service)
        second.sendall(head(narrow.key, "/v1/executions", f"Content-Length: {len(content)}") + content)
        assert soon(lambda: states(narrow).count("queued") == 1)
        second.close()
        assert soon(lambda: states(narrow).count("queued") == 0)
        first.close()
    assert soon(lambda: states(narrow) == ["ended", "ended"])


def states(tenant: Tenant) -> list[str]:
    return [each["state"] for each in answered(tenant.http.get("/v1/executions"))["items"]]


# S5: the log --------------------------------------------------------------------------------------

NASTY: Final = [
    "line\nbreak",
    "\r\n{\"level\": \"error\"}",
    "\x1b[2J\x1b[31mred",
    "%s%n{0}{message}",
    "\u2028\u2029\u0085",
    '"}\n{"level":"critical"}',
    "x" * 100_000,
]  # fmt: skip


def test_s5_every_line_of_the_log_is_one_json_object(service: LiveService, tenant: Tenant) -> None:
    for text in NASTY:
        tenant.http.post("/v1/executions", json={"code": text, "labels": {text[:20]: text[:20]}})
        tenant.http.post("/v1/executions", json={"code": f"print({text!r})", "runtime": "python"})
        tenant.http.put(f"/v1/functions/{text[:50]!a}", json={"code": text, "runtime": text})
        tenant.http.post("/v1/keys", json={"name": text[:50], "scopes": {"allow": [text]}})
        tenant.http.get("/v1/executions", params={"cursor": text[:500], "label": text[:100]})
        tenant.http.get(f"/v1/{text[:500]!a}")
        with suppress(Exception):  # not all of it can be sent
            tenant.http.get("/v1/me", headers={"X-Request-Id": text[:200]})
    with connection(service) as peer:
        peer.sendall(b"GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x0b\x0c\x1c\xff\r\n\r\n")
        peer.recv(4096)
    tenant.http.get("/v1/me", headers={"X-Request-Id": "the-last-one"})
    service.logged(request_id="the-last-one")
    for line in service.log():
        assert {"level", "time", "message"} <= line.keys()
        assert len(json.dumps(line)) < 20_000
    assert not any("\x1b" in line for line in service.lines)
    bad = [line for line in service.log() if line["level"] in {"error", "critical"}]
    assert not bad, json.dumps(bad)[-2000:]


# S9: slots and the queue --------------------------------------------------------------------------


def test_s9_more_than_may_wait_are_refused_and_told_when_to_come_again(service: LiveService) -> None:
    tenant = service.tenant(concurrency_max=1, queue_max=2)
    bodies = [{"code": "import time; time.sleep(1000)"}] * 3
    found = [answered(tenant.http.post("/v1/executions", json=body, headers=LATER), 202) for body in bodies]
    assert soon(lambda: sorted(states(tenant)) == ["queued", "queued", "running"])
    response = tenant.http.post("/v1/executions", json={"code": "pass"}, headers=LATER)
    refused(response, 429, "too_many_requests")
    assert int(response.headers["retry-after"]) >= 1
    refused(tenant.http.post("/v1/validate", json={"code": "pass"}), 429)
    other = service.tenant()
    assert answered(other.http.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1
    for each in found:
        answered(tenant.http.delete(f"/v1/executions/{each['id']}"))
    assert answered(tenant.http.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1


def test_s9_a_flooding_tenant_has_a_turn_for_each_slot_before_anothers_next(service: LiveService) -> None:
    """The bound is in turns: whatever the machine, no more of the flood begins between asking and beginning."""
    flood, calm = service.tenant(concurrency_max=100, queue_max=1000), service.tenant()
    code = {"code": "import time; time.sleep(0.05)"}
    ids = [answered(flood.http.post("/v1/executions", json=code, headers=LATER), 202)["id"] for _ in range(60)]
    asked_for = [answered(calm.http.post("/v1/executions", json={"code": "pass"})) for _ in range(8)]
    for each in ids:
        flood.http.delete(f"/v1/executions/{each}")
    starts = [each["started_at"] for each in answered(flood.http.get("/v1/executions", params={"limit": 200}))["items"]]
    overtaken = [
        sum(each["created_at"] <= start < each["started_at"] for start in starts if start) for each in asked_for
    ]
    assert max(overtaken) <= SLOTS, overtaken


# S10: what runs out -------------------------------------------------------------------------------


@contextmanager
def few_files(pid: int, count: int) -> Iterator[None]:
    """A process that may open only so many files more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    now = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.fixture
def alone(tmp_path: Path, slowness: float) -> Iterator[LiveService]:
    """A service that may be harmed."""
    with serving(tmp_path / "data", slowness=slowness) as started:
        yield started


def test_s10_a_service_without_descriptors_recovers(alone: LiveService, slowness: float) -> None:
    with few_files(child(alone, "casemate.api"), 10), ExitStack() as peers:
        for _ in range(40):
            peers.enter_context(connection(alone))
        assert soon(lambda: any("accept" in str(each) for each in alone.log()), slowness)
    assert answered(alone.operator.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1


def test_s10_a_node_without_descriptors_says_so_and_recovers(alone: LiveService) -> None:
    body = {"code": "output = 1", "fresh": True}
    answered(alone.operator.post("/v1/executions", json=body))
    with few_files(child(alone, "casemate.node"), 3):
        response = alone.operator.post("/v1/executions", json=body)
        if response.status_code == 200:
            assert response.json()["reason"] in {"internal", "lost", "exit"}, response.text
        else:
            assert response.status_code == 503 or response.json()["code"] == "launch_failed", response.text
            refused(response, response.status_code)
    assert answered(alone.operator.post("/v1/executions", json=body))["result"]["output"] == 1


@pytest.mark.root
def test_s10_a_full_disk_is_a_typed_error_and_passes(tmp_path: Path, slowness: float) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(data)], check=True)
    try:
        with serving(data, slowness=slowness) as service:
            answered(service.operator.post("/v1/executions", json={"code": "pass"}))
            _fill(data / "ballast")
            found = [service.operator.post("/v1/executions", json={"code": f"pass # {n}"}) for n in range(200)]
            bad = [each for each in found if each.status_code != 200]
            assert bad, "it was never full"
            for each in bad:
                refused(each, 503, "records_unavailable")
            (data / "ballast").unlink()
            assert (
                answered(service.operator.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1
            )
            assert soon(lambda: service.operator.get("/readyz").status_code == 200, slowness)
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


def _fill(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(PIECE[:4096])


# S13, S14: what the program is given --------------------------------------------------------------


def test_s13_variables_of_a_request_are_the_guests_alone(service: LiveService, tenant: Tenant) -> None:
    env = {
        "PATH": "/nowhere",
        "LD_PRELOAD": "/nowhere/evil.so",
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/work",
        "PYTHONSTARTUP": "/work/evil.py",
        "PYTHONINSPECT": "1",
        "BASH_ENV": "/work/evil.sh",
        "IFS": "/",
        "NODE_OPTIONS": "--require /work/evil.js",
        "CASEMATE_CONFIG": "/work/evil.toml",
    }
    for runtime, code in (("python", "import os; output = dict(os.environ)"), ("bash", "export")):
        response = tenant.http.post("/v1/executions", json={"runtime": runtime, "code": code, "env": env})
        assert response.status_code in {200, 422}, response.text
        if response.status_code == 200:
            assert response.json()["reason"] == "exit", response.text
    for pid in process_tree(service.process.pid):
        with suppress(OSError):
            if b"casemate" in Path(f"/proc/{pid}/cmdline").read_bytes():
                assert b"/nowhere" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert answered(tenant.http.post("/v1/executions", json={"code": "output = 1"}))["result"]["output"] == 1


INJECTED: Final = [
    "-c",
    "import os; os._exit(9)",
    "--config=/etc/passwd",
    "@/etc/passwd",
    ";rm -rf /",
    "$(id)",
    "--",
    "\n",
]


@pytest.mark.parametrize(
    ("runtime", "code"),
    [
        ("python", "import sys; output = sys.argv[1:]"),
        ("bash", "printf '%s\\0' \"$@\""),
        ("node", "output = process.argv.slice(2)"),
    ],
)
def test_s14_arguments_arrive_as_they_are(tenant: Tenant, runtime: str, code: str) -> None:
    body = {"runtime": runtime, "code": code, "args": INJECTED}
    result = answered(tenant.http.post("/v1/executions", json=body))["result"]
    assert result["exit_code"] == 0, result
    assert (result["output"] or result["stdout"]["text"].split("\0")[:-1]) == INJECTED


@pytest.mark.parametrize("filename", ["-c", "--version", "@x", "a b;c.py", "-"])
def test_s14_a_name_of_a_file_is_no_option(tenant: Tenant, filename: str) -> None:
    response = tenant.http.post("/v1/executions", json={"code": "output = 'ran'", "filename": filename})
    assert response.status_code == 422 or response.json()["result"]["output"] == "ran", response.text
