"""`python -m casemate.api`: the API as a process, started by the supervisor and ended with it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog
import uvicorn

from casemate import service_limits as limits
from casemate.api.app import create_app
from casemate.api.job_parts import Needed, holder_of, opened_jobs
from casemate.api.load import Load
from casemate.api.log import log_to_stderr
from casemate.api.measures import Measures
from casemate.api.protocol import BoundedProtocol
from casemate.api.state import State
from casemate.api.storage import Storage, open_storage
from casemate.api.upkeep import Upkeep
from casemate.clock import now_us
from casemate.cluster.lifeline import watch
from casemate.cluster.local import LocalBus
from casemate.cluster.tls import tls_context
from casemate.config import load_config
from casemate.errors import CasemateError, Conflict
from casemate.executions.book import Book
from casemate.executions.checks import Checks
from casemate.executions.service import Executions
from casemate.functions.calls import Calls, log_to
from casemate.functions.published import Functions
from casemate.jobs.config import JobSettings, load_jobs
from casemate.jobs.flows import open_flows
from casemate.jobs.log_keeper import open_logs
from casemate.jobs.logs import Logs
from casemate.queue.gate import Gate
from casemate.service_config import NODE_SOCKET, Service, load_service
from casemate.store.database import Database
from casemate.tenancy.budgets import Budgets
from casemate.tenancy.delivery import Delivery
from casemate.tenancy.destinations import configured
from casemate.tenancy.secrets import open_signing
from casemate.tenancy.tenants import Tenancy
from casemate.tenancy.usage import BudgetWatch, Meter
from casemate.tenancy.webhooks import Notices, Webhooks

RECORDS: Final = "records.sqlite"
_OURS_ALONE: Final = 0o077
_LOG: Final = structlog.get_logger("casemate.api")


def main() -> None:
    """Serve until a signal asks to end, or the supervisor is gone."""
    parser = argparse.ArgumentParser(prog="casemate.api")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--announce-fd", type=int, default=-1)
    arguments = parser.parse_args()
    os.umask(_OURS_ALONE)
    try:
        config = load_config()
        service, settings = load_service(config), load_jobs(config)
        log_to_stderr(service.log_level)
        asyncio.run(serve(service, settings, arguments))
    except CasemateError as error:
        _LOG.critical("cannot serve", code=error.code, reason=str(error))
        if isinstance(error, Conflict):
            _announce(arguments.announce_fd, refused=error.message, hint=error.hint)
        sys.exit(1)


async def serve(service: Service, settings: JobSettings, arguments: argparse.Namespace) -> None:
    """Answer until a signal or the end of the lifeline; what runs has its Result when this returns."""
    async with opened(service, settings, arguments.data) as parts:
        key = await parts.tenancy.first_start()
        _announce(arguments.announce_fd, operator_key=key or "")
        server = Server(parts, service, lambda: _announce(arguments.announce_fd, ready=True))
        watch(arguments.lifeline_fd, server.end_now)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.end)
        listener = socket.socket(fileno=arguments.socket_fd)
        gc.collect()
        gc.freeze()  # what is here stays, and is not to be looked through again and again
        await server.serve([listener])


@asynccontextmanager
async def opened(service: Service, settings: JobSettings, data: Path) -> AsyncIterator[State]:
    """The parts of the service, closed in the reverse of the order in which they need each other."""
    database = Database.open(service.database or data / RECORDS, owner=holder_of(data))
    try:
        epoch = now_us()
        notices = Notices()
        policy = configured(service.accounting.webhook_hosts)
        meter = Meter(database, service.accounting, notices)
        book = Book(database, epoch, meter=meter)
        left_behind = await book.end_those_left_behind()
        if left_behind:
            _LOG.warning("executions of a service that died are lost", count=left_behind)
        tenancy, signing = Tenancy(database), open_signing(data)
        storage = await open_storage(service.objects, data, database, signing, tenancy)
        measures = Measures()
        async with (
            LocalBus(data / NODE_SOCKET) as bus,
            _logs(settings, database, storage, measures) as logs,
            open_flows(database, measures.observe_flow) as flows,
        ):
            gate = Gate(service.concurrency, waiting_max=service.queue)
            needed = Needed(
                database=database,
                bus=bus,
                storage=storage,
                logs=logs,
                meter=meter,
                notices=notices,
                flows=flows,
                measures=measures.jobs,
            )
            delivery = Delivery(database, signing, policy, on_settled=measures.observe_notice)
            notices.when_posted(delivery.wake)
            async with opened_jobs(settings, service.maximum, data, needed) as jobs:
                parts = State(
                    config=service,
                    logs=logs,
                    flows=flows,
                    database=database,
                    bus=bus,
                    tenancy=tenancy,
                    signing=signing,
                    executions=Executions(book, bus, gate, maximum=service.maximum, on_end=measures.observe_end),
                    checks=Checks(bus, gate, service.patterns),
                    functions=Functions(database),
                    calls=Calls(
                        book, bus, gate, maximum=service.maximum, log=log_to(database), on_end=measures.observe_end
                    ),
                    measures=measures,
                    load=Load(service.request_max_bytes),
                    storage=storage,
                    jobs=jobs.jobs,
                    schedules=jobs.schedules,
                    meter=meter,
                    budgets=Budgets(database),
                    notices=notices,
                    webhooks=Webhooks(database, notices, policy),
                )
                async with Upkeep(parts), BudgetWatch(meter, parts.deny_all_of, parts.live), delivery:
                    yield parts
    finally:
        await database.close()


def _logs(
    settings: JobSettings, database: Database, storage: Storage, measures: Measures
) -> AbstractAsyncContextManager[Logs]:
    return open_logs(
        database,
        storage.blobs,
        kept_max_bytes=settings.log_max_bytes,
        rules=settings.log_rules,
        on_mistake=measures.jobs.observe_log_mistake,
    )


class Server(uvicorn.Server):
    """uvicorn on a socket that somebody else keeps; it ends when we say so, not by handlers of signals of its own."""

    def __init__(self, parts: State, service: Service, on_ready: Callable[[], None]) -> None:
        self._parts = parts
        self._drain_s = service.drain_s
        self._on_ready = on_ready
        self._ending: asyncio.Task[None] | None = None
        tls = tls_context(service)
        super().__init__(
            uvicorn.Config(
                create_app(parts),
                log_config=None,
                access_log=False,
                lifespan="off",
                http=BoundedProtocol,
                loop="asyncio",
                ws="none",
                server_header=False,
                proxy_headers=bool(service.proxies),
                forwarded_allow_ips=list(service.proxies),
                timeout_keep_alive=limits.KEEP_ALIVE_S,
                timeout_graceful_shutdown=limits.STREAMS_END_S,
                limit_concurrency=limits.CONNECTIONS_MAX,
                backlog=limits.BACKLOG,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to `serve`, which has something to end before this server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self._on_ready()

    def end(self) -> None:
        """Take nothing more; let what runs come to its end, then go. Idempotent."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end())

    def end_now(self) -> None:
        """The supervisor is gone, and the node with it: nothing that runs comes to its end, and another may begin."""
        self._drain_s = 0.0
        self.end()

    async def _end(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._parts.executions.close(self._drain_s))
            group.create_task(self._parts.calls.drain(self._drain_s))
            group.create_task(self._parts.jobs.dispatcher.close(self._drain_s))
        self.should_exit = True


def _announce(fd: int, *, operator_key: str = "", ready: bool = False, refused: str = "", hint: str = "") -> None:
    """A line for the supervisor, which tells people."""
    if fd >= 0 and (operator_key or ready or refused):
        told = {"operator_key": operator_key, "ready": ready, "refused": refused, "hint": hint}
        os.write(fd, msgspec.json.encode(told) + b"\n")


if __name__ == "__main__":
    main()
