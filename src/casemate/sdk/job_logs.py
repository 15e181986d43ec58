"""What jobs print, as clients ask for it: read, followed while it comes, and searched. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import msgspec

from casemate.errors import ServiceError
from casemate.model.job_log import LogEntry
from casemate.sdk.events import Event
from casemate.sdk.requests import EVENTS, Listing, Request, path, query

T = TypeVar("T")


class JobEnd(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a job whose log was followed to its end."""

    id: str
    state: str
    status: str | None = None
    reason: str | None = None
    exit_code: int | None = None


def read_log(job_id: str, *, tail: int | None = None, limit: int | None = None) -> Listing[LogEntry]:
    """The lines of a job in their order, or the last ones alone (`tail`)."""
    request = Request(method="GET", path=path("jobs", job_id, "logs"), query=query(tail=tail))
    return Listing(request, LogEntry, limit, in_pages=tail is None)


def search_logs(
    text: str | None = None,
    *,
    job: str | None = None,
    runtime: str | None = None,
    kind: str | None = None,
    stream: str | None = None,
    level: str | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
) -> Listing[LogEntry]:
    """Lines of all jobs, the last ones first. `text`: words, each of which begins a word of the line."""
    asked = query(text=text, job=job, runtime=runtime, kind=kind, stream=stream, level=level, since=since, until=until)
    return Listing(Request(method="GET", path=path("logs"), query=asked), LogEntry, limit)


class FollowedLog:
    """How far a log was followed."""

    def __init__(self, job_id: str, tail: int | None = None) -> None:
        self.end: JobEnd | None = None
        self.place = ""
        self._path = path("jobs", job_id, "logs")
        self._tail = tail

    @property
    def has_ended(self) -> bool:
        """Whether the job has, and all that is kept of its log was told."""
        return self.end is not None

    @property
    def request(self) -> Request:
        """What goes on from here."""
        asked = () if self.place else query(tail=self._tail)
        return Request(method="GET", path=self._path, query=asked, accept=EVENTS, last_event_id=self.place)

    def take(self, event: Event) -> LogEntry | None:
        """The line that an event is."""
        found = _decoded(event, LogEntry) if event.kind == "log" else None
        if event.kind == "end":
            self.end = _decoded(event, JobEnd)
        self.place = event.id or self.place
        return found


def _decoded(event: Event, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(event.data, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ServiceError(f"the service sent a {event.kind} event that is none") from error
