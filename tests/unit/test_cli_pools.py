"""The page of `casemate pools`: what people read of engines, none of which may move their terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from casemate.cli import pools
from casemate.cli.arguments import parse
from casemate.cli.commands import POOLS
from casemate.pool.published import EngineStatistics, Found
from casemate.pool.ready import PoolStatistics

Shown = Callable[..., tuple[int, str, str]]
PYTHON = PoolStatistics(label="python", ready=2, starting=1, busy=3, hits=40, misses=5, memory_bytes=1 << 24)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Return what the command does with what it finds: status, stdout and stderr."""

    def show(
        *engines: EngineStatistics, problems: tuple[str, ...] = (), words: tuple[str, ...] = ()
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(pools, "find_engines", lambda: Found(engines=engines, problems=problems))
        status = pools.command(parse(POOLS, words))
        return status, *capsys.readouterr()

    return show


def test_where_nothing_is_kept_ready_stderr_says_so(shown: Shown) -> None:
    status, out, words = shown()
    assert (status, out) == (0, "")
    assert words.startswith("casemate: no engine of this user has made anything ahead")


def test_each_engine_has_a_table(shown: Shown) -> None:
    engines = [EngineStatistics(pid=pid, program=f"service {pid}", pools=(PYTHON,)) for pid in (7, 8)]
    status, out, words = shown(*engines)
    assert (status, words) == (0, "")
    assert out.splitlines() == [
        "process 7  service 7",
        "KIND    READY  STARTING  BUSY  HITS  MISSES  MEMORY  PROBLEM",
        "python  2      1         3     40    5       16Mi",
        "",
        "process 8  service 8",
        "KIND    READY  STARTING  BUSY  HITS  MISSES  MEMORY  PROBLEM",
        "python  2      1         3     40    5       16Mi",
    ]


def test_who_does_not_answer_is_named_and_the_others_are_shown(shown: Shown) -> None:
    silent = EngineStatistics(pid=9, program="x", problem="does not answer: timed out")
    status, out, words = shown(silent, EngineStatistics(pid=8, program="y", pools=(PYTHON,)), problems=("/run: no",))
    assert status == 1
    assert out.splitlines()[0] == "process 8  y"
    assert words == "casemate: /run: no\ncasemate: process 9: does not answer: timed out\n"


def test_nothing_that_an_engine_says_moves_a_terminal(shown: Shown) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\nfake\r"
    pool = msgspec.structs.replace(PYTHON, label=evil, problem=evil)
    _, out, words = shown(
        EngineStatistics(pid=1, program=evil, pools=(pool,)), EngineStatistics(pid=2, program=evil, problem=evil)
    )
    assert not {character for character in out + words if not character.isprintable()} - {"\n"}


def test_programs_get_one_document(shown: Shown) -> None:
    status, out, words = shown(EngineStatistics(pid=7, program="s", pools=(PYTHON,)), words=("--json",))
    assert (status, words) == (0, "")
    (engine,) = json.loads(out)["engines"]
    assert (engine["pid"], engine["pools"][0]["hits"]) == (7, 40)
