"""What jobs try to reach, as clients ask for it: listed, and followed as it happens. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from casemate.errors import ServiceError
from casemate.model.flow import FlowEntry
from casemate.sdk.events import Events
from casemate.sdk.exchange import READ, Context, Emit, Open, Steps, failed, rest
from casemate.sdk.requests import EVENTS, Answer, Failure, Head, Listing, Request, path, query


def list_flows(
    *,
    job: str | None = None,
    host: str | None = None,
    allowed: bool | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Listing[FlowEntry]:
    """Flows of all jobs, the last ones first."""
    asked = query(job=job, host=host, allowed=_word(allowed), since=since, until=until)
    return Listing(Request(method="GET", path=path("flows"), query=asked), FlowEntry, limit)


def _word(value: bool | None) -> str | None:  # noqa: FBT001 - a value that is written
    return None if value is None else str(value).lower()


class FollowedFlows:
    """How far flows were followed; what is asked for stays the same."""

    def __init__(self, *, job: str | None = None, host: str | None = None, allowed: bool | None = None) -> None:
        self._asked = query(job=job, host=host, allowed=_word(allowed))
        self.last = ""

    @property
    def request(self) -> Request:
        """What goes on from here."""
        return Request(method="GET", path=path("flows"), query=self._asked, accept=EVENTS, last_event_id=self.last)


def follow_flows(context: Context, followed: FollowedFlows) -> Steps[FlowEntry, None]:
    """Tell flows as they end, each once, whatever becomes of the connection; it does not end by itself."""
    attempts = 0
    while True:
        attempts += 1
        last, request = followed.last, followed.request
        outcome = yield from _follow_once(request, followed)
        if followed.last != last:
            attempts = 1
        yield context.pause(request, outcome, attempts)


def _follow_once(request: Request, followed: FollowedFlows) -> Steps[FlowEntry, Answer | Failure]:
    head = yield Open(request)
    if not isinstance(head, Head):
        return failed(head)
    if not head.is_good or head.media_type != EVENTS:
        return (yield from rest(head))
    events = Events()
    while True:
        reply = yield READ
        if not isinstance(reply, bytes):
            return failed(reply)
        if not reply:
            return Failure(message="the service ended a stream that has no end")
        for event in events.feed(reply):
            followed.last = event.id or followed.last
            if event.kind == "flow":
                yield Emit(_decoded(event.data))


def _decoded(data: str | bytes) -> FlowEntry:
    try:
        return msgspec.json.decode(data, type=FlowEntry)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ServiceError("the service sent a flow that is none") from error
