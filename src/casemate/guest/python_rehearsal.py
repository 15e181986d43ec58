"""A program that does a little of everything, for interpreters that are started ahead of theirs."""

from __future__ import annotations

import io

REHEARSAL = """
def count(first, *rest, step=1, **more):
    for number in range(first, 4, step):
        if number > 1 and rest: continue
        try: yield number
        except ValueError as error: raise KeyError from error
        finally: more.clear()

class Thing:
    squares = [i ** 2 for i in range(4) if i]
    def __init__(self, name): self.name = f"{name!r} {len(self.squares):>3} {1 / 3:.2f}"
    def __repr__(self): return "<%s>" % self.name

with io.TextIOWrapper(io.BytesIO(), "utf-8") as file:
    things = {key: Thing(key) for key in "ab"} | {"c": (1, 2.5, None), "d": lambda x: x + 1}
    print(things["a"], sum(count(0)), sorted([3, 1, 2]), ", ".join(map(str, {4, 5})), "x".upper().split(), file=file)
while things: things.popitem()
"""


def rehearse() -> None:
    """Run it: what it touches for the first time is then in memory."""
    exec(compile(REHEARSAL, "<string>", "exec"), {"__name__": "rehearsal", "io": io})
