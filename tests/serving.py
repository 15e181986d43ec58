"""A service of its own for tests, and a network between it and its clients that breaks."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, Self
from urllib.parse import urlsplit

READY = re.compile(r"ready on (http://\S+)")
KEY = re.compile(r"\bcm_\w+")
END_TIMEOUT_S = 30
PIECE_BYTES = 4096


class Service(NamedTuple):
    """Where it is, the operator's key, and its supervisor."""

    url: str
    key: str
    process: subprocess.Popen[str]


@contextmanager
def serving(data: Path, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`casemate serve` on a free port, until the end of the block."""
    command = [sys.executable, "-m", "casemate", "serve", "--data", str(data), "--port", "0"]
    with (data.parent / f"{data.name}.log").open("w", buffering=1) as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            assert process.stderr is not None
            url, key = _announced(process.stderr, log)
            reader = threading.Thread(target=_passed_on, args=(process.stderr, log))
            reader.start()
            yield Service(url, key, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(END_TIMEOUT_S)
        reader.join(END_TIMEOUT_S)
        process.stderr.close()


def _announced(stderr: IO[str], log: IO[str]) -> tuple[str, str]:
    key = ""
    said = []
    for line in stderr:
        said.append(line)
        log.write(line)
        if "key" in line and (found := KEY.search(line)):
            key = found[0]
        if ready := READY.search(line):
            return ready[1], key
    raise AssertionError("the service did not start:\n" + "".join(said))


def _passed_on(source: IO[str], target: IO[str]) -> None:
    for line in source:
        target.write(line)


class CuttingProxy:
    """Passes connections on to a service, and cuts each after a number of bytes that `budget` chooses.

    None lets it live. Bytes in both directions count.
    """

    def __init__(self, url: str, seed: int = 0, most_bytes: int = 4000) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._target = (parts.hostname, parts.port)
        self._random = random.Random(seed)
        self._most_bytes = most_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self.cuts = 0
        self.cuts_left: int | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def budget(self) -> int | None:
        """After how many bytes the next connection is cut."""
        if self.cuts_left is not None and self.cuts_left <= 0:
            return None
        return self._random.randrange(self._most_bytes)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._start(self._pass_on, near, self.budget())

    def _pass_on(self, near: socket.socket, budget: int | None) -> None:
        far = socket.create_connection(self._target)
        self._open |= {near, far}
        left = [budget]
        lock = threading.Lock()
        back = threading.Thread(target=self._copy, args=(far, near, left, lock), daemon=True)
        back.start()
        self._copy(near, far, left, lock)
        back.join()
        for each in (near, far):
            self._open.discard(each)
            each.close()

    def _copy(self, source: socket.socket, target: socket.socket, left: list[int | None], lock: threading.Lock) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                with lock:
                    allowed = left[0]
                    if allowed is not None:
                        left[0] = max(0, allowed - len(data))
                if allowed is None or len(data) <= allowed:
                    target.sendall(data)
                    continue
                target.sendall(data[:allowed])
                self._cut()
                break
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        self.cuts += 1
        if self.cuts_left is not None:
            self.cuts_left -= 1

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(END_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
