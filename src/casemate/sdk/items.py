"""Items of a batch as callers write them, and telling how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, TypeAlias

from casemate.errors import InvalidInput
from casemate.model.function import Item
from casemate.sdk.exchange import Sent
from casemate.sdk.requests import encode

ItemLike: TypeAlias = Item | Mapping[str, Any]
Progress: TypeAlias = bool | Callable[[int, int | None], None]
"""True shows a bar on stderr; a function is called with how many are done, and of how many if that is known."""

_FIELDS = frozenset(Item.__struct_fields__)


def sent_items(items: Iterable[ItemLike]) -> Iterator[Sent]:
    """Each as it goes over the wire. Raises InvalidInput, naming the place of what is no item."""
    for place, item in enumerate(items):
        yield _sent(item, f"items[{place}]")


def _sent(item: ItemLike, field: str) -> Sent:
    if isinstance(item, Item):
        return Sent(item.id, encode(field, item))
    if not isinstance(item, Mapping):
        raise InvalidInput(field, "is no Item and no mapping", hint="write it as {'id': …, 'data': …}")
    unknown = next((str(name) for name in item if name not in _FIELDS), None)
    if unknown is not None:
        raise InvalidInput(f"{field}.{unknown}"[:80], "is unknown", hint="an item has id, data and context")
    found = {"id": "", "data": None, **item}
    if not isinstance(found["id"], str):
        raise InvalidInput(f"{field}.id", "must be text")
    return Sent(found["id"], encode(field, found))


def counted(items: Iterable[ItemLike]) -> int | None:
    """How many there are, if they say so."""
    return len(items) if isinstance(items, Sized) else None


@contextmanager
def telling(progress: Progress, total: int | None, what: str = "items") -> Generator[Callable[[int], None]]:
    """Something to be told how many are done."""
    if progress is False:
        yield lambda _: None
    elif progress is True:
        with _bar(total, what) as advance:
            yield advance
    else:
        report = progress
        yield lambda done: report(done, total)


@contextmanager
def _bar(total: int | None, what: str) -> Generator[Callable[[int], None]]:
    from rich.console import Console  # whoever wants no bar does not pay for it
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    amount = DownloadColumn() if what == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(what), BarColumn(), amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
