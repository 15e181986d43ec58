"""Logs of jobs over HTTP and on the command line: the service's own parts and port, and attempts that are played."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from structlog.testing import capture_logs
from tests.integration.job_logs import NOW_US, Printer

from casemate.api.__main__ import Server, opened
from casemate.api.state import State
from casemate.cli import main
from casemate.cli.job_logs import harmless
from casemate.config import Config
from casemate.jobs.config import load_jobs
from casemate.model.job import Job, JobSpec, JobState
from casemate.queue.leases import RecordsQueue
from casemate.queue.protocol import Ending
from casemate.sdk.async_client import AsyncClient
from casemate.service_config import load_service

if TYPE_CHECKING:
    import pytest

CUTS = 200
"""Here; without a connection between, the same is done a thousand times (`test_job_logs`)."""


class Bench:
    """A service with one tenant, whose jobs are played here."""

    def __init__(self, parts: State, url: str, key: str, tenant_id: str) -> None:
        self.parts = parts
        self.url = url
        self.key = key
        self.tenant_id = tenant_id
        self.queue = RecordsQueue(parts.database)
        self.http = httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    async def begin(self, identity: str = "job_1") -> Printer:
        """A job that was leased, and whose first attempt prints."""
        job = Job(id=identity, tenant_id=self.tenant_id, key_id="key_1", spec=JobSpec(argv=("ls",)), created_us=NOW_US)
        await self.queue.submit(job, queue_max=100)
        (lease,) = await self.queue.claim("tests", count=1, lease_s=600)
        self.token = lease.token
        return Printer(self.parts.logs.open(job, 1))

    async def end(self, prints: Printer, state: JobState = JobState.SUCCEEDED) -> None:
        await prints.log.close()
        assert await self.queue.end(self.token, Ending(state=state, status="succeeded", reason="exit", exit_code=0))

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Bench]:
    with capture_logs():
        async with _serving(path) as found:
            yield found


@asynccontextmanager
async def _serving(path: Path) -> AsyncIterator[Bench]:
    service = load_service(Config(), {"CASEMATE_SERVICE_DATA": str(path), "CASEMATE_SERVICE_RATE": "100000"})
    (path / "run").mkdir(parents=True, exist_ok=True)
    async with opened(service, load_jobs(Config(), {}), path) as parts:
        key = await parts.tenancy.first_start()
        assert key is not None
        principal = await parts.tenancy.authenticate(key)
        ready = asyncio.Event()
        server = Server(parts, service, ready.set)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            task = asyncio.create_task(server.serve([listener]))
            await ready.wait()
            found = Bench(parts, f"http://127.0.0.1:{listener.getsockname()[1]}", key, principal.tenant_id)
            try:
                yield found
            finally:
                await found.http.aclose()
                server.should_exit = True
                await task


def events(data: str) -> list[tuple[str, str, Any]]:
    """Whole events of a stream that may have been cut anywhere."""
    whole = data[: data.rfind("\n\n") + 1] if "\n\n" in data else ""
    found = []
    for block in whole.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def test_s2_64_a_stream_tells_every_line_and_the_end(tmp_path: Path) -> None:
    async def followed() -> None:
        async with serving(tmp_path) as bench:
            prints = await bench.begin()
            headers = {"Accept": "text/event-stream"}
            async with bench.http.stream("GET", "/v1/jobs/job_1/logs", headers=headers) as answer:
                pieces = answer.aiter_text()
                await prints(b"begun\n")
                assert events(await anext(pieces))[0][2] == {
                    "job_id": "job_1",
                    "seq": 1,
                    "attempt": 1,
                    "stream": "stdout",
                    "level": "info",
                    "at": "2023-11-14T22:13:20Z",
                    "offset": 0,
                    "text": "begun",
                }
                await prints(b"\xff\n", "stderr")
                await bench.end(prints)
                rest = events("".join([piece async for piece in pieces]))
            assert [(kind, identity) for kind, identity, _ in rest] == [("log", "2"), ("end", "2")]
            assert rest[0][2]["base64"] == "/w=="
            assert rest[1][2] == {
                "id": "job_1",
                "state": "succeeded",
                "status": "succeeded",
                "reason": "exit",
                "exit_code": 0,
            }
            page = await bench.get("/v1/jobs/job_1/logs")
            assert [line["seq"] for line in page["items"]] == [1, 2]

    asyncio.run(followed())


def test_s2_64_cuts_of_a_connection_lose_no_byte_and_double_none(tmp_path: Path) -> None:
    chance = random.Random(3)

    async def followed() -> None:
        async with serving(tmp_path) as bench:
            prints = await bench.begin()

            async def printing() -> None:
                for number in range(3_000):
                    await prints(f"line {number}\n".encode())
                    if number % 3 == 0:
                        await asyncio.sleep(0)
                await bench.end(prints)

            task = asyncio.create_task(printing())
            told: list[tuple[str, Any]] = []
            cuts = 0
            while cuts < CUTS or not told or told[-1][0] != "end":
                headers = {"Accept": "text/event-stream", "Last-Event-ID": str(told[-1][1]["seq"] if told else 0)}
                came = ""
                cut_at = chance.randrange(1, 1_000) if cuts < CUTS else 10**9
                async with bench.http.stream("GET", "/v1/jobs/job_1/logs", headers=headers) as answer:
                    async for piece in answer.aiter_text():
                        came += piece
                        if len(came) >= cut_at:
                            break
                # What the connection was cut in is not whole, and comes again.
                told += [(kind, data) for kind, _, data in events(came[:cut_at])]
                if told and told[-1][0] == "end" and cuts < CUTS:
                    told.pop()
                    told = told[: -chance.randrange(1, 30)]
                cuts += 1
            await task
            lines = [data["text"] for kind, data in told if kind == "log"]
            assert lines == [f"line {number}" for number in range(3_000)]

    asyncio.run(followed())


def test_the_tail_the_pages_and_what_is_not_kept(tmp_path: Path) -> None:
    async def read() -> None:
        async with serving(tmp_path) as bench:
            prints = await bench.begin()
            await prints(b"".join(b"%d\n" % number for number in range(100)))
            prints.offsets["stdout"] += 10
            await prints(b"after a gap\n")
            await bench.end(prints)
            last = await bench.get("/v1/jobs/job_1/logs", tail=2)
            assert [line["text"] for line in last["items"]] == ["99", "after a gap"]
            assert (last["lines_kept"], last["lines_printed"]) == (101, 102)
            assert (last["bytes_kept"], last["bytes_printed"]) == (290 + 12, 290 + 12)
            first = await bench.get("/v1/jobs/job_1/logs", limit=60)
            second = await bench.get("/v1/jobs/job_1/logs", limit=60, cursor=first["next_cursor"])
            assert [line["seq"] for line in first["items"] + second["items"]] == [*range(1, 101), 102]
            assert second["next_cursor"] is None
            headers = {"Accept": "text/event-stream"}
            for tail, kinds in ((0, ["end"]), (1, ["log", "end"]), (2, ["log", "missed", "log", "end"])):
                answer = await bench.http.get("/v1/jobs/job_1/logs", params={"tail": tail}, headers=headers)
                assert [kind for kind, _, _ in events(answer.text)] == kinds
            for query in ({"cursor": "x"}, {"tail": "-1"}, {"limit": "0"}, {"nothing": "1"}):
                assert (await bench.http.get("/v1/jobs/job_1/logs", params=query)).status_code == 422
            bad = await bench.http.get("/v1/jobs/job_1/logs", headers={**headers, "Last-Event-ID": "1.2"})
            assert bad.json()["field"] == "Last-Event-ID"
            assert (await bench.http.get("/v1/jobs/job_2/logs")).status_code == 404

    asyncio.run(read())


def test_s2_65_logs_are_searched_over_http(tmp_path: Path) -> None:
    async def searched() -> None:
        async with serving(tmp_path) as bench:
            for identity in ("job_a", "job_b"):
                prints = await bench.begin(identity)
                await prints(b"connection refused\nfine\n")
                await prints(b"warning: slow\n", "stderr")
                await bench.end(prints)
            found = await bench.get("/v1/logs", text="refused", job="job_b")
            assert [(line["job_id"], line["text"]) for line in found["items"]] == [("job_b", "connection refused")]
            assert len((await bench.get("/v1/logs", level="warning", stream="stderr"))["items"]) == 2
            assert (await bench.get("/v1/logs", since="2030-01-01T00:00:00Z"))["items"] == []
            first = await bench.get("/v1/logs", limit=4)
            second = await bench.get("/v1/logs", limit=4, cursor=first["next_cursor"])
            assert len(first["items"] + second["items"]) == 6
            for query in ({"text": "***"}, {"level": "loud"}, {"since": "now"}, {"cursor": "MTA"}):
                assert (await bench.http.get("/v1/logs", params=query)).status_code == 422

    asyncio.run(searched())


def test_clients_follow_a_log_to_its_end(tmp_path: Path) -> None:
    async def followed() -> None:
        async with serving(tmp_path) as bench, AsyncClient(bench.url, bench.key) as client:
            prints = await bench.begin()
            await prints(b"one\ntwo\n")
            async with aclosing(client.logs.follow("job_1")) as recorded:  # type: ignore[type-var]
                await anext(recorded)
            entries = client.logs.follow("job_1", tail=1)
            assert (await anext(entries)).text == "two"
            await prints(b"\xfethree\n")
            await bench.end(prints)
            assert [entry.data async for entry in entries] == [b"\xfethree\n"]
            assert [entry.text async for entry in client.logs.search("two")] == ["two"]
            assert [entry.seq async for entry in client.logs.read("job_1", tail=2)] == [2, 3]
            assert [entry.seq async for entry in client.logs.read("job_1")] == [1, 2, 3]

    asyncio.run(followed())


def test_the_command_line_shows_a_log_as_it_was_and_nothing_of_it_moves_a_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("casemate.cli.main.signal.signal", lambda *_: None)

    async def shown() -> None:
        async with serving(tmp_path) as bench:
            prints = await bench.begin()
            await prints(b"\x1b[2Jwiped\xff\n  indented\n")
            await prints(b"oops\n", "stderr")
            await bench.end(prints)
            monkeypatch.setenv("CASEMATE_URL", bench.url)
            monkeypatch.setenv("CASEMATE_KEY", bench.key)
            for words in (["jobs", "logs", "job_1"], ["jobs", "logs", "job_1", "-f"]):
                assert await asyncio.to_thread(main.run, words) == 0
                shown = capfdbinary.readouterr()
                assert shown.out == b"\x1b[2Jwiped\xff\n  indented\n"
                assert shown.err == b"oops\n"
            assert await asyncio.to_thread(main.run, ["jobs", "logs", "job_1", "--json", "--tail", "1"]) == 0
            assert json.loads(capfdbinary.readouterr().out)["text"] == "oops"
            assert await asyncio.to_thread(main.run, ["jobs", "search", "wiped"]) == 0
            assert b"job_1 stdout: \xef\xbf\xbd[2Jwiped\xef\xbf\xbd\n" in capfdbinary.readouterr().out
            assert await asyncio.to_thread(main.run, ["jobs", "logs", "job_1", "--times"]) == 0
            assert b" stdout: \x1b[2Jwiped" in capfdbinary.readouterr().out

    asyncio.run(shown())


def test_nothing_of_a_log_moves_a_cursor_of_a_terminal() -> None:
    assert harmless(b"\tin\x1b[2J\rblue\x07\xff\0\xc2\x9b1m\r\n") == "\tin\ufffd[2J\ufffdblue\ufffd\ufffd\ufffd\ufffd1m"
    assert harmless("é✓ \u202edlrow".encode()) == "é✓ \ufffddlrow"
