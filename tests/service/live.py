"""The real service as tests meet it: `casemate serve` on a port of its own, tenants, keys, and clients over HTTP."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import httpx2

START_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 30.0
ANSWER_TIMEOUT_S: Final = 60.0
OFTEN: Final = {"rate_per_s": 100_000.0, "burst": 100_000}
"""Rates of keys where rates are not what is tested."""

CONFIG: Final = """
[service]
environment = "test"
location = "here"
tags = {Environment = "test", Project = "casemate"}
concurrency = 3
request_max = "8Mi"
rate = 100000
burst = 100000

[service.maximum]
memory = "1Gi"
timeout = "30s"

[languages.python]
memory = 1024
timeout = 65

[languages.js]
memory = 512
timeout = 65

[languages.r]
memory = 1024
timeout = 65
"""
_READY: Final = re.compile(r"ready on (http://\S+)")
_KEY: Final = re.compile(r"kept nowhere: (cm_\S+)")
_NUMBERS: Final = itertools.count(1)


class Tenant(NamedTuple):
    """A tenant with a key that may do everything that a tenant may, and a client that sends it."""

    id: str
    name: str
    key: str
    http: httpx2.Client


class LiveService:
    """`casemate serve` as a process. Made by `serving`."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        self.process = process
        self.data = data
        self.url = ""
        self.operator_key = ""
        self.lines: list[str] = []
        self.has_ended = False
        self._said = threading.Condition()
        self._clients: list[httpx2.Client] = []

    def read(self, stream: IO[str]) -> None:
        """Take what it says, until it says no more."""
        for line in stream:
            with self._said:
                self.lines.append(line.rstrip("\n"))
                if found := _KEY.search(line):
                    self.operator_key = found[1]
                if found := _READY.search(line):
                    self.url = found[1]
                self._said.notify_all()
        with self._said:
            self.has_ended = True
            self._said.notify_all()

    def wait_until_ready(self, slowness: float = 1.0) -> None:
        """Wait for an address. Raises AssertionError with all that it said if there is none."""
        with self._said:
            self._said.wait_for(lambda: self.url or self.has_ended, START_TIMEOUT_S * slowness)
        assert self.url, "\n".join(self.lines)
        self.operator = self.client(self.operator_key)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log so far; every one has to be a JSON object."""
        found = [json.loads(line) for line in list(self.lines) if not line.startswith("casemate: ")]
        assert all(type(each) is dict for each in found)
        return found

    def logged(self, **values: Any) -> dict[str, Any]:
        """A line of the log that holds these, when it comes."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [each for each in self.log() if values.items() <= each.items()]
            return bool(found) or self.has_ended

        with self._said:
            self._said.wait_for(is_there, ANSWER_TIMEOUT_S)
        assert found, f"nothing logged holds {values}"
        return found[0]

    def client(self, key: str | None = None, **headers: str) -> httpx2.Client:
        """A client that sends that key; closed with the service."""
        given = {**headers, **({} if key is None else {"Authorization": f"Bearer {key}"})}
        made = httpx2.Client(base_url=self.url, headers=given, timeout=ANSWER_TIMEOUT_S, trust_env=False)
        self._clients.append(made)
        return made

    def tenant(self, name: str = "", **terms: Any) -> Tenant:
        """A new tenant."""
        name = name or f"tenant-{next(_NUMBERS)}"
        made = answered(self.operator.post("/v1/tenants", json={"name": name, **terms}), 201)
        key = self.key(made["id"], "admin")
        return Tenant(made["id"], name, key, self.client(key))

    def key(self, tenant_id: str, *allow: str, deny: tuple[str, ...] = (), **terms: Any) -> str:
        """A new key of a tenant."""
        return str(self.new_key(tenant_id, *allow, deny=deny, **terms)["key"])

    def new_key(self, tenant_id: str, *allow: str, deny: tuple[str, ...] = (), **terms: Any) -> dict[str, Any]:
        """The same with all that is said of it."""
        scopes = {"allow": list(allow), "deny": list(deny)}
        body = {"name": "for a test", "tenant_id": tenant_id, "scopes": scopes, **OFTEN, **terms}
        made: dict[str, Any] = answered(self.operator.post("/v1/keys", json=body), 201)
        return made

    def running_count(self) -> int:
        """How many executions have a turn now."""
        return int(self.gauge("casemate_executions_running"))

    def gauge(self, name: str) -> float:
        """What Prometheus would read."""
        text = self.operator.get("/metrics").text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    def close_clients(self) -> None:
        for each in self._clients:
            each.close()


@contextmanager
def serving(
    data: Path, *, config: str = CONFIG, environment: Mapping[str, str] | None = None, slowness: float = 1.0
) -> Iterator[LiveService]:
    """The service over an empty directory, until the end of the block."""
    file = data.parent / f"{data.name}.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "casemate", "serve", "--data", str(data), "--port", "0", "--config", str(file)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    service = LiveService(process, data)
    assert process.stderr is not None
    reader = threading.Thread(target=service.read, args=(process.stderr,))
    reader.start()
    try:
        service.wait_until_ready(slowness)
        yield service
    finally:
        service.close_clients()
        process.send_signal(signal.SIGTERM)
        process.wait(END_TIMEOUT_S * slowness)
        reader.join(END_TIMEOUT_S)
        process.stderr.close()


def answered(response: httpx2.Response, status: int = 200) -> Any:
    """What it was answered, where it was answered with that status."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:2000]}"
    return response.json()


def refused(response: httpx2.Response, status: int, code: str = "", field: str = "") -> dict[str, Any]:
    """The problem, in the one shape that problems have."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:2000]}"
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert {*found} - {"field"} == {"code", "message", "hint", "request_id"}
    assert found["request_id"] == response.headers["x-request-id"]
    assert found["message"]
    if code:
        assert found["code"] == code, found
    if field:
        assert found["field"] == field, found
    return found


def events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Server-sent events as (kind, id, data)."""
    kind = identity = ""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            identity = value
        elif name == "data":
            data.append(value)
        elif not line and data:
            yield kind, identity, json.loads("\n".join(data))
            kind, data = "", []
