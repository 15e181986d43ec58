"""Many runs of every kind in a row, from threads and from asyncio: nothing may grow (`make soak`).

What is open, mounted, running or leased is counted after each tenth, when nothing runs; the last count must be
the first one. Memory may rise by a small constant from the middle to the end. Exit status 1 says that something grew
or that a run ended otherwise than it had to.

With `--kills` the runs are warm, in all languages, and interpreters that wait, workers and the launcher are killed
beside them, by a program that the seed decides and that is printed. Every run has to end nevertheless, in a Result or
in an error of ours, and no kill may cost more runs than went on at that moment.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

import casemate
from bench.chaos import DISTURBED, Killer, Program, Target, Unexpected, kill_program, programs, written
from bench.counting import SETTLE_TIMEOUT_S, Counts, anonymous_bytes, give_back_memory, settled
from casemate.limits import KIB, MIB
from casemate.model.result import Chunk, Reason

THREADS: Final = 3
PARTS: Final = 10
WARM_IDLE_S: Final = 1.0
ENGINE_GROWTH_MAX_BYTES: Final = 2 * MIB
LAUNCHER_GROWTH_MAX_BYTES: Final = 128 * KIB


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The state after so many runs."""

    runs: int
    seconds: float
    counts: Counts
    engine_bytes: int
    launcher_bytes: int


def expect(result: casemate.Result, *reasons: Reason) -> None:
    if result.reason not in reasons:
        raise Unexpected(f"{result.reason} instead of {reasons}: {result}")


# The kinds of runs -------------------------------------------------------------------------------------


def plain(engine: casemate.Engine) -> None:
    expect(casemate.execute(["true"], engine=engine), Reason.EXIT)


def python(engine: casemate.Engine) -> None:
    result = casemate.run("print(input)\noutput = input", input={"a": [1]}, files={"d/f": b"x"}, engine=engine)
    expect(result, Reason.EXIT)
    if result.output != {"a": [1]}:
        raise Unexpected(str(result))


def bash(engine: casemate.Engine) -> None:
    result = casemate.run("echo $((1+1)); cat", "bash", stdin=b"x" * 1000, engine=engine)
    expect(result, Reason.EXIT)


def collected(engine: casemate.Engine) -> None:
    script = "mkdir -p a/b; echo x > a/b/c; ln -s /etc/passwd a/link"
    result = casemate.execute(["sh", "-c", script], collect=["**/*"], engine=engine)
    expect(result, Reason.EXIT)
    if [file.path for file in result.files] != ["a/b/c"]:
        raise Unexpected(str(result))


def failed(engine: casemate.Engine) -> None:
    expect(casemate.execute(["sh", "-c", "exit 3"], engine=engine), Reason.EXIT)
    expect(casemate.execute(["/no/such/program"], engine=engine), Reason.EXIT)


def excepted(engine: casemate.Engine) -> None:
    expect(casemate.run("raise ValueError(1)", engine=engine), Reason.EXCEPTION)


def signalled(engine: casemate.Engine) -> None:
    expect(casemate.execute(["sh", "-c", "kill -9 $$"], engine=engine), Reason.SIGNAL)


def late(engine: casemate.Engine) -> None:
    command = ["sh", "-c", "setsid sleep 1000 & sleep 1000"]
    expect(casemate.execute(command, limits={"timeout": "15ms"}, engine=engine), Reason.TIMEOUT)


def greedy(engine: casemate.Engine) -> None:
    command = ["sh", "-c", "head -c 100000000 /dev/zero | tail"]
    expect(casemate.execute(command, limits={"memory": "16Mi"}, engine=engine), Reason.MEMORY)


def chatty(engine: casemate.Engine) -> None:
    expect(casemate.execute(["yes"], limits={"output": "256Ki"}, engine=engine), Reason.OUTPUT)


def filling(engine: casemate.Engine) -> None:
    command = ["dd", "if=/dev/zero", "of=f", "bs=64k", "count=64"]
    expect(casemate.execute(command, limits={"disk": "1Mi"}, engine=engine), Reason.DISK)


def cancelled(engine: casemate.Engine) -> None:
    token = casemate.CancelToken()
    command = ["sh", "-c", "echo ready; sleep 1000"]
    result = casemate.execute(command, on_output=lambda _: token.cancel(), cancel=token, engine=engine)
    expect(result, Reason.CANCELLED)


def abandoned(engine: casemate.Engine) -> None:
    with casemate.stream("echo ready; sleep 1000", "bash", engine=engine) as chunks:
        next(chunks)


def refused(engine: casemate.Engine) -> None:
    def refuse(_: Chunk) -> None:
        raise KeyboardInterrupt

    many = {f"f{number}": b"" for number in range(80)}
    attempts: list[Callable[[], casemate.Result]] = [
        lambda: casemate.execute(["echo"], on_output=refuse, engine=engine),
        lambda: casemate.execute(["true"], files={"../x": b""}, engine=engine),
        lambda: casemate.execute(["true"], files=many, limits={"inodes": 64}, engine=engine),
    ]
    for attempt in attempts:
        try:
            result = attempt()
        except (KeyboardInterrupt, casemate.CasemateError):
            continue
        raise Unexpected(f"nothing was raised: {result}")


def sandboxed(engine: casemate.Engine) -> None:
    with casemate.Sandbox("bash", engine=engine) as sandbox:
        sandbox.files.write("a/b", "x" * 1000)
        for _ in range(3):
            expect(sandbox.exec(["cat", "a/b"]), Reason.EXIT)
        expect(sandbox.run("sleep 1000 & echo x"), Reason.EXIT)
        expect(sandbox.exec(["sleep", "1000"], limits={"timeout": "10ms"}), Reason.TIMEOUT)
        sandbox.files.read("a/b")
        sandbox.files.list()
        sandbox.files.remove("a/b")
        with sandbox.open_pty(["sh", "-c", "read line"]) as terminal:
            terminal.write(b"x\n")
            terminal.wait()


def stateful(engine: casemate.Engine) -> None:
    with casemate.Sandbox("python", stateful=True, idle_timeout=60, engine=engine) as session:
        expect(session.run("x = 1"), Reason.EXIT)
        expect(session.run("while True: pass", limits={"timeout": "15ms"}), Reason.TIMEOUT)
        copies = session.fork(2)
        expect(copies[0].run("assert x == 1; display(x)"), Reason.EXIT)
        copies[1].close()
        expect(session.run("1 / 0"), Reason.EXCEPTION)
        expect(session.run("import os; os._exit(3)"), Reason.EXIT)
        session.restart()
        expect(session.run("1"), Reason.EXIT)


def concurrent(engine: casemate.Engine) -> None:
    async def together() -> None:
        endless = asyncio.create_task(casemate.aexecute(["sleep", "1000"], engine=engine))
        results = await asyncio.gather(*(casemate.aexecute(["echo", "x"], engine=engine) for _ in range(3)))
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        async with casemate.AsyncSandbox("bash", engine=engine) as sandbox:
            results.append(await sandbox.run("echo x"))
        for result in results:
            expect(result, Reason.EXIT)

    asyncio.run(together())


KINDS: Final[dict[Callable[[casemate.Engine], None], int]] = {
    plain: 30,
    bash: 14,
    python: 8,
    collected: 6,
    failed: 6,
    late: 6,
    signalled: 4,
    cancelled: 4,
    chatty: 4,
    sandboxed: 4,
    stateful: 2,
    concurrent: 3,
    abandoned: 3,
    refused: 3,
    filling: 2,
    greedy: 2,
    excepted: 1,
}
"""Each kind with its weight."""


# Many of them ------------------------------------------------------------------------------------------


def wait_cold(engine: casemate.Engine) -> None:
    """Until nothing is ready any more, for want of demand."""
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S + WARM_IDLE_S
    while any(each.ready + each.starting for each in engine.pools()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    engine.backend.settle()


def soak(runs: int, seed: int, *, warm: bool = False) -> Iterator[Sample]:
    """A sample after each part of the runs. `warm`: in sandboxes made ahead, which are gone when it is counted."""
    kinds = random.Random(seed).choices(list(KINDS), weights=list(KINDS.values()), k=runs)
    with casemate.Engine(config(), warm=warm) as engine:
        for kind in KINDS:
            kind(engine)
        yield from in_parts(engine, runs, lambda number: kinds[number](engine), lambda: wait_cold(engine))


def config() -> casemate.Config:
    return msgspec.structs.replace(casemate.load_config(), pool=casemate.PoolConfig(idle=WARM_IDLE_S))


def in_parts(
    engine: casemate.Engine, runs: int, run: Callable[[int], None], rest: Callable[[], None]
) -> Iterator[Sample]:
    """Carry out the runs from some threads, and count after each part, when there is `rest`."""
    first: Counts | None = None
    started_s = time.monotonic()
    for part in range(PARTS):
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(run, range(runs * part // PARTS, runs * (part + 1) // PARTS)):
                continue
        rest()
        gc.collect()
        give_back_memory()
        counts = settled(engine, first)
        first = first or counts
        yield Sample(
            runs=runs * (part + 1) // PARTS,
            seconds=time.monotonic() - started_s,
            counts=counts,
            engine_bytes=anonymous_bytes("self"),
            launcher_bytes=anonymous_bytes(engine.backend.launcher.pid),
        )


# With kills --------------------------------------------------------------------------------------------


class Chaos:
    """Warm runs in all languages while things are killed, and how they ended."""

    def __init__(self, runs: int, seed: int) -> None:
        self.runs = runs
        self.seed = seed
        self.kills = kill_program(seed, runs)
        self.ends: Counter[str] = Counter()
        self.hits: Counter[Target] = Counter()
        all_programs = programs()
        self._programs = random.Random(seed).choices(list(all_programs), list(all_programs.values()), k=runs)

    def soak(self) -> Iterator[Sample]:
        """A sample after each part."""
        with casemate.Engine() as engine:
            killer = Killer(engine)
            self.hits = killer.hits
            for program in programs():
                self._run(engine, program, random.Random(self.seed))
            self.ends.clear()

            def run(number: int) -> None:
                chance = random.Random(f"{self.seed}-{number}")
                if number in self.kills:
                    killer.strike(self.kills[number], chance)
                self._run(engine, self._programs[number], chance)

            def rest() -> None:
                engine.rest()
                casemate.execute(["true"], engine=engine)  # with the launcher that the next runs will have
                engine.rest()

            yield from in_parts(engine, self.runs, run, rest)

    def _run(self, engine: casemate.Engine, program: Program, chance: random.Random) -> None:
        try:
            end = str(program(engine, chance).reason)
        except casemate.CasemateError as error:
            end = error.code
        self.ends[end] += 1

    def problem(self) -> str:
        """Runs that ended otherwise than by themselves are those from under which something was killed."""
        undisturbed = {str(reason) for reason in Reason} - DISTURBED
        disturbed = sum(number for end, number in self.ends.items() if end not in undisturbed)
        most = self.hits.total() * THREADS
        return f"{disturbed} runs were disturbed by {self.hits.total()} kills" if disturbed > most else ""


# Telling -----------------------------------------------------------------------------------------------

HEADER: Final = (
    *("runs", "s", "fds", "fds l.", "procs", "groups", "mounts", "spaces", "threads", "ids"),
    *("engine KiB", "launcher KiB"),
)


def row(sample: Sample) -> str:
    counts = sample.counts
    numbers = (
        sample.runs,
        round(sample.seconds),
        counts.descriptors,
        counts.launcher_descriptors,
        counts.processes,
        counts.groups,
        counts.mounts,
        counts.namespaces,
        counts.threads,
        counts.ids,
        sample.engine_bytes // KIB,
        sample.launcher_bytes // KIB,
    )
    return "  ".join(f"{number:>{len(name)}}" for name, number in zip(HEADER, numbers, strict=True))


def growth(samples: Sequence[Sample]) -> list[str]:
    """What grew, in words. Memory has settled by the middle; until then it depends on how many threads met."""
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    found = [
        f"{name}: {getattr(first.counts, name)} at first, {getattr(last.counts, name)} at last"
        for name in Counts.__struct_fields__
        if getattr(first.counts, name) < getattr(last.counts, name)
    ]
    if last.engine_bytes - middle.engine_bytes > ENGINE_GROWTH_MAX_BYTES:
        found.append(f"memory of the engine: {last.engine_bytes - middle.engine_bytes} bytes")
    if last.launcher_bytes - middle.launcher_bytes > LAUNCHER_GROWTH_MAX_BYTES:
        found.append(f"memory of the launcher: {last.launcher_bytes - middle.launcher_bytes} bytes")
    return found


def slope(samples: Sequence[Sample], name: str) -> float:
    """Bytes by which memory rises with each run of the second half, when it has settled: the line that fits best."""
    later = samples[len(samples) // 2 :]
    runs, sizes = [sample.runs for sample in later], [getattr(sample, name) for sample in later]
    return statistics.linear_regression(runs, sizes).slope


def tell(samples: Iterable[Sample]) -> list[Sample]:
    """Print each when it comes."""
    print("  ".join(HEADER))
    kept = []
    for sample in samples:
        kept.append(sample)
        print(row(sample), flush=True)
    for name in ("engine", "launcher"):
        print(f"memory of the {name}: {slope(kept, f'{name}_bytes'):+.1f} bytes a run")
    return kept


def conclude(samples: Sequence[Sample], problem: str = "") -> int:
    found = [*growth(samples), *([problem] if problem else [])]
    print("grown: " + "; ".join(found) if found else "nothing has grown")
    return 1 if found else 0


def soak_with_kills(runs: int, seed: int) -> int:
    chaos = Chaos(runs, seed)
    print(f"kills by seed {seed}: {written(chaos.kills)}")
    samples = tell(chaos.soak())
    print("killed: " + ", ".join(f"{number} {target.name.lower()}" for target, number in chaos.hits.most_common()))
    print("ended: " + ", ".join(f"{number} {end}" for end, number in chaos.ends.most_common()))
    return conclude(samples, chaos.problem())


def soak_of_all_kinds(runs: int, seed: int, *, warm: bool) -> int:
    samples = tell(soak(runs, seed, warm=warm))
    kinds = Counter(random.Random(seed).choices(list(KINDS), weights=list(KINDS.values()), k=runs))
    print(", ".join(f"{number} {kind.__name__}" for kind, number in kinds.most_common()))
    return conclude(samples)


def main() -> int:
    parser = argparse.ArgumentParser(description="Many runs in a row: nothing may grow.")
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--warm", action="store_true", help="in sandboxes that are made ahead")
    parser.add_argument("--kills", action="store_true", help="warm, in all languages, while things are killed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        if options.kills:
            return soak_with_kills(options.runs, options.seed)
        return soak_of_all_kinds(options.runs, options.seed, warm=options.warm)
    except Unexpected as error:
        print(f"unexpected: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
