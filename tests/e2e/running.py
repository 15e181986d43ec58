"""The real service in processes of its own, on a port of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Final, Self

WAIT_S: Final = 60.0


class RunningService:
    """`casemate serve` with a data directory of its own; `key` is the operator's."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "casemate", "serve", "--data", str(data), "--port", "0"],
            stderr=subprocess.PIPE,
            env={**os.environ, "CASEMATE_SERVICE_DRAIN": "2s", **environment},
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()
        self.key = self._until("operator's key").rpartition(" ")[2]
        self.url = self._until("ready on ").rpartition("ready on ")[2].strip()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def _until(self, part: str) -> str:
        while (line := self._queue.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if part in line:
                return line
        raise AssertionError(f"nothing says {part!r}:\n" + "\n".join(self.lines))

    def ask(self, method: str, path: str, body: object = None, key: str = "") -> Any:
        """What the API answers; its problem, where it refuses."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read() or b"null")

    def end(self) -> float:
        """Tell it to end, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()
        self._reader.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
