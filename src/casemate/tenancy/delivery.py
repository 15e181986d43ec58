"""Notices are sent from the outbox, signed, and again until somebody takes them.

A name is looked up once for each attempt, what it leads to is checked, and that very address is connected to: nobody
who may subscribe reaches what only this machine or its network can. Redirects are not followed. Each event comes at
least once; its id tells when it comes again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import structlog

from casemate import __version__
from casemate import account_limits as bound
from casemate.clock import now_us
from casemate.egress.rules import HostRule, Policy, reachable
from casemate.errors import CasemateError
from casemate.model.signature import sign
from casemate.model.units import SECOND_US
from casemate.recurring import Recurring
from casemate.store import webhooks as rows
from casemate.store.database import Database
from casemate.store.webhooks import DELIVERED, FAILED, WAITING, Notice
from casemate.tenancy.destinations import Place, place_of
from casemate.tenancy.secrets import Signing, webhook_text

if TYPE_CHECKING:
    import httpx2

GONE: Final = 410
_GOOD: Final = range(200, 300)
_ELSEWHERE: Final = range(300, 400)
_LOG: Final = structlog.get_logger("casemate.notices")
Resolve = Callable[[str, int], list[str]]
"""The addresses of a host, as texts. Raises OSError."""


class NotTaken(Exception):
    """An attempt has failed; the text says why. `is_final`: another would, too."""

    def __init__(self, problem: str, *, is_final: bool = False) -> None:
        super().__init__(problem)
        self.is_final = is_final


def look_up(host: str, port: int) -> list[str]:
    """By the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def pause_s(attempts: int) -> float:
    """Until the next attempt, after so many: twice as long each time, up to a bound. Pure."""
    return float(min(bound.NOTICE_PAUSE_MAX_S, bound.NOTICE_PAUSE_FIRST_S * 2 ** (attempts - 1)))


def signed_headers(signing: Signing, notice: Notice, timestamp: str) -> dict[str, str]:
    """What shows that a notice is ours: a code by each secret that is in use, so that one can be replaced."""
    secrets = map(webhook_text, signing.notice_secrets(notice.webhook_id))
    codes = [sign(secret, timestamp, notice.body.encode()) for secret in secrets]
    return {
        "X-Casemate-Webhook-Id": notice.webhook_id,
        "X-Casemate-Event-Id": notice.event_id,
        "X-Casemate-Event": notice.kind,
        "X-Casemate-Timestamp": timestamp,
        "X-Casemate-Signature": ", ".join(codes),
    }


class Delivery:
    """Sends for as long as it is open. `wake` it when there may be something new."""

    def __init__(
        self,
        database: Database,
        signing: Signing,
        policy: Policy,
        *,
        resolve: Resolve = look_up,
        clock: Callable[[], int] = now_us,
        timeout_s: float = bound.NOTICE_TIMEOUT_S,
        on_settled: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._signing = signing
        self._policy = policy
        self._resolve = resolve
        self._clock = clock
        self._timeout_s = timeout_s
        self._on_settled = on_settled
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx2.AsyncClient | None = None
        self._looking = Recurring(self._look, name="notices", pause_s=bound.NOTICE_LOOK_S)
        self._lookups = ThreadPoolExecutor(bound.NOTICE_LOOKUPS_AT_ONCE, thread_name_prefix="casemate-names")

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._looking.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._looking.end()
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """There may be something to be sent. From any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended; the next start sends what is left
                self._loop.call_soon_threadsafe(self._woken.set)

    async def _look(self) -> None:
        wait_s = await self._begin_those_due()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
                self._woken.clear()
                await asyncio.sleep(bound.NOTICE_COMMITTED_S)

    async def _begin_those_due(self) -> float:
        """Begin to send what there is room for, and say when to look again."""
        at_us = self._clock()
        busy = set(self._sending)  # before it is read: one that ends meanwhile still is waiting in what is read
        found = await self._database.read(
            lambda records: rows.due(records, at_us=at_us, limit=bound.NOTICES_AT_ONCE + len(busy))
        )
        waiting = [(notice, url) for notice, url in found if notice.id not in busy]
        for notice, url in waiting[: bound.NOTICES_AT_ONCE - len(busy)]:
            self._sending[notice.id] = asyncio.create_task(self._send(notice, url), name=notice.event_id)
        next_us = await self._database.read(rows.next_due_us)
        later_s = bound.NOTICE_LOOK_S if next_us is None or next_us <= at_us else (next_us - at_us) / SECOND_US
        return min(later_s, bound.NOTICE_LOOK_S)

    async def _send(self, notice: Notice, url: str) -> None:
        """One attempt, and what came of it."""
        try:
            problem, is_final = await self._outcome(notice, url)
            await self._settle(notice, problem, is_final=is_final)
        except CasemateError as error:  # it is sent again, though not at once
            _LOG.warning("what became of a notice is not written down", code=error.code, reason=str(error))
            await asyncio.sleep(bound.NOTICE_LOOK_S)
        finally:
            self._sending.pop(notice.id, None)
            self._woken.set()

    async def _outcome(self, notice: Notice, url: str) -> tuple[str, bool]:
        """Why it was not taken, and whether that is for good; no reason: it was."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._attempt(notice, place_of(url, self._policy))
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s", False
        except NotTaken as error:
            return str(error), error.is_final
        except CasemateError as error:
            return error.message, False
        except Exception:  # noqa: BLE001  (whatever it is: it counts as an attempt, or it would be made without end)
            _LOG.exception("a notice could not be sent", notice=notice.event_id)
            return "cannot be sent: a mistake of ours", False
        return "", False

    async def _attempt(self, notice: Notice, place: Place) -> None:
        """Raises NotTaken."""
        import httpx2

        address = await self._address(place)
        host = f"[{address}]" if ":" in address else address
        headers = {
            "Host": place.authority,
            "Content-Type": "application/json",
            "User-Agent": f"casemate/{__version__}",
            **signed_headers(self._signing, notice, str(self._clock() // SECOND_US)),
        }
        client = self._opened()
        request = client.build_request(
            "POST",
            f"{place.scheme}://{host}:{place.port}{place.target}",
            content=notice.body.encode(),
            headers=headers,
            extensions={"sni_hostname": place.host},
        )
        try:
            response = await client.send(request, stream=True, follow_redirects=False)
            await response.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise NotTaken(f"cannot be reached: {type(error).__name__}: {error}") from error
        _check_status(response.status_code)

    async def _address(self, place: Place) -> str:
        """The one that is connected to. Raises NotTaken where none may be."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._lookups, self._resolve, place.host, place.port)
        except (OSError, UnicodeError) as error:
            raise NotTaken(f"{place.host} has no address: {error}") from error
        allowed = reachable(place.rule or HostRule(place.host, place.port), found)
        if not allowed:
            raise NotTaken(f"{place.host} leads to no public address")
        return allowed[0]

    def _opened(self) -> httpx2.AsyncClient:
        """Made when it is first needed. No connection is used twice: it was proven for one host."""
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                trust_env=False,
                verify=ssl.create_default_context(),
                timeout=self._timeout_s,
                limits=httpx2.Limits(max_connections=bound.NOTICES_AT_ONCE, max_keepalive_connections=0),
            )
        return self._client

    async def _settle(self, notice: Notice, problem: str, *, is_final: bool) -> None:
        at_us = self._clock()
        attempts = notice.attempts + 1
        state, due_us = DELIVERED, None
        if problem:
            is_last = is_final or attempts >= bound.NOTICE_ATTEMPTS_MAX
            state, due_us = (FAILED, None) if is_last else (WAITING, at_us + int(pause_s(attempts) * SECOND_US))
        told = problem[: bound.NOTICE_PROBLEM_MAX_CHARS]
        await self._database.write(
            lambda records: rows.settle(records, notice, state, at_us=at_us, problem=told, due_us=due_us)
        )
        self._on_settled(state)


def _check_status(status: int) -> None:
    """Raises NotTaken for anything but a success."""
    if status in _ELSEWHERE:
        raise NotTaken(f"answered {status}; redirects are not followed")
    if status not in _GOOD:
        raise NotTaken(f"answered {status}", is_final=status == GONE)
