"""A supervisor in a process of its own, with the real node and a small child in the API's place."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final, Self

from casemate.kernel.processes import process_tree

WAIT_S: Final = 30.0
CHILD: Final = Path(__file__).parent / "api_child.py"
PROGRAM: Final = """
import os, sys
from pathlib import Path
from casemate.config import Config
from casemate.service_config import load_service
from casemate.cluster.supervisor import Patience, Supervisor, module_command
environment = dict(os.environ)
service = load_service(Config(), environment)
modules = {"node": module_command("casemate.node"), "api": [sys.executable, sys.argv[1]]}
patience = Patience(crashes_max=3, pause_min_s=0.01, end_s=float(sys.argv[2]))
say = lambda text: print(text, file=sys.stderr, flush=True)
from casemate.errors import CasemateError
try:
    Supervisor(service, environment, say, modules=modules, patience=patience).run()
except CasemateError as error:
    say(f"error {error.code}: {error}")
    sys.exit(125)
"""


class Serving:
    """`lines` are what it says; each can be waited for once. A part that has not ended in `end_s` is killed."""

    def __init__(self, data: Path, end_s: float = WAIT_S, **environment: str) -> None:
        self.data = data
        variables = {"CASEMATE_SERVICE_DATA": str(data), "CASEMATE_SERVICE_PORT": "0", "CASEMATE_SERVICE_DRAIN": "1s"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(CHILD), str(end_s)],
            stderr=subprocess.PIPE,
            env={**os.environ, **variables, "A_SECRET": "of ours", **environment},
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, part: str) -> str:
        """The next line that holds `part`."""
        while (line := self._queue.get(timeout=WAIT_S)) is not None:
            self.lines.append(line)
            if part in line:
                return line
        raise AssertionError(f"nothing says {part!r}:\n" + "\n".join(self.lines))

    def ready(self) -> tuple[str, int]:
        """Where it serves, once it does."""
        host, _, port = self.until("ready on ").partition("http://")[2].rpartition(":")
        return host, int(port)

    def ask(self, address: tuple[str, int]) -> dict[str, Any]:
        """What the API's stand-in tells."""
        with socket.create_connection(address, timeout=WAIT_S) as connection, connection.makefile() as lines:
            told: dict[str, Any] = json.loads(lines.readline())
            return told

    def children(self) -> list[int]:
        """All processes below it."""
        return [pid for pid in process_tree(self.process.pid) if pid != self.process.pid]

    def node_pid(self) -> int:
        """The node's process."""
        for pid in process_tree(self.process.pid):
            if b"casemate.node" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        raise AssertionError("there is no node")

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
