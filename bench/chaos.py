"""What the soak of warm runs is made of: programs in every language, and a program of kills, by a seed.

A kill hits what waits or works at that moment: an interpreter of a ready sandbox, its init, a zygote, a worker of
isolates, or the launcher of all. What a run may then end with is anything that we say ourselves, a Result or an error
of our tree; one that ended well has to have the right output nevertheless.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from itertools import islice
from typing import Final

import casemate
from casemate.isolation.native import NativeSandbox
from casemate.kernel.processes import command_line, process_tree, read_stat
from casemate.model.result import Reason

GENEROUS: Final = {"timeout": "60s"}
"""What no run meets that does not mean to, also where others use the machine."""
KILL_EVERY_RUNS: Final = 20
TENANTS: Final = ("a", "b", "c")


class Unexpected(Exception):
    """A run ended otherwise than it had to."""


class Target(StrEnum):
    """What a kill hits. The letter is how the program of kills is written down."""

    INTERPRETER = "i"
    INIT = "s"
    ZYGOTE = "z"
    WORKER = "w"
    LAUNCHER = "l"


ZYGOTE_PROGRAM: Final = "/guest/zygote.py"
"""Also its forks have it on their command line."""
WEIGHTS: Final = {Target.INTERPRETER: 12, Target.INIT: 4, Target.ZYGOTE: 2, Target.WORKER: 5, Target.LAUNCHER: 1}
DISTURBED: Final = frozenset({Reason.LOST, Reason.SIGNAL, Reason.INTERNAL})
"""How a run ends from under which something was taken."""

# Programs ----------------------------------------------------------------------------------------------

ECHO: Final = {
    "python": "print(input['n'])\noutput = input['n'] + 1",
    "javascript": "console.log(input.n); return input.n + 1",
    "node": "console.log(input.n); output = input.n + 1",
    "r": "cat(input$n, '\\n'); output <- input$n + 1",
    "bash": 'echo "${input//[!0-9]/}"; output=$((${input//[!0-9]/} + 1))',
}
FAIL: Final = {
    "python": "raise ValueError(1)",
    "javascript": "throw new Error('x')",
    "node": "throw new Error('x')",
    "r": "stop('x')",
    "bash": "exit 3",
}
ENDLESS: Final = {
    "python": "while True: pass",
    "javascript": "for (;;);",
    "node": "for (;;);",
    "r": "repeat 1",
    "bash": "sleep 1000",
}
Program = Callable[[casemate.Engine, random.Random], casemate.Result]


def echo(language: str) -> Program:
    def run(engine: casemate.Engine, chance: random.Random) -> casemate.Result:
        number = chance.randrange(1000)
        result = start(engine, ECHO[language], language, chance, input={"n": number})
        if result.reason is Reason.EXIT and (result.output, result.stdout.text.strip()) != (number + 1, str(number)):
            raise Unexpected(str(result))
        return expect(result, Reason.EXIT)

    return run


def fail(language: str) -> Program:
    reason = Reason.EXIT if language == "bash" else Reason.EXCEPTION
    return lambda engine, chance: expect(start(engine, FAIL[language], language, chance), reason)


def endless(language: str) -> Program:
    def run(engine: casemate.Engine, chance: random.Random) -> casemate.Result:
        result = start(engine, ENDLESS[language], language, chance, limits={"timeout": "50ms"})
        return expect(result, Reason.TIMEOUT)

    return run


def start(
    engine: casemate.Engine, code: str, language: str, chance: random.Random, **options: object
) -> casemate.Result:
    if language == "javascript":
        options["tenant"] = chance.choice(TENANTS)
    # Options that are put together are no longer the typed dictionary that the signature asks for.
    run: Callable[..., casemate.Result] = casemate.run
    return run(code, language, engine=engine, **{"limits": GENEROUS, **options})


def expect(result: casemate.Result, reason: Reason) -> casemate.Result:
    if result.reason not in DISTURBED | {reason}:
        raise Unexpected(f"{result.reason} instead of {reason}: {result}")
    return result


LANGUAGES: Final = {"python": 40, "javascript": 30, "bash": 15, "node": 10, "r": 5}
ENDS: Final = {echo: 18, fail: 1, endless: 1}


def programs() -> dict[Program, int]:
    """Every program with its weight."""
    return {make(language): weight * often for language, weight in LANGUAGES.items() for make, often in ENDS.items()}


# Kills -------------------------------------------------------------------------------------------------


def kill_program(seed: int, runs: int) -> dict[int, Target]:
    """Before which runs something is killed, and what."""
    chance = random.Random(seed)
    targets = list(WEIGHTS)
    weights = list(WEIGHTS.values())
    return {
        number: chance.choices(targets, weights)[0] for number in range(runs) if chance.random() * KILL_EVERY_RUNS < 1
    }


def written(program: Mapping[int, Target]) -> str:
    """The program of kills on one line: `12i 40w`: an interpreter before run 12, a worker before run 40."""
    return " ".join(f"{number}{target}" for number, target in program.items())


class Killer:
    """Carries out kills, and counts those that hit somebody."""

    def __init__(self, engine: casemate.Engine) -> None:
        self._engine = engine
        self.hits: Counter[Target] = Counter()

    def strike(self, target: Target, chance: random.Random) -> None:
        victims = list(self._victims(target))
        if victims and _kill(chance.choice(victims)):
            self.hits[target] += 1

    def _victims(self, target: Target) -> Iterator[int]:
        launcher = self._engine.backend.launcher.pid
        if not launcher:
            return
        if target is Target.LAUNCHER:
            yield launcher
        elif target is Target.ZYGOTE:
            zygotes = (pid for pid in process_tree(launcher) if ZYGOTE_PROGRAM in command_line(pid))
            yield from islice(zygotes, 1)  # the eldest: the others are its forks
        else:
            for sandbox in self._workers() if target is Target.WORKER else self._ready():
                yield from [sandbox.pid] if target is Target.INIT else process_tree(sandbox.pid)[1:2]

    def _ready(self) -> list[NativeSandbox]:
        pool = self._engine.warm._pool
        with pool._changed:
            return [made.thing.sandbox for kind in pool._kinds.values() for made in kind.ready]

    def _workers(self) -> list[NativeSandbox]:
        pool = self._engine.isolates
        with pool._lock:
            return [worker.sandbox for worker in (*pool._idle, *pool._busy)]


def _kill(pid: int) -> bool:
    """Only a process below ours: a number alone may already be somebody else's."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            found = read_stat(pid)  # of the process that the descriptor holds, or of nobody
            if found is not None and not found.dead and os.getpid() in _ancestors(found.parent):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _ancestors(pid: int) -> Iterator[int]:
    while pid:
        yield pid
        found = read_stat(pid)
        pid = found.parent if found else 0
