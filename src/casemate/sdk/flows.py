"""What jobs try to reach, as clients ask for it: listed, and followed as it happens. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from casemate.errors import ServiceError
from casemate.model.flow import FlowEntry
from casemate.sdk.events import Event
from casemate.sdk.requests import EVENTS, Listing, Request, path, query


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
        self.place = ""

    @property
    def has_ended(self) -> bool:
        """It has no end."""
        return False

    @property
    def request(self) -> Request:
        """What goes on from here."""
        return Request(method="GET", path=path("flows"), query=self._asked, accept=EVENTS, last_event_id=self.place)

    def take(self, event: Event) -> FlowEntry | None:
        """The flow that an event is."""
        self.place = event.id or self.place
        return _decoded(event.data) if event.kind == "flow" else None


def _decoded(data: bytes) -> FlowEntry:
    try:
        return msgspec.json.decode(data, type=FlowEntry)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ServiceError("the service sent a flow that is none") from error
