"""The service as a process for measurements and chaos: `python -m bench.serving`, configured by its environment.

As `casemate serve`, but however often its processes are killed, they are started again at once.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

from casemate.cluster.supervisor import Patience, Supervisor
from casemate.config import load_config
from casemate.kernel.processes import command_line
from casemate.service_config import load_service

TIRELESS: Final = Patience(crashes_max=100_000, pause_min_s=0.02, pause_max_s=0.05)
START_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 30.0
KEY_WORDS: Final = "kept nowhere: "


class Serving:
    """The service on a free port of the loopback, with records of its own; ended with the block."""

    def __init__(self, data: Path, temporary: Path | None = None, *, key: str = "", **settings: str) -> None:
        """`key`: the operator's, of records that are there already."""
        self.data = data
        variables = {"CASEMATE_SERVICE_DATA": str(data), "CASEMATE_SERVICE_PORT": "0", "CASEMATE_SERVICE_DRAIN": "2s"}
        if temporary is not None:
            variables["TMPDIR"] = str(temporary)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.serving"],
            stderr=subprocess.PIPE,
            env={**os.environ, **variables, **settings},
            text=True,
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,))
        self._reader.start()
        self.key = key or self._until(KEY_WORDS)
        self.address = self._until("ready on http://")

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.log.append(line.rstrip("\n"))
            self._lines.put(self.log[-1])
        self._lines.put(None)

    def _until(self, words: str) -> str:
        """What stands behind these words."""
        while (line := self._lines.get(timeout=START_TIMEOUT_S)) is not None:
            if words in line:
                return line.partition(words)[2]
        raise RuntimeError("the service has ended: " + "\n".join(self.log[-20:]))

    def child(self, name: str) -> int | None:
        """The process of the API or of the node, if it is there."""
        return next((pid for pid in children(self.process.pid) if f"casemate.{name}" in command_line(pid)), None)

    def end(self) -> int:
        """Ask it to end; its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(END_TIMEOUT_S)
        finally:
            self.process.kill()
            self._reader.join(END_TIMEOUT_S)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def children(pid: int) -> list[int]:
    """Those of all its threads, as far as it is still there."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def main() -> None:
    """Serve until told to end."""
    environment = dict(os.environ)
    service = load_service(load_config(environment), environment)
    Supervisor(service, environment, lambda text: print(text, file=sys.stderr, flush=True), patience=TIRELESS).run()


if __name__ == "__main__":
    main()
