"""`kill -9` of any of the service's processes while jobs run, by a seed: each accepted job ends exactly once.

What it has printed is there once, its files are whole, what it has used is counted once, and its end is told. Clients
submit jobs, with ids of their own, again and again until they are answered; some are cancelled, some hang, some fail.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from bench.job_load import Load, Receiver, file_problems, log_problems
from bench.service_chaos import AGAIN_AFTER_S, Killer, group_places, left_files, settled
from bench.serving import Serving, children
from casemate.job_limits import LOST_MAX

ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "dead"})
BY_ITSELF: Final = frozenset({"exit", "timeout"})
"""Why a program ends that nobody has killed."""

MOMENT_MAX_S: Final = 0.4
OWN_PORTS: Final = (20_000, 32_768)
STUCK_S: Final = 180.0
TOLD_S: Final = 60.0
VICTIMS: Final = ("supervisor", "api", "node", "launcher", "sandbox")
LEASE: Final = {"CASEMATE_JOBS_LEASE": "3s"}
AMOUNTS: Final = ("runs", "failed", "cpu_us", "wall_us", "memory_kib_ms", "disk_bytes", "cost_nano")


class Hunter(Killer):
    """Kills any process of the service; a supervisor that was killed is followed by another."""

    def __init__(self, serving: Callable[[str], Serving], seed: int, groups: tuple[str, ...]) -> None:
        self._start = serving
        super().__init__(serving(""), seed, groups)

    @property
    def serving(self) -> Serving:
        """What runs now."""
        return self._serving

    def hunt(self, kills: int, is_done: Callable[[], bool]) -> None:
        """Kill until so many were, and the load is done."""
        while self.kills.total() < kills or not is_done():
            time.sleep(self._chance.uniform(0, MOMENT_MAX_S))
            self._note()
            if self.kills.total() < kills:
                self._kill(self._chance.choice(VICTIMS))
        self._note()

    def _kill(self, victim: str) -> None:
        pid = self._victim(victim)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[victim] += 1
        if victim == "supervisor":
            key = self._serving.key
            self._serving.end()
            self._serving = self._start(key)

    def _victim(self, name: str) -> int | None:
        if name == "supervisor":
            return self._serving.process.pid
        if name in {"api", "node"}:
            return self._serving.child(name)
        node = self._serving.child("node")
        found = [] if node is None else children(node)
        if name == "sandbox":
            found = [each for parent in found for each in children(parent)]
        return self._chance.choice(found) if found else None


def wait_for_all(load: Load) -> bool:
    """Until nothing waits and nothing runs; False if that takes too long."""
    until_s = time.monotonic() + STUCK_S
    while time.monotonic() < until_s:
        queue = load.ask("GET", "/v1/queue").json()
        if not queue["waiting"] + queue["active"]:
            return True
        time.sleep(AGAIN_AFTER_S)
    return False


# What must be so ------------------------------------------------------------------------------------------


def end_problems(load: Load, jobs: dict[str, dict[str, Any]], ends: Counter[str], spoiled_max: int) -> Iterator[str]:
    """Jobs that are not there, that have no end, more than one, or the wrong one; of those, kills may spoil some."""
    for job_id in jobs.keys() ^ load.accepted.keys():
        yield f"{job_id} was {'accepted and is not there' if job_id in load.accepted else 'never accepted'}"
    spoiled = []
    for job_id, job in jobs.items():
        if job_id not in load.accepted:
            continue
        if job["state"] not in ENDED or ends[job_id] != 1:
            yield f"{job_id} is {job['state']}, and has ended {ends[job_id]} times"
        elif not (job["state"] in load.accepted[job_id].ends or job_id in load.cancelled or job["lost"] >= LOST_MAX):
            spoiled.append(f"{job_id} is {job['state']} after {job['attempt']} attempts: {job['result']!r}")
    yield from spoiled if len(spoiled) > spoiled_max else ()


def usage_problems(records: sqlite3.Connection, jobs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What was counted other than once."""
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in AMOUNTS)
    of_all = records.execute(f"SELECT {sums} FROM usage WHERE kind = 'job'").fetchone()
    of_jobs = records.execute(f"SELECT {sums} FROM job_usage").fetchone()
    if tuple(of_all) != tuple(of_jobs):
        yield f"what the tenant has used, {tuple(of_all)}, is not what its jobs have used, {tuple(of_jobs)}"
    runs = dict(records.execute("SELECT job_id, runs FROM job_usage").fetchall())
    for job_id, job in jobs.items():
        counted, attempts = runs.get(job_id, 0), job["attempt"]
        least = 0 if job["state"] == "cancelled" else attempts - job["lost"]
        if not least <= counted <= attempts:
            yield f"{job_id} has used {counted} runs in {attempts} attempts, of which {job['lost']} were lost"


def told_problems(jobs: dict[str, dict[str, Any]], receiver: Receiver) -> Iterator[str]:
    """Ends that nobody was told of."""
    wanted = {(job_id, f"job.{job['state']}") for job_id, job in jobs.items()}
    until_s = time.monotonic() + TOLD_S
    while wanted - receiver.told.keys() and time.monotonic() < until_s:
        time.sleep(AGAIN_AFTER_S)
    for job_id, kind in sorted(wanted - receiver.told.keys()):
        yield f"nobody was told {kind} of {job_id}"
    for job_id, kind in sorted(receiver.told.keys() - wanted):
        if kind.removeprefix("job.") in ENDED:
            yield f"it was told {kind} of {job_id}, which is {jobs[job_id]['state'] if job_id in jobs else 'unknown'}"


def kept_problems(load: Load, jobs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Of logs and of files. Of a job that ended as it should everything has to be there."""
    for job_id, job in jobs.items():
        is_whole = job["state"] in load.accepted[job_id].ends and job["reason"] in BY_ITSELF
        yield from log_problems(load, job_id, is_whole=is_whole)
        yield from file_problems(load, job_id, is_whole=is_whole)


def read(data: Path) -> tuple[sqlite3.Connection, dict[str, dict[str, Any]], Counter[str]]:
    """The records, the jobs in them, and how often each has ended."""
    records = sqlite3.connect(data / "records.sqlite")
    records.row_factory = sqlite3.Row
    rows = records.execute("SELECT id, state, reason, attempt, lost, result FROM jobs")
    jobs = {row["id"]: dict(row) for row in rows.fetchall()}
    moves = records.execute("SELECT job_id, state FROM job_transitions").fetchall()
    return records, jobs, Counter(job_id for job_id, state in moves if state in ENDED)


# All of it ------------------------------------------------------------------------------------------------


class Place:
    """Where the service has its data, its configuration and its port, whoever serves."""

    def __init__(self, directory: Path, receiver: Receiver) -> None:
        self.data = directory / "data"
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.logs: list[list[str]] = []
        config = directory / "config.toml"
        config.write_text(f'[accounting]\nwebhook_hosts = ["{receiver.place}"]\n')
        self._settings = {"CASEMATE_CONFIG": str(config), "CASEMATE_SERVICE_PORT": str(free_port()), **LEASE}

    def start(self, key: str) -> Serving:
        """Serve there; `key`: the operator's, where one served there before."""
        serving = Serving(self.data, self.temporary, key=key, **self._settings)
        self.logs.append(serving.log)
        return serving

    def errors(self) -> str:
        """What was logged as one."""
        return "\n".join(line for log in self.logs for line in log if '"level":"error"' in line)


def chaos(jobs: int, kills: int, seed: int, told: Callable[[str], None]) -> list[str]:
    """The problems found."""
    groups = group_places()
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, Receiver(seed) as receiver:
        place = Place(Path(directory), receiver)
        hunter = Hunter(place.start, seed, groups)
        try:
            load = Load(hunter.serving.address, hunter.serving.key, receiver, jobs, seed)
            hunter.hunt(kills, lambda: load.is_done)
            stuck = [] if wait_for_all(load) else ["jobs are stuck"]
            problems = [*load.problems, *stuck, *_record_problems(place.data, load, hunter, told)]
        finally:
            status = hunter.serving.end()
        problems += [f"process {pid} is left" for pid in settled(hunter.left_processes)]
        problems += [f"control group {path} is left" for path in settled(hunter.left_groups)]
        problems += [f"file {path} is left" for path in left_files(place.data, place.temporary)]
        if status:
            problems.append(f"the service ended with status {status}")
        if problems:
            told(place.errors()[-4000:])
    return problems


def _record_problems(data: Path, load: Load, hunter: Hunter, told: Callable[[str], None]) -> Iterator[str]:
    records, jobs, ends = read(data)
    lost = sum(job["lost"] for job in jobs.values())
    told(f"killed {dict(hunter.kills)}; jobs {Counter(job['state'] for job in jobs.values())}, attempts lost {lost}")
    with closing(records):
        yield from end_problems(load, jobs, ends, spoiled_max=hunter.kills["sandbox"])
        yield from usage_problems(records, jobs)
        if [tuple(row) for row in records.execute("PRAGMA integrity_check")] != [("ok",)]:
            yield "the records are damaged"
    ours = {each: job for each, job in jobs.items() if each in load.accepted}
    yield from kept_problems(load, ours)
    yield from told_problems(jobs, load.receiver)


def free_port() -> int:
    """One that nobody has just now: who comes after a supervisor that was killed has to be where that was.

    It is below those that the kernel gives to whoever asks for any: meanwhile somebody else would be given it.
    """
    while True:
        port = random.randrange(*OWN_PORTS)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


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
