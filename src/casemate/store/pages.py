"""Lists in pages: newest first, and a cursor that says where the next page begins."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select, Table, and_, or_

from casemate.errors import InvalidInput
from casemate.service_limits import CURSOR_MAX_CHARS, PAGE_MAX_COUNT
from casemate.store.dialect import has_member

T = TypeVar("T")
_PLACE: Final = re.compile(r"(\d{1,18})/([^/\s]{1,128})")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some of a list. `next_cursor` asks for what follows; None: there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def cursor_of(created_us: int, key: str) -> str:
    """What a list gives back, to be asked with again. It holds no secret, and is none."""
    return base64.urlsafe_b64encode(f"{created_us}/{key}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[int, str]:
    """What a cursor says. Raises InvalidInput for one that is none of ours."""
    try:
        text = base64.b64decode(cursor[:CURSOR_MAX_CHARS] + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        text = ""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InvalidInput("cursor", "is none that a list has given")
    return int(found[1]), found[2]


def check_limit(limit: int) -> int:
    """Raises InvalidInput for more than a page may have."""
    if not 1 <= limit <= PAGE_MAX_COUNT:
        raise InvalidInput("limit", f"must be from 1 to {PAGE_MAX_COUNT}")
    return limit


def newest_first(query: Select[Any], table: Table, *, limit: int, cursor: str | None) -> Select[Any]:
    """One row more than a page has: it says whether there is another."""
    created, key = table.c.created_us, table.c.id
    if cursor is not None:
        at_us, last = place_of(cursor)
        query = query.where(or_(created < at_us, and_(created == at_us, key < last)))
    return query.order_by(created.desc(), key.desc()).limit(check_limit(limit) + 1)


def page_of(rows: list[T], limit: int, places: list[tuple[int, str]]) -> Page[T]:
    """A page of what `newest_first` found; `places` are the times and ids of the rows."""
    cursor = cursor_of(*places[limit - 1]) if len(rows) > limit else None
    return Page(items=tuple(rows[:limit]), next_cursor=cursor)


def has_labels(table: Table, labels: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """That a row has all of these labels."""
    return [has_member(table.c.labels, name, value) for name, value in labels.items()]
