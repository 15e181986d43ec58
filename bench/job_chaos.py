"""`kill -9` of the API, the node and launchers while jobs run, by a seed: each accepted job ends exactly once.

A job writes nothing but a line. Clients submit jobs, with ids of their own, again and again until they are answered.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from bench.service_chaos import AGAIN_AFTER_S, Client, left_files
from bench.serving import Serving
from casemate.kernel.processes import process_tree

CLIENTS: Final = 3
ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "dead"})
MOMENT_MAX_S: Final = 0.4
STUCK_S: Final = 180.0
VICTIMS: Final = ("api", "node", "launcher")
PROGRAMS: Final[tuple[dict[str, Any], ...]] = (
    {"command": ["echo", "hello"]},
    {"command": "sleep 0.05; echo out > output/x", "shell": True},
    {"command": ["sh", "-c", "echo no; exit 3"], "retries": {"max": 1, "backoff": 0.05}},
    {"command": ["cat", "input/a"], "files": [{"path": "a", "content": "input"}]},
)
TERMS: Final = {"concurrency_max": 1000, "queue_max": 100_000}
LEASE: Final = {"CASEMATE_JOBS_LEASE": "3s"}


class Load:
    """What clients have submitted: ids and programs. `problems` is what they saw that must not be."""

    def __init__(self, serving: Serving, count: int, seed: int) -> None:
        self.accepted: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._serving = serving
        operator = Client(serving.address, serving.key)
        tenant = operator.ask("POST", "/v1/tenants", {"name": "chaos", **TERMS}).json()
        terms = {"tenant_id": tenant["id"], "name": "k", "scopes": {"allow": ["admin"]}}
        self.key: str = operator.ask("POST", "/v1/keys", {**terms, "rate_per_s": 1e5, "burst": 10_000}).json()["key"]
        self._threads = [
            threading.Thread(target=self._work, args=(number, count // CLIENTS, random.Random(f"{seed}-{number}")))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self, client_number: int, count: int, chance: random.Random) -> None:
        client = Client(self._serving.address, self.key)
        for number in range(count):
            body: dict[str, Any] = {**chance.choice(PROGRAMS), "id": f"job-{client_number}-{number}"}
            try:
                answer = client.ask("POST", "/v1/jobs", body)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
                self.problems.append(f"{body['id']}: {type(error).__name__}: {error}")
                continue
            if answer.status not in {200, 202}:
                self.problems.append(f"{body['id']}: {answer.status} {answer.body[:200]!r}")
                continue
            with self._lock:
                self.accepted[body["id"]] = body
            time.sleep(chance.uniform(0, 0.01))


def strike(serving: Serving, load: Load, seed: int, kills: int) -> Counter[str]:
    """Kill until so many were, and all jobs were submitted."""
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    while killed.total() < kills or not load.is_done:
        time.sleep(chance.uniform(0, MOMENT_MAX_S))
        if killed.total() >= kills:
            continue
        victim = chance.choice(VICTIMS)
        pid = _launcher(serving, chance) if victim == "launcher" else serving.child(victim)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed[victim] += 1
    return killed


def _launcher(serving: Serving, chance: random.Random) -> int | None:
    """Any process below the node: launchers, inits of sandboxes, programs."""
    node = serving.child("node")
    found = [] if node is None else [pid for pid in process_tree(node) if pid != node]
    return chance.choice(found) if found else None


def wait_for_all(serving: Serving, key: str) -> bool:
    """Until nothing waits and nothing runs; False if that takes too long."""
    client = Client(serving.address, key)
    until_s = time.monotonic() + STUCK_S
    while time.monotonic() < until_s:
        queue = client.ask("GET", "/v1/queue").json()
        if not queue["waiting"] + queue["active"]:
            return True
        time.sleep(AGAIN_AFTER_S)
    return False


def record_problems(data: Path, load: Load) -> Iterator[str]:
    """Jobs that are not there, that have no end, or more than one."""
    with closing(sqlite3.connect(data / "records.sqlite")) as records:
        if records.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            yield "the records are damaged"
        rows = records.execute("SELECT id, state, exit_code, attempt, lost, result FROM jobs").fetchall()
        moves = records.execute("SELECT job_id, state FROM job_transitions ORDER BY id").fetchall()
    ends = Counter(job_id for job_id, state in moves if state in ENDED)
    known = {row[0]: row for row in rows}
    for job_id in known.keys() ^ load.accepted.keys():
        yield f"{job_id} was {'accepted and is not there' if job_id in load.accepted else 'never accepted'}"
    for job_id, state, exit_code, attempt, lost, result in rows:
        if state not in ENDED or ends[job_id] != 1:
            yield f"{job_id} is {state}, and has ended {ends[job_id]} times"
        elif state == "succeeded" and (exit_code != 0 or not result):
            yield f"{job_id} has succeeded without a result"
        elif state == "failed" or (state == "dead" and exit_code is None and not lost):
            yield f"{job_id} is {state} after {attempt} attempts: {result!r}"


def chaos(jobs: int, kills: int, seed: int, told: Callable[[str], None]) -> list[str]:
    """The problems found."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        data, temporary = Path(directory) / "data", Path(directory) / "tmp"
        temporary.mkdir()
        with Serving(data, temporary, **LEASE) as serving:
            load = Load(serving, jobs, seed)
            killed = strike(serving, load, seed, kills)
            stuck = [] if wait_for_all(serving, load.key) else ["jobs are stuck"]
            states = _states(serving, load.key)
            status = serving.end()
        problems = [*load.problems, *stuck, *record_problems(data, load)]
        problems += [f"file {path} is left" for path in left_files(data, temporary)]
        if status:
            problems.append(f"the service ended with status {status}")
        if problems:
            told("\n".join(line for line in serving.log if '"level":"error"' in line)[-4000:])
    told(f"killed {dict(killed)}; jobs {json.dumps(states)}")
    return problems


def _states(serving: Serving, key: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    client, cursor = Client(serving.address, key), ""
    while True:
        page = client.ask("GET", f"/v1/jobs?limit=200{cursor}").json()
        found.update(each["state"] for each in page["items"])
        if page["next_cursor"] is None:
            return dict(found)
        cursor = f"&cursor={page['next_cursor']}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills of the service's processes while jobs run.")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    problems = chaos(options.jobs, options.kills, options.seed, lambda text: print(text, flush=True))
    print("\n".join(problems[:50]) or "every job has ended once")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
