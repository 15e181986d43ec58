"""Rows about the service: one call over HTTP beside the same in process, many at once, a batch, and what it holds.

Service, load and measurement share two processors, whatever the machine has.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import casemate
from bench.measure import Action, interleaved, timed
from bench.rows import Row
from bench.serving import Serving
from casemate.kernel.processes import process_tree
from casemate.limits import KIB, MIB
from casemate.model.function import Item, Source

GROUP: Final = "The service over HTTP on the loopback, on two processors with its load"
CODE: Final = 'output = {"n": input["n"] + 1}'
PROGRAMS: Final = {"python": CODE, "javascript": "return {n: input.n + 1}"}
DATA: Final = {"n": 1}
PROCESSORS: Final = 2
RATIO_MAX: Final = 3.0
CALLS_PER_S_MIN: Final = 300.0
CONNECTIONS: Final = 8
LOAD_S: Final = 4.0
BATCH_ITEMS: Final = 1000
BATCH_MAX_S: Final = 3.0
IDLE_PSS_MAX_MIB: Final = 250.0
SECOND_MS: Final = 1000.0
GENERATOR: Final = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
"""


class Caller:
    """One connection that is kept."""

    def __init__(self, serving: Serving) -> None:
        self._connection = http.client.HTTPConnection(serving.address)
        self._headers = {"Authorization": f"Bearer {serving.key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        """The answer of a request that has to succeed."""
        self._connection.request(method, path, json.dumps(body), self._headers)
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status >= 300:
            raise RuntimeError(f"{path}: {response.status} {answer}")
        return answer

    def close(self) -> None:
        self._connection.close()


def service(share: float) -> Iterator[Row]:
    """All rows; `share` of the usual number of rounds."""
    with (
        _two_processors(),
        tempfile.TemporaryDirectory(prefix="bench-service-") as directory,
        Serving(Path(directory) / "data") as serving,
        closing(Caller(serving)) as caller,
    ):
        yield _memory(serving)
        caller.ask("PUT", "/v1/functions/f", {"runtime": "python", "code": CODE})
        yield from _one_at_a_time(caller, max(3, round(300 * share)))
        yield _batch(caller, max(1, round(5 * share)))
        if shutil.which("wrk"):
            yield from _many_at_once(serving, Path(directory), max(1.0, LOAD_S * share))


@contextmanager
def _two_processors() -> Iterator[None]:
    """For this process and all that it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:PROCESSORS])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _one_at_a_time(caller: Caller, rounds: int) -> Iterator[Row]:
    with casemate.Engine() as engine:
        names = ("a function over HTTP", "the same in process", "a run of the same code in process")
        candidates = dict(zip(names, (_invoked(caller), _in_process(engine), _run(engine)), strict=True))
        times = interleaved(candidates, rounds)
    for name, found in times.items():
        more = {"p99_ms": found.percentile_ms(0.99)}
        yield Row(group=GROUP, name=f"{name}, warm Python", value=found.median_ms, unit="ms", more=more)
    for peer in names[1:]:
        ratio = times[names[0]].median_ms / times[peer].median_ms
        bound = RATIO_MAX if peer == names[1] else None
        yield Row(group=GROUP, name=f"over HTTP / {peer}, p50", value=ratio, unit="times", bound=bound)


def _invoked(caller: Caller) -> Action:
    def call() -> None:
        if caller.ask("POST", "/v1/functions/f/invoke", {"data": DATA})["output"] != {"n": 2}:
            raise RuntimeError("the function has another output")

    return call


def _in_process(engine: casemate.Engine) -> Action:
    source, items = Source(runtime="python", code=CODE), [Item(data=DATA)]

    def call() -> None:
        if not all(result.success for _, result in casemate.run_items(engine, source, items)):
            raise RuntimeError("the item has failed")

    return call


def _run(engine: casemate.Engine) -> Action:
    def call() -> None:
        if not casemate.run(CODE, input=DATA, engine=engine).ok:
            raise RuntimeError("the run has failed")

    return call


def _batch(caller: Caller, rounds: int) -> Row:
    items = [{"id": str(number), "data": {"n": number}} for number in range(BATCH_ITEMS)]

    def call() -> None:
        if caller.ask("POST", "/v1/functions/f/batch", {"items": items})["succeeded"] != BATCH_ITEMS:
            raise RuntimeError("an item has failed")

    seconds = statistics.median(timed(call) for _ in range(rounds))
    name = f"a batch of {BATCH_ITEMS} Python items, each in a process of its own"
    return Row(group=GROUP, name=name, value=seconds, unit="s", bound=BATCH_MAX_S)


def _many_at_once(serving: Serving, directory: Path, load_s: float) -> Iterator[Row]:
    """What a bound asks for at least a second is a bound of the time for one."""
    rate, more = _load(serving, directory, "/v1/functions/f/invoke", {"data": DATA}, load_s)
    name = f"calls of a Python function, {CONNECTIONS} at once, each takes"
    bound = SECOND_MS / CALLS_PER_S_MIN
    yield Row(group=GROUP, name=name, value=SECOND_MS / rate, unit="ms", bound=bound, more=more)
    for runtime, code in PROGRAMS.items():
        body = {"runtime": runtime, "code": code, "input": DATA}
        rate, more = _load(serving, directory, "/v1/executions", body, load_s)
        name = f"executions of {runtime}, {CONNECTIONS} at once, each takes"
        yield Row(group=GROUP, name=name, value=SECOND_MS / rate, unit="ms", more=more)


def _load(serving: Serving, directory: Path, path: str, body: object, load_s: float) -> tuple[float, dict[str, float]]:
    """Requests a second, and more of them by name."""
    script = directory / "load.lua"
    script.write_text(GENERATOR.format(body=json.dumps(body), key=serving.key))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{round(load_s)}s", "--latency", "-s", str(script)]
    told = subprocess.run([*command, f"http://{serving.address}{path}"], capture_output=True, text=True, check=True)
    if "Non-2xx" in told.stdout:
        raise RuntimeError(told.stdout)
    rate = float(_number(r"Requests/sec:\s+([\d.]+)", told.stdout))
    return rate, {"per_s": rate, **{f"p{share}_ms": _latency_ms(told.stdout, share) for share in (50, 99)}}


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(text)
    return found[1]


def _latency_ms(text: str, share: int) -> float:
    value = _number(rf"\s{share}%\s+([\d.]+m?u?s)", text)
    return float(value.rstrip("mus")) * {"ms": 1.0, "us": 1e-3}.get(value[-2:], SECOND_MS)


def _memory(serving: Serving) -> Row:
    """The proportional set sizes of all processes, with whatever is kept ready."""
    time.sleep(1.0)
    total_kib = sum(map(_pss_kib, process_tree(serving.process.pid)))
    name = "memory of the idle service, all processes, proportional"
    return Row(group=GROUP, name=name, value=total_kib * KIB / MIB, unit="MiB", bound=IDLE_PSS_MAX_MIB)


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
