"""Rows about sandboxes made ahead: how soon they answer beside their peers, and what one of them holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import casemate
from bench import peers
from bench.measure import Action, Times, interleaved
from bench.rows import Row
from bench.served import PAUSES_S, PRINTS
from casemate.engine.run import find_runtime, prepare_code
from casemate.engine.warm import warm_key
from casemate.kernel.processes import process_tree
from casemate.limits import LAUNCH_TIMEOUT_S, MIB

WARM_RATIO_MAX: Final = 0.1
PSS_MAX_MIB: Final = 6.0
READY: Final = 8
WAITING: Final = ("python", "node", "r", "bash")
BARE: Final = {
    "node": ["node", "-e", "console.log(1)"],
    "r": ["Rscript", "-e", "cat(1)"],
    "bash": ["bash", "-c", "echo 1"],
}


def warm(rounds: int) -> Iterator[Row]:
    """All rows, with an engine of their own that makes ahead by demand."""
    with casemate.Engine() as engine:
        for pause_s in PAUSES_S:
            yield from _python(engine, rounds, pause_s)
            yield from _others(engine, max(3, rounds // 2), pause_s)
    yield from _memory()


def _code(engine: casemate.Engine, runtime: str, *, fresh: bool = False) -> Action:
    def run() -> None:
        result = casemate.run(PRINTS[runtime], runtime, engine=engine, fresh=fresh)
        if not result.ok:
            raise RuntimeError(str(result))

    return run


def _rows(group: str, times: dict[str, Times]) -> Iterator[Row]:
    for name, measured in times.items():
        note = f"p95 {measured.percentile_ms(0.95):.2f}, p99 {measured.percentile_ms(0.99):.2f}"
        yield Row(group=group, name=name, value=measured.median_ms, unit="ms", note=note)


def _how(pause_s: float) -> str:
    return f"each after a pause of {pause_s * 1000:.0f} ms" if pause_s else "without pauses"


def _python(engine: casemate.Engine, rounds: int, pause_s: float) -> Iterator[Row]:
    group = f"A print in Python, warm, {_how(pause_s)}"
    own = find_runtime(engine, "python")[1].host_path
    prefix = str(Path(own).parents[1])
    visible = [] if prefix == "/usr" else ["--ro-bind", prefix, prefix]
    candidates = {
        "casemate, ready": _code(engine, "python"),
        "casemate, new": _code(engine, "python", fresh=True),
        "bubblewrap, the same interpreter": peers.bubblewrap(own, "-c", "print(1)", more=visible),
        "bubblewrap, the system's interpreter": peers.bubblewrap("/usr/bin/python3", "-c", "print(1)"),
    }
    times = interleaved(candidates, rounds, pause_s=pause_s)
    yield from _rows(group, times)
    for peer in list(candidates)[2:]:
        ratio = times["casemate, ready"].ratio(times[peer])
        yield Row(group=group, name=f"ready / {peer}", value=ratio, unit="times", bound=WARM_RATIO_MAX)


def _others(engine: casemate.Engine, rounds: int, pause_s: float) -> Iterator[Row]:
    group = f"Other languages, warm, {_how(pause_s)}"
    for runtime, bare in BARE.items():
        if shutil.which(bare[0]):
            candidates = {
                f"{runtime}, ready": _code(engine, runtime),
                f"{runtime}, new": _code(engine, runtime, fresh=True),
                f"{runtime}, bare": peers.process(*bare),
            }
            times = interleaved(candidates, rounds, pause_s=pause_s)
            yield from _rows(group, times)
            ratio = times[f"{runtime}, ready"].ratio(times[f"{runtime}, bare"])
            bound = None if runtime == "bash" else WARM_RATIO_MAX
            yield Row(group=group, name=f"{runtime}, ready / bare", value=ratio, unit="times", bound=bound)


def _memory() -> Iterator[Row]:
    """The proportional set sizes of all processes of ready sandboxes."""
    group = "Memory of one ready sandbox more, proportional set size"
    for runtime in WAITING:
        with casemate.Engine() as engine:
            key = warm_key(prepare_code(engine, "", runtime=runtime))
            sizes = []
            for count in (1, READY):
                if not engine.warm.keep(key, count, LAUNCH_TIMEOUT_S):
                    raise RuntimeError(str(engine.pools()))
                sizes.append(sum(map(_pss_bytes, process_tree(engine.backend.launcher.pid)[1:])))
        each = (sizes[1] - sizes[0]) / (READY - 1) / MIB
        yield Row(group=group, name=runtime, value=each, unit="MiB", bound=PSS_MAX_MIB if runtime == "python" else None)


def _pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
