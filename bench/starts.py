"""Rows about starting: the cold sandbox, interpreters in it, the command line, and starts after pauses."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import casemate
from bench import peers
from bench.measure import Action, Times, interleaved
from bench.rows import Row
from bench.steps import step_table
from casemate.engine.run import find_runtime

PAUSE_S: Final = 0.1
IN_A_ROW: Final = 10
"""Of everything that is quick: what follows a quiet moment is measured by itself."""

COLD_RATIO_MAX: Final = 1.0
COMMAND_RATIO_MAX: Final = 6.0
DEBIAN_PYTHON: Final = "/usr/bin/python3"
LANGUAGES: Final = {
    "bash": ("bash", "echo 1", ["bash", "-c", "echo 1"]),
    "node": ("node", "console.log(1)", ["node", "-e", "console.log(1)"]),
    "R": ("r", "cat(1)", ["Rscript", "-e", "cat(1)"]),
}


def _true(engine: casemate.Engine) -> Action:
    return lambda: casemate.execute(["/bin/true"], engine=engine)


def _code(engine: casemate.Engine, runtime: str, code: str) -> Action:
    def run() -> None:
        result = casemate.run(code, runtime, engine=engine)
        if not result.ok:
            raise RuntimeError(str(result))

    return run


def _medians(group: str, times: dict[str, Times]) -> Iterator[Row]:
    for name, measured in times.items():
        note = f"p10 {measured.percentile_ms(0.1):.2f}, p90 {measured.percentile_ms(0.9):.2f}"
        yield Row(group=group, name=name, value=measured.median_ms, unit="ms", note=note)


def cold_true(engine: casemate.Engine, floor: Action, rounds: int, pause_s: float = 0.0) -> Iterator[Row]:
    """A sandbox around /bin/true, from the request to the Result in this process."""
    group = "A cold sandbox around /bin/true" + (f", each after a pause of {pause_s * 1000:.0f} ms" if pause_s else "")
    candidates: dict[str, Action] = {
        "casemate": _true(engine),
        "bubblewrap": peers.bubblewrap("/bin/true"),
        "floor: the namespaces and one tmpfs": floor,
        "no sandbox": peers.process("/bin/true"),
    }
    if locked := peers.sandlock("/bin/true"):
        candidates["sandlock"] = locked
    times = interleaved(candidates, rounds, pause_s=pause_s, in_a_row=1 if pause_s else IN_A_ROW)
    yield from _medians(group, times)
    ratio = times["casemate"].ratio(times["bubblewrap"])
    bound = None if pause_s else COLD_RATIO_MAX
    yield Row(group=group, name="casemate / bubblewrap", value=ratio, unit="times", bound=bound)


def python(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    """A print in Python beside the bare interpreters."""
    group = "A print in Python"
    own = find_runtime(engine, "python")[1].host_path
    prefix = str(Path(own).parents[1])
    visible = [] if prefix == "/usr" else ["--ro-bind", prefix, prefix]
    candidates: dict[str, Action] = {
        "casemate": _code(engine, "python", "print(1)"),
        "casemate around /bin/true": _true(engine),
        "bare, the same interpreter": peers.process(own, "-c", "print(1)"),
        "bubblewrap, the same interpreter": peers.bubblewrap(own, "-c", "print(1)", more=visible),
    }
    if Path(DEBIAN_PYTHON).exists():
        candidates["bare, the system's interpreter"] = peers.process(DEBIAN_PYTHON, "-c", "print(1)")
    if locked := peers.sandlock(DEBIAN_PYTHON, "-c", "print(1)"):
        candidates["sandlock, the system's interpreter"] = locked
    times = interleaved(candidates, rounds)
    yield from _medians(group, times)
    both = times["casemate"].over(times["bare, the same interpreter"], times["casemate around /bin/true"])
    yield Row(group=group, name="casemate / (bare + around /bin/true)", value=both, unit="times", bound=1.0)


def languages(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    """A print in each of the other languages."""
    group = "A print in other languages"
    for name, (runtime, code, bare) in LANGUAGES.items():
        if shutil.which(bare[0]):
            candidates = {name: _code(engine, runtime, code), f"{name}, bare": peers.process(*bare)}
            yield from _medians(group, interleaved(candidates, rounds))


def command_line(rounds: int) -> Iterator[Row]:
    """The whole process `casemate run hello.py`, its own start and the engine's included."""
    group = "The command line: a file that prints"
    program = Path(sys.executable).parent / "casemate"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "hello.py"
        file.write_text("print('hello')\n")
        candidates = {
            "casemate run hello.py": peers.process(str(program), "run", str(file)),
            "python3 hello.py": peers.process(sys.executable, str(file)),
        }
        times = interleaved(candidates, rounds)
    yield from _medians(group, times)
    ratio = times["casemate run hello.py"].ratio(times["python3 hello.py"])
    yield Row(group=group, name="casemate run / python3", value=ratio, unit="times", bound=COMMAND_RATIO_MAX)


def where_the_time_goes(engine: casemate.Engine, rounds: int) -> Iterator[Row]:
    """The parts of one cold start."""
    for name, value in step_table(engine, rounds).items():
        yield Row(group="Where the time of a cold start goes", name=name, value=value, unit="ms")


Part = Callable[[], Iterator[Row]]
