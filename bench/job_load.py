"""What clients do in a chaos of jobs, and what they must find afterwards.

Each job has an id of its client's, and is submitted again and again until that is answered. Its id and its program say
what has to become of it: its state, its log, its files.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from bench.service_chaos import Answer, Client

CLIENTS: Final = 3
CANCELLED_SHARE: Final = 0.1
LINES: Final = 20
FILE_BYTES: Final = 300_000
FILE: Final = b"0123456789" * (FILE_BYTES // 10)
DIGEST: Final = hashlib.sha256(FILE).hexdigest()
TERMS: Final = {"concurrency_max": 1000, "queue_max": 100_000}
PAUSE_MAX_S: Final = 0.01
HANGS_S: Final = 1.5
"""In which a shell has printed a line, however many others want the processor."""

REFUSED_SHARE: Final = 0.05
NUMBERS: Final = tuple(f"line {number}" for number in range(LINES))
WRITES: Final = f"i=0; while [ $i -lt {FILE_BYTES // 10} ]; do echo -n 0123456789; i=$((i+1)); done > output/file"


class Program:
    """A job, and what it prints and ends as where nobody is in its way. `file`: what it leaves behind."""

    def __init__(
        self, body: dict[str, Any], ends: frozenset[str], lines: tuple[str, ...] = (), file: str = "", attempts: int = 1
    ) -> None:
        self.body = body
        self.ends = ends
        self.lines = lines
        self.file = file
        self.attempts = attempts


WELL: Final = frozenset({"succeeded"})
PROGRAMS: Final = {
    "prints": Program({"command": ["echo", "hello"]}, WELL, ("hello",)),
    "counts": Program(
        {"command": f"i=0; while [ $i -lt {LINES} ]; do echo line $i; sleep 0.01; i=$((i+1)); done", "shell": True},
        WELL,
        NUMBERS,
    ),
    "writes": Program({"command": WRITES, "shell": True}, WELL, file="output/file"),
    "collects": Program(
        {"command": "cat input/a > made.txt", "shell": True, "collect": ["*.txt"]}
        | {"files": [{"path": "a", "content": FILE.decode()}]},
        WELL,
        file="artifacts/made.txt",
    ),
    "fails": Program(
        {"command": ["sh", "-c", "echo no; exit 3"], "retries": {"max": 1, "backoff": 0.05}},
        frozenset({"dead"}),
        ("no",),
        attempts=2,
    ),
    "hangs": Program(
        {"command": ["sh", "-c", "echo begun; sleep 1000 & sleep 1000"], "timeout": HANGS_S},
        frozenset({"failed"}),
        ("begun",),
    ),
}


class Receiver(ThreadingHTTPServer):
    """Where notices go. Some are refused, so that they have to come again."""

    daemon_threads = True

    def __init__(self, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.chance = random.Random(seed)
        self.told: Counter[tuple[str, str]] = Counter()
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        self.shutdown()
        self._thread.join()
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        data = self.rfile.read(size)
        if len(data) != size:  # who sent it was killed
            return
        found = json.loads(data)
        with self.server.lock:
            is_taken = self.server.chance.random() >= REFUSED_SHARE
            if is_taken:
                self.server.told[found["data"]["id"], found["kind"]] += 1
        self.send_response(200 if is_taken else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Load:
    """What clients have submitted and cancelled. `problems` is what they saw that must not be."""

    def __init__(self, address: str, operator: str, receiver: Receiver, count: int, seed: int) -> None:
        self.accepted: dict[str, Program] = {}
        self.cancelled: set[str] = set()
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._address = address
        self.receiver = receiver
        self.key = self._tenant(operator, receiver)
        self._threads = [
            threading.Thread(target=self._work, args=(number, count // CLIENTS, random.Random(f"{seed}-{number}")))
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _tenant(self, key: str, receiver: Receiver) -> str:
        operator = Client(self._address, key)
        tenant = operator.ask("POST", "/v1/tenants", {"name": "chaos", **TERMS}).json()
        terms = {"tenant_id": tenant["id"], "name": "k", "scopes": {"allow": ["admin"]}}
        made = operator.ask("POST", "/v1/keys", {**terms, "rate_per_s": 1e5, "burst": 10_000}).json()
        self.tenant_id = tenant["id"]
        wanted = {"url": f"http://{receiver.place}/", "events": ["job.*"]}
        self.webhook_id = Client(self._address, made["key"]).ask("POST", "/v1/webhooks", wanted).json()["id"]
        return str(made["key"])

    @property
    def is_done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Of the tenant."""
        return Client(self._address, self.key, may_be_refused=True).ask(method, path, body)

    def _work(self, client_number: int, count: int, chance: random.Random) -> None:
        for number in range(count):
            name = chance.choice(list(PROGRAMS))
            job_id = f"{name}-{client_number}-{number}"
            try:
                self._submit(job_id, PROGRAMS[name])
                if chance.random() < CANCELLED_SHARE:
                    time.sleep(chance.uniform(0, 10 * PAUSE_MAX_S))
                    self._cancel(job_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
                self.problems.append(f"{job_id}: {type(error).__name__}: {error}")
            time.sleep(chance.uniform(0, PAUSE_MAX_S))

    def _submit(self, job_id: str, program: Program) -> None:
        answer = self.ask("POST", "/v1/jobs", {**program.body, "id": job_id})
        if answer.status not in {200, 202}:
            raise RuntimeError(f"{answer.status} {answer.body[:200]!r}")
        with self._lock:
            self.accepted[job_id] = program

    def _cancel(self, job_id: str) -> None:
        answer = self.ask("POST", f"/v1/jobs/{job_id}/cancel")
        if answer.status not in {200, 202}:
            raise RuntimeError(f"cancelling: {answer.status} {answer.body[:200]!r}")
        with self._lock:
            self.cancelled.add(job_id)


# What is found afterwards ---------------------------------------------------------------------------------


def log_problems(load: Load, job_id: str, *, is_whole: bool) -> Iterator[str]:
    """Each attempt has printed the lines of its program, in order, none twice; one that is whole all of them."""
    program = load.accepted[job_id]
    items = load.ask("GET", f"/v1/jobs/{job_id}/logs?limit=200").json()["items"]
    numbers = [each["seq"] for each in items]
    if numbers != sorted(set(numbers)):
        yield f"{job_id} has lines {numbers}"
    attempts: dict[int, list[str]] = {}
    for each in items:
        attempts.setdefault(each["attempt"], []).append(each.get("text", ""))
    for attempt, lines in attempts.items():
        if tuple(lines) != program.lines[: len(lines)]:
            yield f"{job_id} printed {lines} in attempt {attempt}"
    if is_whole and tuple(attempts.get(max(attempts, default=0), ())) != program.lines:
        yield f"{job_id} has the log {attempts}"


def file_problems(load: Load, job_id: str, *, is_whole: bool) -> Iterator[str]:
    """A file is all there, or not at all."""
    program = load.accepted[job_id]
    if not program.file:
        return
    answer = load.ask("GET", f"/v1/jobs/{job_id}/files/{program.file}")
    if answer.status == 404 and not is_whole:
        return
    # A program that was killed on its way leaves what it has written so far.
    is_right = hashlib.sha256(answer.body).hexdigest() == DIGEST if is_whole else FILE.startswith(answer.body)
    if answer.status != 200 or not is_right:
        yield f"{job_id} has a file of {len(answer.body)} bytes, status {answer.status}"
