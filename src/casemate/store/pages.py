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
from casemate.limits import CURSOR_MAX_CHARS, LABEL_NAME_MAX_CHARS, PAGE_MAX_COUNT

T = TypeVar("T")
_PLACE: Final = re.compile(r"(\d{1,18})/([^/\s]{1,128})")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some of a list. `next_cursor` asks for what follows; None: there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None = None


def cursor_of(created_us: int, key: str) -> str:
    return base64.urlsafe_b64encode(f"{created_us}/{key}".encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[int, str]:
    """What a cursor says. Raises InvalidInput for one that is none of ours."""
    try:
        if len(cursor) > CURSOR_MAX_CHARS:
            raise ValueError
        found = _PLACE.fullmatch(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode())
        if found is None:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise InvalidInput("cursor", "is none that a list has given") from error
    return int(found[1]), found[2]


def check_limit(limit: int) -> int:
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
    """That a row has all of these labels. Raises InvalidInput for names that no label can have."""
    for name in labels:
        if len(name) > LABEL_NAME_MAX_CHARS or _LABEL.fullmatch(name) is None:
            raise InvalidInput("label", f"{name!r} cannot be the name of a label")
    return [table.c.labels[name].as_string() == value for name, value in labels.items()]
