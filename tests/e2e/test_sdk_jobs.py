"""The client's jobs, their logs, files and usage against a real service, over a network that breaks."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import CuttingProxy, Service, serving

import casemate
from casemate.errors import BudgetExceeded, Conflict, InvalidInput, NotFound

MOST_BYTES = 60_000
"""More than the largest event, which has to come through whole."""

LINES = 300
COPY = "cat data.txt >&2 && tr a-z A-Z < data.txt > output/loud.txt && echo kept > note.txt && echo done"
SLEEP = "echo begun && sleep 1000"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "data") as started:
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
    with casemate.Client(service.url, key) as made:
        yield made


def text_of(entries: Any) -> str:
    return b"".join(each.data for each in entries if each.stream == "stdout").decode()


def test_a_job_from_its_submission_to_its_files(client: casemate.Client) -> None:
    made = client.jobs.submit(COPY, shell=True, files={"data.txt": "words\n"}, collect=["*.txt"], labels={"n": "1"})
    assert not made.has_ended
    ended = client.jobs.wait(made.id)
    assert (ended.ok, ended.state, ended.exit_code, ended.attempt) == (True, "succeeded", 0, 1)
    assert ended.transitions is not None
    states = [each.state for each in ended.transitions]
    assert (states[0], states[-1]) == ("queued", "succeeded")
    lines = {(each.stream, each.data) for each in client.logs.read(made.id)}
    assert lines == {("stderr", b"words\n"), ("stdout", b"done\n")}
    assert client.jobs.usage(made.id).runs == 1
    files = {each.key.removeprefix(f"jobs/{made.id}/"): each.size_bytes for each in client.objects.files(made.id)}
    assert files["output/loud.txt"] == files["input/data.txt"] == 6
    assert client.objects.read(f"jobs/{made.id}/output/loud.txt") == b"WORDS\n"
    assert client.objects.read(f"jobs/{made.id}/artifacts/note.txt") == b"kept\n"
    again = client.jobs.wait(client.jobs.rerun(made.id).id)
    assert (again.ok, again.id != made.id) == (True, True)
    assert {each.id for each in client.jobs.list(label="n=1")} == {made.id, again.id}
    client.jobs.delete(made.id)
    with pytest.raises(NotFound):
        client.jobs.get(made.id)


def test_a_job_that_runs_is_cancelled(client: casemate.Client) -> None:
    made = client.jobs.submit(SLEEP, shell=True)
    first = next(iter(client.logs.follow(made.id)))
    assert first.data == b"begun\n"
    ended = client.jobs.cancel(made.id)
    assert (ended.state, ended.reason) == ("cancelled", "cancelled")
    with pytest.raises(NotFound):
        client.jobs.cancel("job_nothing")


def test_the_same_id_is_the_same_job_and_no_other(client: casemate.Client) -> None:
    first = client.jobs.submit("true", id="mine-1")
    assert client.jobs.submit("true", id="mine-1").id == first.id == "mine-1"
    with pytest.raises(Conflict):
        client.jobs.submit("false", id="mine-1")
    with pytest.raises(InvalidInput) as raised:
        client.jobs.submit("true", resources={"memory": "much"})
    assert "memory" in raised.value.field


def test_dead_jobs_are_listed_and_tried_again(client: casemate.Client) -> None:
    made = client.jobs.submit("false", retries={"max": 1, "backoff": 0.01})
    assert client.jobs.wait(made.id).state == "dead"
    assert made.id in {each.id for each in client.jobs.dead()}
    assert not client.jobs.retry(made.id).has_ended
    assert client.jobs.wait(made.id).state == "dead"


def test_objects_are_carried_whole_through_a_network_that_breaks(service: Service, key: str, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    source = tmp_path / "source"
    source.write_bytes(content)
    with (
        CuttingProxy(service.url, most_bytes=6_000_000) as proxy,
        casemate.Client(proxy.url, key, attempts=20) as client,
    ):
        proxy.cuts_left = 10
        for number in range(3):
            assert client.objects.upload(f"shared/{number}", source).size_bytes == len(content)
            assert client.objects.read(f"shared/{number}") == content
        assert proxy.cuts > 0
    with casemate.Client(service.url, key) as client:
        assert [each.key for each in client.objects.list("shared/")] == ["shared/0", "shared/1", "shared/2"]
        copied = client.jobs.submit("cat shared/0 > output/copy", shell=True, shared=["0"])
        assert client.jobs.wait(copied.id).ok
        assert client.objects.read(f"jobs/{copied.id}/output/copy") == content


def test_a_log_comes_whole_through_a_network_that_breaks(service: Service, key: str) -> None:
    code = f"for n in range({LINES}): print(n, 'x' * (n % 50), flush=True)"
    with CuttingProxy(service.url, most_bytes=MOST_BYTES) as proxy, casemate.Client(proxy.url, key) as client:
        proxy.cuts_left = 50
        made = client.jobs.submit(code=code, runtime="python")
        told = text_of(client.logs.follow(made.id))
        assert client.jobs.wait(made.id).ok
    assert told == "".join(f"{n} {'x' * (n % 50)}\n" for n in range(LINES))


def test_a_job_is_submitted_once_whatever_becomes_of_the_connection(service: Service, key: str) -> None:
    with CuttingProxy(service.url, most_bytes=3000) as proxy, casemate.Client(proxy.url, key, attempts=20) as client:
        proxy.cuts_left = 8
        made = [client.jobs.submit("true", labels={"once": str(number)}) for number in range(8)]
        assert proxy.cuts > 0
    with casemate.Client(service.url, key) as client:
        for number, each in enumerate(made):
            assert [found.id for found in client.jobs.list(label=f"once={number}")] == [each.id]
            assert client.jobs.wait(each.id).ok


def test_usage_and_budgets_of_jobs(service: Service, client: casemate.Client) -> None:
    tenant = client.tenants.create("metered")
    made = client.keys.create("its-own", allow=["admin"], tenant_id=tenant.id, rate_per_s=1000, burst=1000)
    with casemate.Client(service.url, made.key) as own:
        own.jobs.wait(own.jobs.submit("true", labels={"project": "a"}).id)
        report = own.usage(group_by="label:project")
        assert [(each.by, each.runs) for each in report.groups] == [("a", 1)]
        client.budgets.set("all", unit="runs", period="total", hard=1, tenant=tenant.id)
        with pytest.raises(BudgetExceeded, match="all"):
            own.jobs.submit("true")
        [budget] = own.budgets.list()
        assert (budget.is_imposed, budget.is_used_up, int(budget.spent)) == (True, True, 1)


def test_the_same_for_asyncio(service: Service, key: str) -> None:
    async def main() -> None:
        async with casemate.AsyncClient(service.url, key) as client:
            made = [
                await client.jobs.submit(COPY, shell=True, files={"data.txt": f"words {number}\n"})
                for number in range(4)
            ]
            ended = await asyncio.gather(*(client.jobs.wait(each.id) for each in made))
            assert all(each.ok for each in ended)
            for number, each in enumerate(made):
                lines = [line async for line in client.logs.follow(each.id)]
                assert text_of(lines) == "done\n"
                found = await client.objects.read(f"jobs/{each.id}/output/loud.txt")
                assert found == f"WORDS {number}\n".encode()
            await client.secrets.set("TOKEN", "of the tests")
            told = await client.jobs.submit('test "$TOKEN" = "of the tests"', shell=True, secrets=["TOKEN"])
            assert (await client.jobs.wait(told.id)).ok
            assert [each async for each in client.flows.list(job=told.id)] == []
            report = await client.usage(kind="job")
            assert report.total.runs >= 5

    asyncio.run(main())


def test_a_paused_queue_begins_nothing(service: Service, client: casemate.Client) -> None:
    tenant = client.tenants.create("paused")
    made = client.keys.create("its-own", allow=["admin"], tenant_id=tenant.id, rate_per_s=1000, burst=1000)
    with casemate.Client(service.url, made.key) as own:
        assert own.jobs.pause().paused
        job = own.jobs.submit("true")
        ended = threading.Event()

        def wait() -> None:
            own.jobs.wait(job.id)
            ended.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert own.jobs.get(job.id, wait=0.3).state == "queued"
        assert own.jobs.queue().waiting == 1
        assert not ended.is_set()
        assert not own.jobs.resume().paused
        waiting.join(60)
        assert ended.is_set()
