"""What lists are asked for: a page, and a time range."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from fastapi import Depends, Query

from casemate import service_limits as limits
from casemate.clock import now_us
from casemate.errors import InvalidInput
from casemate.model.units import SECOND_US

_HOUR_US: Final = 3600 * SECOND_US
_NUMBER_MAX_CHARS: Final = 18
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class PageAsked(msgspec.Struct, frozen=True):
    """How much of a list, and from where on."""

    limit: int
    cursor: str | None


async def page_asked(
    limit: Annotated[int, Query(ge=1, le=limits.PAGE_MAX_COUNT)] = limits.PAGE_DEFAULT_COUNT,
    cursor: Annotated[
        str | None, Query(max_length=limits.CURSOR_MAX_CHARS, description="`next_cursor` of the page before.")
    ] = None,
) -> PageAsked:
    """From the query string. A coroutine: anything else would be called in a thread."""
    return PageAsked(limit, cursor)


Listed = Annotated[PageAsked, Depends(page_asked)]


def number_of(text: str, field: str, what: str) -> int:
    """The number by which a stream or a list goes on. Raises InvalidInput for what is no such number."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _NUMBER_MAX_CHARS):
        raise InvalidInput(field, f"is not the number of {what}", hint="send it as it came")
    return int(text)


def moments(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Two times in microseconds. Raises InvalidInput for what is no RFC 3339 time."""
    return _moment(since, "since"), _moment(until, "until")


def time_range(since: str | None, until: str | None) -> tuple[int, int]:
    """A range in microseconds: up to now and an hour long, unless something else is said. Raises InvalidInput."""
    since_us, until_us = moments(since, until)
    end_us = now_us() + SECOND_US if until_us is None else until_us
    begin_us = end_us - _HOUR_US if since_us is None else since_us
    if begin_us >= end_us:
        raise InvalidInput("since", "is not before until")
    return begin_us, end_us


def _moment(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(field, "is not a time such as 2030-01-31T12:00:00Z") from error


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """Labels to look for, each `name=value`. Raises InvalidInput."""
    return dict(_label(each) for each in texts)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("label", f"{text[:80]!r} is not name=value")
    return name, value
