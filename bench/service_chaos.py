"""`kill -9` of the API and of the node under load, by a seed: nothing that was accepted is without an end.

Clients of several tenants send what the service takes: runs that are waited for, followed, or asked for later, calls of
functions and batches. Each request has an idempotency key and is sent again for as long as it has no answer.
"""

from __future__ import annotations

import argparse
import http.client
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

import casemate
from bench.serving import Serving
from casemate.kernel.cgroup_types import CgroupUnavailable
from casemate.kernel.processes import is_running, process_tree, start_time

T = TypeVar("T")
TENANTS: Final = ("a", "b", "c")
CLIENTS_A_TENANT: Final = 2
REQUEST_TIMEOUT_S: Final = 60.0
AGAIN_AFTER_S: Final = 0.05
READY_TIMEOUT_S: Final = 60.0
AT_ONCE_SHARE: Final = 0.2
"""Of the kills hit while what was killed before is still on its way."""

MOMENT_MAX_S: Final = 0.5
BATCH_ITEMS: Final = 5
VICTIMS: Final = ("api", "node")
UNKNOWN: Final = "lost"
RETRIED: Final = frozenset({409, 429, 503})
FUNCTION: Final = {"runtime": "python", "code": "output = input + 1", "check": False}
PROGRAMS: Final = {
    "python": "import time\ntime.sleep(input / 50)\nprint(input)\noutput = input + 1",
    "javascript": "console.log(input); return input + 1",
    "bash": 'sleep 0.02; echo "$input"',
}
NO_ANSWER: Final = (http.client.HTTPException, ConnectionResetError, BrokenPipeError, TimeoutError)


class Answer(msgspec.Struct):
    """What a request was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(self.body)


class Client:
    """Sends requests of one tenant until they are answered. A refused connection is an error, unless it may be."""

    def __init__(self, address: str, key: str, *, may_be_refused: bool = False) -> None:
        self._address = address
        self._key = key
        self._passing = (*NO_ANSWER, ConnectionRefusedError) if may_be_refused else NO_ANSWER
        self.sent_again = 0

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """The answer, however often it takes."""
        until_s, last = time.monotonic() + REQUEST_TIMEOUT_S, ""
        while True:
            with suppress(*self._passing):
                answer = self._ask_once(method, path, body, headers)
                if answer.status not in RETRIED:
                    return answer
                last = f"{answer.status} {answer.body[:500]!r}"
            if time.monotonic() > until_s:
                raise TimeoutError(f"{method} {path} has no answer: {last}")
            self.sent_again += 1
            time.sleep(AGAIN_AFTER_S)

    def _ask_once(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Answer:
        with closing(http.client.HTTPConnection(self._address, timeout=REQUEST_TIMEOUT_S)) as connection:
            ours = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {**ours, **{_header(name): each for name, each in headers.items()}})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())


def _header(name: str) -> str:
    return name.replace("_", "-")


# Load ----------------------------------------------------------------------------------------------------


class Load:
    """What clients do, and what they saw. `accepted` are the ids of executions, with the reason they were told."""

    def __init__(self, address: str, operator: str, seed: int) -> None:
        self.accepted: dict[str, str | None] = {}
        self.requests: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.problems: list[str] = []
        self.sent_again = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._operator = Client(address, operator)
        self._threads = [
            threading.Thread(target=self._work, args=(Client(address, key), f"{seed}-{name}-{number}"))
            for name, key in zip(TENANTS, map(self._tenant, TENANTS), strict=True)
            for number in range(CLIENTS_A_TENANT)
        ]

    def _tenant(self, name: str) -> str:
        """A tenant with a function; its key."""
        tenant = self._operator.ask("POST", "/v1/tenants", {"name": name}).json()
        terms = {
            "tenant_id": tenant["id"],
            "name": "k",
            "scopes": {"allow": ["admin"]},
            "rate_per_s": 100_000,
            "burst": 1000,
        }
        key = self._operator.ask("POST", "/v1/keys", terms).json()
        text: str = key["key"]
        Client(self._operator._address, text).ask("PUT", "/v1/functions/f", FUNCTION)
        return text

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, client: Client, seed: str) -> None:
        chance = random.Random(seed)
        actions = (self._wait, self._follow, self._later, self._invoke, self._batch, self._list)
        number = 0
        while not self._stop.is_set():
            action = chance.choice(actions)
            number += 1
            try:
                action(client, chance, f"{seed}-{number}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told at the end
                self._problem(f"{action.__name__}: {type(error).__name__}: {error}")
            with self._lock:
                self.kinds[action.__name__.strip("_")] += 1
        with self._lock:
            self.sent_again += client.sent_again

    def _problem(self, text: str) -> None:
        with self._lock:
            self.problems.append(text)

    def _saw(self, identity: str, reason: str | None = None) -> None:
        with self._lock:
            self.accepted[identity] = reason or self.accepted.get(identity)

    def _post(self, client: Client, path: str, body: object, token: str, **headers: str) -> Answer:
        """Sent again under its key. One that was begun by a service that died is answered by where it is found."""
        with self._lock:
            self.requests.add(token)
        answer = client.ask("POST", path, body, Idempotency_Key=token, X_Request_Id=token, **headers)
        if answer.status == 303:
            answer = client.ask("GET", answer.headers["location"].removesuffix("/events"))
            self._execution(answer, None)
        elif answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {answer.body[:300]!r}")
        return answer

    def _execution(self, answer: Answer, expected: object) -> None:
        found = answer.json()
        result = found["result"]
        self._saw(found["id"], result and result["reason"])
        if result and result["reason"] == "exit" and expected is not None and result["output"] != expected:
            raise RuntimeError(f"{found['id']} has the wrong output: {result['output']!r}, not {expected!r}")

    def _code(self, chance: random.Random) -> tuple[dict[str, Any], object]:
        runtime = chance.choice(list(PROGRAMS))
        value = chance.randrange(20)
        code = {"runtime": runtime, "code": PROGRAMS[runtime], "input": value, "limits": {"timeout": 60}}
        return code, None if runtime == "bash" else value + 1

    def _wait(self, client: Client, chance: random.Random, token: str) -> None:
        code, expected = self._code(chance)
        self._execution(self._post(client, "/v1/executions", code, token), expected)

    def _later(self, client: Client, chance: random.Random, token: str) -> None:
        code, expected = self._code(chance)
        self._execution(self._post(client, "/v1/executions", code, token, Prefer="respond-async"), expected)

    def _follow(self, client: Client, chance: random.Random, token: str) -> None:
        """What was accepted is known from the first event, also if the stream is cut off behind it."""
        code, _ = self._code(chance)
        answer = self._post(client, "/v1/executions", code, token, Accept="text/event-stream")
        for data in (line.removeprefix(b"data: ") for line in answer.body.splitlines() if line.startswith(b"data: {")):
            told = json.loads(data)
            if "created_at" in told:
                self._execution(Answer(200, {}, data), None)

    def _invoke(self, client: Client, chance: random.Random, token: str) -> None:
        value = chance.randrange(1000)
        answer = self._post(client, "/v1/functions/f/invoke", {"data": value}, token)
        found = answer.json()
        if "success" in found:
            self._saw(found["id"], found["reason"])
            self._check_item(found, value + 1)

    def _batch(self, client: Client, chance: random.Random, token: str) -> None:
        values = [chance.randrange(1000) for _ in range(BATCH_ITEMS)]
        items = [{"id": str(at), "data": value} for at, value in enumerate(values)]
        found = self._post(client, "/v1/functions/f/batch", {"items": items}, token).json()
        if "results" in found:
            self._saw(found["id"])
            if [each["id"] for each in found["results"]] != [each["id"] for each in items]:
                raise RuntimeError(f"a batch has other items: {found}")
            for item, value in zip(found["results"], values, strict=True):
                self._check_item(item, value + 1)

    def _check_item(self, item: dict[str, Any], expected: object) -> None:
        if item["reason"] != UNKNOWN and not (item["success"] and item["output"] == expected):
            raise RuntimeError(f"an item has the wrong end: {item}")

    def _list(self, client: Client, chance: random.Random, _: str) -> None:
        for found in client.ask("GET", f"/v1/executions?limit={chance.randrange(1, 50)}").json()["items"]:
            self._saw(found["id"])


# Kills ---------------------------------------------------------------------------------------------------


class Killer:
    """Kills by a seed, and remembers every process that it saw below what it killed."""

    def __init__(self, serving: Serving, seed: int, groups: tuple[str, ...]) -> None:
        self._serving = serving
        self._chance = random.Random(seed)
        self._groups = groups
        self.kills: Counter[str] = Counter()
        self.seen: dict[int, int] = {}
        self.nodes: set[int] = set()
        self.recovered_s: list[float] = []

    def strike(self, kills: int, told: Callable[[str], None]) -> None:
        """So many kills, each at a moment of its own, and wait for all to be well."""
        while self.kills.total() < kills:
            if self._chance.random() >= AT_ONCE_SHARE:
                self._wait_ready()
            time.sleep(self._chance.uniform(0, MOMENT_MAX_S))
            victim = self._chance.choice(VICTIMS)
            self._note()
            pid = self._serving.child(victim)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.kills[victim] += 1
                told(f"{self.kills.total()} {victim} {pid}")
        self._wait_ready()
        self._note()

    def _note(self) -> None:
        node = self._serving.child("node")
        if node is not None:
            self.nodes.add(node)
        for pid in process_tree(self._serving.process.pid):
            began = start_time(pid)
            if began is not None:
                self.seen[pid] = began

    def _wait_ready(self) -> None:
        """Connections wait while the API is started again; none is refused."""
        began_s = time.monotonic()
        client = Client(self._serving.address, "")
        while client.ask("GET", "/readyz").status != 200:
            time.sleep(AGAIN_AFTER_S)
        self.recovered_s.append(time.monotonic() - began_s)

    def left_processes(self) -> list[int]:
        return [pid for pid, began in self.seen.items() if is_running(pid, began)]

    def left_groups(self) -> list[str]:
        """Control groups of any of the nodes."""
        return [
            str(path) for base in self._groups for pid in self.nodes for path in Path(base).glob(f"casemate-{pid}-*")
        ]


def group_places() -> tuple[str, ...]:
    """Where engines have their control groups. Asked ahead: an engine removes those of dead ones."""
    with casemate.Engine(warm=False) as engine:
        root = engine.backend.cgroups
        return () if isinstance(root, CgroupUnavailable) else tuple(map(str, root.search_paths))


# What is left --------------------------------------------------------------------------------------------


def record_problems(data: Path, load: Load) -> Iterator[str]:
    """What the records say otherwise than clients were told, and executions without an end."""
    with closing(sqlite3.connect(data / "records.sqlite")) as records:
        checked = records.execute("PRAGMA integrity_check").fetchall()
        if checked != [("ok",)] or records.execute("PRAGMA foreign_key_check").fetchall():
            yield f"the records are damaged: {checked}"
        rows = records.execute("SELECT id, state, reason, request_id, result, ended_us FROM executions").fetchall()
    known = {row[0]: row for row in rows}
    for identity, state, reason, *_, result, ended_us in rows:
        if state != "ended" or not reason or not result or not ended_us:
            yield f"{identity} has no end: {state}, {reason}"
    for identity, reason in load.accepted.items():
        if identity not in known:
            yield f"{identity} was accepted and is not there"
        elif reason is not None and known[identity][2] != reason:
            yield f"{identity} ended with {known[identity][2]}, and its client was told {reason}"
    done = Counter(request for _, _, reason, request, *_ in rows if reason != "internal")
    for request in load.requests:
        if done[request] > 1:
            ends = [row[2] for row in rows if row[3] == request]
            yield f"{request} was done {done[request]} times: {ends}"


def left_files(data: Path, temporary: Path) -> list[str]:
    """What is in places of files that come and go; the spool itself stays, and so does the base of jobs."""
    spool, base = data / "run/spool", data / "run/base"
    places = (temporary, data / "run", *([spool] if spool.exists() else []))
    return [str(path) for place in places for path in place.iterdir() if path not in {spool, base}]


def chaos(kills: int, seed: int, told: Callable[[str], None]) -> list[str]:
    """The problems found."""
    groups = group_places()
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        data, temporary = Path(directory) / "data", Path(directory) / "tmp"
        temporary.mkdir()
        with Serving(data, temporary) as serving:
            killer = Killer(serving, seed, groups)
            with Load(serving.address, serving.key, seed) as load:
                killer.strike(kills, told)
            status = serving.end()
        problems = [*load.problems, *record_problems(data, load)]
        problems += [f"process {pid} is left" for pid in settled(killer.left_processes)]
        problems += [f"control group {path} is left" for path in settled(killer.left_groups)]
        problems += [f"file {path} is left" for path in left_files(data, temporary)]
        if status:
            problems.append(f"the service ended with status {status}")
    told(f"killed {dict(killer.kills)}, requests {dict(load.kinds)}, sent again {load.sent_again}")
    told(f"executions seen {len(load.accepted)}, {UNKNOWN} {sum(each == UNKNOWN for each in load.accepted.values())}")
    if problems:
        told("\n".join(line for line in serving.log if '"level":"error"' in line or '"error":' in line))
    told(f"ready again within {max(killer.recovered_s):.1f} s")
    return problems


def settled(look: Callable[[], list[T]]) -> list[T]:
    """What is there still after the time that the kernel may take."""
    until_s = time.monotonic() + READY_TIMEOUT_S / 6
    while (found := look()) and time.monotonic() < until_s:
        time.sleep(AGAIN_AFTER_S)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills of the service's processes under load.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    problems = chaos(options.kills, options.seed, lambda text: print(text, flush=True))
    print("\n".join(problems[:50]) or "nothing was lost, and nothing is left")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
