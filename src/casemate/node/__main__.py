"""`python -m casemate.node`: the node as a process, started by the supervisor and ended with it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Final

from casemate.cluster.lifeline import watch
from casemate.cluster.server import NodeServer
from casemate.engine.engine import Engine
from casemate.errors import CasemateError
from casemate.node.daemon import Node
from casemate.node.log import log_to_stderr
from casemate.service_config import NODE_SOCKET, NODE_SPOOL

_OURS_ALONE: Final = 0o077
_LOG: Final = logging.getLogger(__name__)


def main() -> None:
    """Serve until a signal asks to end, or the supervisor is gone."""
    parser = argparse.ArgumentParser(prog="casemate.node")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    os.umask(_OURS_ALONE)
    log_to_stderr(arguments.log_level)
    try:
        with Engine() as engine:
            asyncio.run(serve(engine, arguments.data, arguments.lifeline_fd))
    except CasemateError as error:
        _LOG.critical("%s", error)
        sys.exit(1)


async def serve(engine: Engine, data: Path, lifeline_fd: int) -> None:
    """Answer below `data` until a signal or the end of the lifeline; all runs have ended when this returns."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    watch(lifeline_fd, ended.set)
    node = Node(engine, data / NODE_SPOOL)
    await node.try_out()
    async with NodeServer(node.handle).listening(data / NODE_SOCKET):
        _LOG.info("ready")
        await ended.wait()
    _LOG.info("ended")


if __name__ == "__main__":
    main()
