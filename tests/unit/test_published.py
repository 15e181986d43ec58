"""Statistics told to other processes: who may ask, and that whoever asks trusts nothing of an answer."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import msgspec
import pytest

from casemate import limits
from casemate.pool import published
from casemate.pool.published import Found, Publisher, find_engines
from casemate.pool.ready import PoolStatistics

PYTHON = PoolStatistics(label="python", ready=2, starting=1, busy=0, hits=9, misses=3, memory_bytes=1 << 20)
NOBODY = 4_000_000_000
"""More than any process id may be."""
NAME = "0123456789abcdef"
ANSWER = msgspec.json.encode({"pools": [PYTHON]})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where engines and those who ask meet in a test: in a directory that is not there yet."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    found = Path("engines")
    monkeypatch.setattr(published, "places", lambda _: (found,))
    return found


@pytest.fixture
def answering(place: Path) -> Iterator[Callable[[bytes | None], None]]:
    """Start somebody who gives every one that asks the same answer; with None he never says a word."""
    place.mkdir(mode=0o700)
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(listener: socket.socket, answer: bytes | None) -> None:
        with ExitStack() as held:
            while True:
                try:
                    channel = held.enter_context(listener.accept()[0])
                except OSError:
                    return
                if answer is not None:
                    with channel, suppress(OSError):
                        channel.sendall(answer)

    def start(answer: bytes | None) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place / f"{os.getpid()}-{NAME}"))
        listener.listen()
        listeners.append(listener)
        threads.append(threading.Thread(target=serve, args=(listener, answer)))
        threads[-1].start()

    yield start
    for listener, thread in zip(listeners, threads, strict=True):
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def test_who_asks_hears_what_there_is_now(place: Path) -> None:
    told: list[PoolStatistics] = []
    with closing(Publisher(lambda: tuple(told))):
        assert find_engines().engines[0].pools == ()
        told.append(PYTHON)
        (found,) = find_engines().engines
    assert (found.pid, found.pools, found.problem) == (os.getpid(), (PYTHON,), "")
    assert "python" in found.program
    assert find_engines() == Found(engines=())
    assert list(place.iterdir()) == []


def test_nothing_runs_while_nobody_asks(place: Path) -> None:
    asked = threading.Semaphore(0)

    def statistics() -> tuple[PoolStatistics, ...]:
        asked.release()
        return ()

    with closing(Publisher(statistics)):
        assert not asked.acquire(timeout=0.05)
        find_engines()
        assert asked.acquire(timeout=10)
        assert not asked.acquire(blocking=False)


def test_several_engines_of_a_process_are_told_apart(place: Path) -> None:
    with closing(Publisher(lambda: (PYTHON,))), closing(Publisher(tuple)):
        assert sorted(len(engine.pools) for engine in find_engines().engines) == [0, 1]


def test_nobody_else_may_enter(place: Path) -> None:
    with closing(Publisher(tuple)):
        assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_directory_that_others_may_enter_is_neither_used_nor_believed(place: Path, mode: int) -> None:
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(OSError, match="belong to this user alone"):
        Publisher(tuple)
    assert find_engines() == Found(engines=(), problems=(f"{place}: it does not belong to this user alone",))


def test_a_link_in_place_of_the_directory_is_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="directory"):
        Publisher(tuple)
    assert len(find_engines().problems) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_next_place_serves_where_the_first_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(published, "places", lambda _: (tmp_path / "file" / "engines", tmp_path / "second"))
    with closing(Publisher(lambda: (PYTHON,))):
        assert [each.pools for each in find_engines().engines] == [(PYTHON,)]


def test_what_a_dead_engine_left_is_removed_and_not_told(place: Path) -> None:
    place.mkdir(mode=0o700)
    left = place / f"{NOBODY}-{NAME}"
    for clear_up in (find_engines, lambda: Publisher(tuple).close()):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(left))
        clear_up()
        assert not left.exists()
    assert find_engines().engines == ()


def test_an_engine_that_is_about_to_listen_is_left_alone(place: Path) -> None:
    place.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / f"{os.getpid()}-{NAME}"))
        assert find_engines() == Found(engines=())
        assert len(list(place.iterdir())) == 1


HOSTILE = {
    "no JSON": b"\x00\xff",
    "nothing": b"",
    "another shape": b"[]",
    "numbers below zero": ANSWER.replace(b'"ready":2', b'"ready":-1'),
    "a truth as a number": ANSWER.replace(b'"ready":2', b'"ready":true'),
    "numbers without end": ANSWER.replace(b'"hits":9', b'"hits":' + b"9" * 1000),
    "a text without end": ANSWER.replace(b'"python"', b'"' + b"p" * 10_000 + b'"'),
    "very many": msgspec.json.encode({"pools": [PYTHON] * 1000}),
    "very deep": b'{"x":' * 100_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_answer_that_is_no_statistics_is_refused(answering: Callable[[bytes | None], None], what: str) -> None:
    answering(HOSTILE[what])
    (found,) = find_engines().engines
    assert found.pools == ()
    assert "answer" in found.problem


def test_an_answer_without_end_is_cut(
    answering: Callable[[bytes | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PUBLISHED_MAX_BYTES", 4096)
    answering(b" " * 1_000_000)
    assert find_engines().engines[0].problem == "does not answer: its answer is too long"


def test_who_says_nothing_holds_nobody_up_for_long(
    answering: Callable[[bytes | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PUBLISHED_TIMEOUT_S", 0.05)
    answering(None)
    assert find_engines().engines[0].problem == "does not answer: timed out"


def test_links_and_files_are_neither_followed_nor_read(place: Path, tmp_path: Path) -> None:
    place.mkdir(mode=0o700)
    (place / f"{os.getpid()}-{NAME}").write_bytes(ANSWER)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        listener.listen()
        (place / f"{os.getpid()}-{NAME[::-1]}").symlink_to(tmp_path / "socket")
        problems = [engine.problem for engine in find_engines().engines]
    assert problems == ["does not answer: it is no socket"] * 2


def test_names_that_are_none_of_ours_are_not_looked_at(place: Path) -> None:
    place.mkdir(mode=0o700)
    for name in ("README", "1-x", f"1-{NAME}.bak", f"-{NAME}"):
        (place / name).touch()
    assert find_engines() == Found(engines=())


def test_who_comes_and_goes_does_not_end_the_telling(place: Path) -> None:
    with closing(Publisher(lambda: (PYTHON,))):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(str(next(place.iterdir())))
        assert len(find_engines().engines) == 1
