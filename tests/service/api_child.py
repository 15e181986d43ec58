"""Stands in the API's place: serves one line over the socket that it was given, and tells what it knows."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from casemate.cluster.lifeline import watch


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    for name in ("lifeline", "socket", "announce"):
        parser.add_argument(f"--{name}-fd", type=int)
    arguments = parser.parse_args()
    if (arguments.data / "crash").exists():
        sys.exit(3)
    ended = asyncio.Event()
    if not (arguments.data / "stubborn").exists():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        watch(arguments.lifeline_fd, ended.set)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"pid": os.getpid(), "environment": dict(os.environ)}).encode() + b"\n")
        writer.close()

    import socket

    listener = socket.socket(fileno=arguments.socket_fd)
    await asyncio.start_server(answer, sock=listener)
    first = not (arguments.data / "known").exists()
    (arguments.data / "known").touch()
    lines = [{"operator_key": "cm_test"}] if first else []
    os.write(arguments.announce_fd, b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, {"ready": True}]))
    await ended.wait()


asyncio.run(main())
