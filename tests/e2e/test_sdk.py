"""The client against a real service: the same Results, typed errors, and a network that breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import CuttingProxy, Service, serving

import casemate
from casemate import service_limits as limits
from casemate.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooManyRequests,
    Unauthenticated,
    UnknownRuntime,
)
from casemate.model.result import Chunk, Reason
from casemate.sdk import exchange

CUTS = 100
PORTION = 250
MOST_BYTES = 40_000
"""More than the largest event, which has to come through whole."""

LINES = 400
PROGRAM = f"""
import sys
for number in range({LINES}):
    print(number, "x" * (number % 50))
    print(number, file=sys.stderr, flush=True)
output = {{"lines": {LINES}}}
"""
STDOUT = "".join(f"{number} {'x' * (number % 50)}\n" for number in range(LINES))
STDERR = "".join(f"{number}\n" for number in range(LINES))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service") / "data"


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Service]:
    with serving(data) as started:
        yield started


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """One that nothing slows down."""
    with casemate.Client(service.url, service.key) as operator:
        made = operator.keys.create("quick", allow=["admin"], rate_per_s=1000, burst=1000)
    assert made.key
    return made.key


@pytest.fixture
def client(service: Service, key: str) -> Iterator[casemate.Client]:
    with casemate.Client(service.url, key) as opened:
        yield opened


def joined(chunks: list[Chunk], stream: str) -> str:
    """One stream of what was told, with nothing missing and nothing twice."""
    found = b""
    for chunk in chunks:
        if chunk.stream == stream:
            assert chunk.offset == len(found)
            found += chunk.data
    return found.decode()


# The same as here ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("print(input); output = [input, None]", {"input": {"a": 1}}),
        ("import sys; sys.stdout.buffer.write(b'\\xff'); sys.exit(3)", {}),
        ("raise ValueError('no')", {}),
        ("import os; os.kill(os.getpid(), 9)", {}),
        ("import sys; print(sys.stdin.read(), sys.argv[1:])", {"stdin": b"in", "args": ["a"]}),
        (
            "open('out.bin', 'wb').write(open('in.bin', 'rb').read() * 2)",
            {"files": {"in.bin": b"\xff\x00"}, "collect": ["*.bin"]},
        ),
        ("while True: pass", {"limits": {"timeout": "300ms"}}),
        ("x = bytearray(10**9)", {"limits": {"memory": "64Mi"}}),
    ],
    ids=["output", "bytes", "exception", "signal", "stdin", "files", "timeout", "memory"],
)
def test_a_result_of_the_service_is_the_engine_s(client: casemate.Client, code: str, options: dict[str, Any]) -> None:
    there = client.run(code, **options)
    here = casemate.run(code, **options)
    for field in ("status", "reason", "exit_code", "output", "stdout", "files"):
        assert getattr(there, field) == getattr(here, field), field
    assert (there.error and there.error.type) == (here.error and here.error.type)
    if here.reason is Reason.SIGNAL:  # how a limit strikes depends on what was ready
        assert there.signal == here.signal


def test_output_comes_while_the_program_runs(client: casemate.Client) -> None:
    code = "import time\nprint('one', flush=True)\nwhile True: time.sleep(1)"
    with client.stream(code, limits={"timeout": "60s"}) as stream:
        assert next(stream).data == b"one\n"
        identity = stream.id
    ended = client.executions.get(identity)
    assert ended.state == "ended"
    assert ended.reason == "cancelled"


def test_the_same_for_asyncio(service: Service, key: str) -> None:
    async def main() -> list[casemate.Result]:
        async with casemate.AsyncClient(service.url, key) as client:
            return await asyncio.gather(*(client.run("output = input * 2", input=number) for number in range(8)))

    assert [result.output for result in asyncio.run(main())] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_a_client_serves_many_threads(client: casemate.Client) -> None:
    found: dict[int, object] = {}

    def work(number: int) -> None:
        found[number] = client.run("output = input", input=number).output

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(8)}


def test_a_run_can_be_looked_up_and_listed(client: casemate.Client) -> None:
    client.run("output = 1", labels={"test": "listed"}, priority=7)
    (found,) = client.executions.list(label="test=listed")
    assert (found.state, found.priority, found.labels) == ("ended", 7, {"test": "listed"})
    whole = client.executions.get(found.id)
    assert whole.result is not None
    assert whole.result.output == 1
    assert client.executions.cancel(found.id).reason == "exit"


# Errors --------------------------------------------------------------------------------------------


def test_errors_of_the_service_are_errors_of_the_engine(client: casemate.Client) -> None:
    with pytest.raises(UnknownRuntime) as unknown:
        client.run("1", "cobol")
    assert unknown.value.field == "runtime"
    assert unknown.value.request_id
    with pytest.raises(InvalidInput) as wrong:
        client.run("1", limits={"memory": "plenty"})
    assert wrong.value.field == "limits.memory"
    with pytest.raises(NotFound):
        client.executions.get("exe_" + "a" * 26)


def test_what_a_key_may_not_do_is_denied_by_the_name_of_its_scope(service: Service, client: casemate.Client) -> None:
    made = client.keys.create("reader", allow=["executions:read"])
    with casemate.Client(service.url, made.key) as reader, pytest.raises(PermissionDenied) as denied:
        reader.run("1")
    assert denied.value.scope == "executions:run"


def test_a_key_that_is_revoked_is_refused_at_once(service: Service, client: casemate.Client) -> None:
    made = client.keys.create("short", allow=["executions:run"])
    with casemate.Client(service.url, made.key) as other:
        assert other.run("output = 1").output == 1
        client.keys.revoke(made.id)
        with pytest.raises(Unauthenticated):
            other.run("1")


def test_a_rate_is_kept_by_waiting_as_long_as_the_service_says(service: Service, client: casemate.Client) -> None:
    made = client.keys.create("slow", allow=["executions:run"], rate_per_s=2, burst=1)
    with casemate.Client(service.url, made.key, attempts=1) as hasty, pytest.raises(TooManyRequests) as busy:
        [hasty.me() for _ in range(100)]  # of which two are asked within half a second
    assert busy.value.retry_after_s >= 1
    with casemate.Client(service.url, made.key) as patient:
        for _ in range(3):
            patient.me()


def test_a_service_without_the_key_is_told_apart(service: Service) -> None:
    with casemate.Client(service.url, "") as nobody, pytest.raises(Unauthenticated):
        nobody.me()


def test_a_new_key_is_in_no_file_of_the_service(client: casemate.Client, data: Path) -> None:
    made = client.keys.create("once", allow=["executions:run"], idempotency_key="once")
    assert made.key
    assert any(path.name.startswith("records") for path in data.rglob("*"))
    for path in data.rglob("*"):
        assert not path.is_file() or made.key.encode() not in path.read_bytes(), path
    with pytest.raises(Conflict, match="secret"):
        client.keys.create("once", allow=["executions:run"], idempotency_key="once")


# A network that breaks -----------------------------------------------------------------------------


@pytest.mark.slow
def test_streams_that_are_cut_a_hundred_times_lose_and_double_nothing(service: Service, key: str) -> None:
    runs = 0
    with (
        CuttingProxy(service.url, seed=4, most_bytes=MOST_BYTES) as proxy,
        casemate.Client(proxy.url, key, attempts=50) as client,
    ):
        while proxy.cuts < CUTS:
            chunks: list[Chunk] = []
            result = client.run(PROGRAM, on_output=chunks.append, labels={"test": "cut"})
            runs += 1
            assert result.ok, result
            assert joined(chunks, "stdout") == result.stdout.text == STDOUT
            assert joined(chunks, "stderr") == result.stderr.text == STDERR
    with casemate.Client(service.url, key) as client:
        found = list(client.executions.list(label="test=cut"))
    assert len(found) == runs
    assert {each.reason for each in found} == {"exit"}


@pytest.mark.slow
def test_what_is_asked_again_with_its_key_is_done_once(service: Service, key: str) -> None:
    with CuttingProxy(service.url, seed=5, most_bytes=900) as proxy:
        for number in range(20):
            proxy.cuts_left = 3
            with casemate.Client(proxy.url, key, attempts=50) as client:
                assert client.tenants.create(f"once-{number}").name == f"once-{number}"
        assert proxy.cuts >= 20
    with casemate.Client(service.url, key) as client:
        names = [tenant.name for tenant in client.tenants.list() if tenant.name.startswith("once-")]
    assert sorted(names) == sorted(f"once-{number}" for number in range(20))


def test_asyncio_goes_on_after_cuts(service: Service, key: str) -> None:
    async def main(url: str) -> tuple[casemate.Result, list[Chunk]]:
        chunks: list[Chunk] = []
        async with casemate.AsyncClient(url, key, attempts=50) as client:
            return await client.run(PROGRAM, on_output=chunks.append), chunks

    with CuttingProxy(service.url, seed=6, most_bytes=MOST_BYTES) as proxy:
        while proxy.cuts < 10:
            result, chunks = asyncio.run(main(proxy.url))
            assert joined(chunks, "stdout") == result.stdout.text == STDOUT


# Functions -----------------------------------------------------------------------------------------

MEAN = "def mean(values):\n    return sum(values) / len(values)\n"


@pytest.fixture(scope="module")
def mean(service: Service, key: str) -> str:
    with casemate.Client(service.url, key) as client:
        made = client.functions.publish("mean", MEAN, function="mean", description="The mean", labels={"a": "b"})
    assert (made.function, made.version, made.aliases) == ("mean", 1, ("live",))
    return "mean"


def test_a_function_is_published_called_and_rolled_back(client: casemate.Client) -> None:
    functions = client.functions
    functions.publish("step", "output = 1")
    assert functions.publish("step", "output = 1").version == 1
    second = functions.publish("step", "output = 2", alias=None)
    assert (second.version, second.aliases) == (2, ())
    assert functions.invoke("step").output == 1
    assert functions.invoke("step", version=2).output == 2
    assert functions.alias("step", "live", 2).version == 2
    assert functions.invoke("step").output == 2
    assert functions.rollback("step").version == 1
    assert functions.invoke("step", alias="live").output == 1
    assert [move.to_version for move in functions.history("step")] == [1, 2, 1]
    assert [each.version for each in functions.versions("step")] == [2, 1]
    assert "+output = 2" in functions.diff("step", 1, 2).code
    assert functions.version("step", 2).code == "output = 2"
    assert functions.get("step").aliases == {"live": 1}
    functions.delete("step")
    with pytest.raises(NotFound):
        functions.get("step")


def test_what_a_function_does_wrong_is_in_its_answer(client: casemate.Client, mean: str) -> None:
    assert client.functions.invoke(mean, [1, 2, 6]).output == 3
    failed = client.functions.invoke(mean, [])
    assert not failed.success
    assert failed.error is not None
    assert failed.error.type == "ZeroDivisionError"
    assert client.functions.invoke(mean, [1], timeout="2s").success


def test_a_batch_is_in_order_whatever_becomes_of_its_items(client: casemate.Client, mean: str) -> None:
    items = [{"id": "same", "data": [number] if number % 3 else []} for number in range(30)]
    done: list[int] = []
    found = client.functions.batch(mean, items, progress=lambda count, _: done.append(count))
    assert [answer.output for answer in found] == [number if number % 3 else None for number in range(30)]
    assert [answer.success for answer in found] == [bool(number % 3) for number in range(30)]
    assert done == list(range(1, 31))


def test_a_batch_that_is_cut_goes_on(service: Service, key: str, mean: str) -> None:
    items = [{"id": str(number), "data": [number]} for number in range(60)]
    with CuttingProxy(service.url, seed=8, most_bytes=8000) as proxy:
        while proxy.cuts < 5:
            with casemate.Client(proxy.url, key, attempts=50) as client:
                assert [answer.output for answer in client.functions.batch(mean, items)] == list(range(60))


def test_more_items_than_one_request_takes(client: casemate.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.SDK_BATCH_ITEMS_MAX <= limits.BATCH_ITEMS_MAX
    monkeypatch.setattr(exchange, "SDK_BATCH_ITEMS_MAX", PORTION)  # fewer, sent in the same way
    client.functions.publish("echo", "output = input", "javascript", limits={"timeout": "30s"})
    items = ({"id": str(number), "data": number} for number in range(2 * PORTION + 10))
    count = 0
    for count, answer in enumerate(client.functions.stream("echo", items), 1):
        assert (answer.id, answer.output) == (str(count - 1), count - 1)
    assert count == 2 * PORTION + 10


def test_the_rest_of_the_service(client: casemate.Client) -> None:
    assert client.validate("print(1", "python").valid is False
    assert client.validate("print(1)", "python").valid
    assert list(client.runners.list()) == []
    with pytest.raises(NotFound):
        client.runners.invoke("python", {})
    assert client.workers()
    assert client.runtimes()["items"]
    assert client.me().is_operator
    client.run("1")
    found = client.metrics(group_by="runtime")
    assert found["groups"]["python"]
    assert found["total"]
