"""Bounds of collecting that an honest file system reaches too rarely to try."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from casemate import limits
from casemate.engine import collect
from casemate.engine.collect import Bounds, Collected, Collector
from casemate.engine.drive import drive
from casemate.kernel.openat2 import open_beneath

FILES = 50
DEPTH = 6


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """Fifty files, deep in there."""
    deep = tmp_path.joinpath(*"d" * DEPTH)
    deep.mkdir(parents=True)
    for number in range(FILES):
        (deep / f"{number}").write_bytes(b"x")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def collected(directory: int) -> Collected:
    return drive(Collector(directory, ["**"]).run())


def test_slow_files_cost_no_more_than_the_time_for_all(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)
    read = os.read

    def slow_read(fd: int, size: int) -> bytes:
        clock.now_s += 1.0
        return read(fd, size)

    monkeypatch.setattr(collect, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(os, "read", slow_read)
    found = collected(directory)
    assert 0 < len(found.files) <= limits.COLLECT_TIME_MAX_S + 1
    assert [event.detail for event in found.events] == ["the rest left out: took too long"]


def test_rights_to_a_directory_are_given_back_once(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: set[bytes] = set()
    given: list[bytes] = []

    def refuse_files_once(at: int, path: bytes, flags: int) -> int:
        if flags & os.O_PATH:
            given.append(path)
        elif not flags & os.O_DIRECTORY and path not in refused:
            refused.add(path)
            raise PermissionError
        return open_beneath(at, path, flags)

    monkeypatch.setattr(collect, "open_beneath", refuse_files_once)
    assert len(collected(directory).files) == FILES
    assert len(given) == len(set(given)) == DEPTH + FILES


def test_comparing_names_has_a_time_of_its_own(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0)

    def slow_matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
        clock.now_s += 1.0
        return bool(names and pattern)

    monkeypatch.setattr(collect, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(collect, "matches", slow_matches)
    bounds = Bounds(files=FILES, total_bytes=FILES, time_s=1000.0, matching_s=7.5)
    found = drive(Collector(directory, ["**", "*"], bounds).run())
    assert len(found.files) == 3
    assert [event.detail for event in found.events] == ["the rest left out: comparing names took too long"]
