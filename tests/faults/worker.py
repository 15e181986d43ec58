"""An engine at work, to be killed: `python worker.py threads|asyncio|sandboxes|interrupted MARK [MS]`.

Every guest's command line holds the mark. A line on stdout says that the work has begun.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading

import casemate

AT_ONCE = 3


def say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def command(mark: str, number: int) -> list[str]:
    """A quick one, and one that would stay with a child in a session of its own."""
    quick = ["sh", "-c", f": {mark}"]
    return ["sh", "-c", f"setsid sleep 1000 & sleep 1000 # {mark}"] if number % 3 == 2 else quick


def work(engine: casemate.Engine, mark: str) -> None:
    for number in itertools.count():
        casemate.execute(command(mark, number), limits={"timeout": "20ms"}, engine=engine)


def threads(mark: str) -> None:
    engine = casemate.Engine(warm=False)
    for _ in range(AT_ONCE):
        threading.Thread(target=work, args=(engine, mark), daemon=True).start()
    say_ready()
    threading.Event().wait()


def tasks(mark: str) -> None:
    async def repeat(engine: casemate.Engine) -> None:
        for number in itertools.count():
            await casemate.aexecute(command(mark, number), limits={"timeout": "20ms"}, engine=engine)

    async def several() -> None:
        engine = casemate.Engine(warm=False)
        say_ready()
        await asyncio.gather(*(repeat(engine) for _ in range(AT_ONCE)))

    asyncio.run(several())


def sandboxes(mark: str) -> None:
    engine = casemate.Engine(warm=False)
    say_ready()
    while True:
        with casemate.Sandbox("bash", engine=engine) as sandbox:
            sandbox.run(f"sleep 1000 & : {mark}")
            sandbox.files.write("a/b", "x")
            sandbox.open_pty(["sh", "-c", f"sleep 1000 # {mark}"])
            sandbox.exec(["sh", "-c", f"sleep 1000 # {mark}"], limits={"timeout": "20ms"})


def interrupted(mark: str, after_ms: float) -> None:
    """Ctrl-C wherever the interpreter happens to be, and then the ordinary end of a program."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with casemate.Engine(warm=False) as engine:
        casemate.execute(["true"], engine=engine)
        say_ready()
        signal.signal(signal.SIGALRM, press)
        signal.setitimer(signal.ITIMER_REAL, after_ms / 1000)
        casemate.execute(["sh", "-c", f"setsid sleep 1000 & sleep 1000 # {mark}"], engine=engine)


if __name__ == "__main__":
    kind, mark = sys.argv[1:3]
    if kind == "interrupted":
        interrupted(mark, float(sys.argv[3]))
    else:
        {"threads": threads, "asyncio": tasks, "sandboxes": sandboxes}[kind](mark)
