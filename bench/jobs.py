"""Rows about jobs: how soon a job's first line is seen on an idle queue, and how many short jobs a second get done."""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bench.rows import Row
from bench.service import Caller
from bench.serving import Serving

GROUP: Final = "Jobs over HTTP on the loopback, each in a sandbox of its own, on SQLite"
FIRST_LINE_MAX_MS: Final = 50.0
JOB_MIN_S: Final = 1 / 150
CLIENTS: Final = 4
ROUNDS: Final = 100
JOBS: Final = 3000
LOOK_S: Final = 0.1
SECOND_MS: Final = 1000.0
TERMS: Final = {"concurrency_max": 1000, "queue_max": 100_000}


def jobs(share: float) -> Iterator[Row]:
    """All rows; `share` of the usual number of rounds."""
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as directory, Serving(Path(directory) / "data") as serving:
        key = tenant_key(serving)
        yield _first_line(serving, key, max(3, round(ROUNDS * share)))
        yield _throughput(serving, key, max(20, round(JOBS * share)))


def tenant_key(serving: Serving) -> str:
    """The key of a tenant with room."""
    with closing(Caller(serving)) as caller:
        tenant = caller.ask("POST", "/v1/tenants", {"name": "bench", **TERMS})
        terms = {"tenant_id": tenant["id"], "name": "k", "scopes": {"allow": ["admin"]}}
        key: str = caller.ask("POST", "/v1/keys", {**terms, "rate_per_s": 1e6, "burst": 1_000_000})["key"]
    return key


def _first_line(serving: Serving, key: str, rounds: int) -> Row:
    """From the first byte of the request to the first line of its log, by one client."""
    times = [_line_ms(serving, key) for _ in range(rounds)]
    more = {"p95_ms": statistics.quantiles(times, n=20)[-1]} if len(times) > 1 else {}
    name = "from submitting a job to its first line, p50"
    return Row(group=GROUP, name=name, value=statistics.median(times), unit="ms", bound=FIRST_LINE_MAX_MS, more=more)


def _line_ms(serving: Serving, key: str) -> float:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connections = [http.client.HTTPConnection(serving.address) for _ in range(2)]
    for each in connections:
        each.connect()
    try:
        began_s = time.perf_counter()
        job = _asked(connections[0], "POST", "/v1/jobs", headers, {"command": ["echo", "hello"]})
        path = f"/v1/jobs/{job['id']}/logs"
        connections[1].request("GET", path, headers={**headers, "Accept": "text/event-stream"})
        stream = connections[1].getresponse()
        while not stream.readline().startswith(b"event: log"):
            pass
        return (time.perf_counter() - began_s) * SECOND_MS
    finally:
        for each in connections:
            each.close()


def _asked(
    connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str], body: object = None
) -> dict[str, Any]:
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    found: dict[str, Any] = json.loads(response.read())
    if response.status >= 300:
        raise RuntimeError(f"{path}: {response.status} {found}")
    return found


def _throughput(serving: Serving, key: str, count: int) -> Row:
    """From the first job that is submitted to the end of the last, by several clients."""
    problems: list[str] = []
    threads = [
        threading.Thread(target=_submit, args=(serving, key, count // CLIENTS, problems)) for _ in range(CLIENTS)
    ]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    submitted_s = time.perf_counter() - began_s
    _wait_for_all(serving, key)
    took_s = time.perf_counter() - began_s
    if problems:
        raise RuntimeError(problems[0])
    done = count // CLIENTS * CLIENTS
    more = {"jobs_per_s": done / took_s, "submitted_per_s": done / submitted_s}
    name = f"{done} short jobs of {CLIENTS} clients, each"
    return Row(
        group=GROUP, name=name, value=took_s / done * SECOND_MS, unit="ms", bound=JOB_MIN_S * SECOND_MS, more=more
    )


def _submit(serving: Serving, key: str, count: int, problems: list[str]) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with closing(http.client.HTTPConnection(serving.address)) as connection:
        try:
            for _ in range(count):
                _asked(connection, "POST", "/v1/jobs", headers, {"command": ["true"]})
        except RuntimeError as error:
            problems.append(str(error))


def _wait_for_all(serving: Serving, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    with closing(http.client.HTTPConnection(serving.address)) as connection:
        while True:
            queue = _asked(connection, "GET", "/v1/queue", headers)
            if not queue["waiting"] + queue["active"]:
                break
            time.sleep(LOOK_S)
        failed = _asked(connection, "GET", "/v1/jobs?status=failed&limit=1", headers)["items"]
        if failed:
            raise RuntimeError(f"a job has failed: {failed[0]}")
