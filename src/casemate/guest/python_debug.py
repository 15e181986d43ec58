"""What a program does while it runs, recorded for whoever has asked: what it prints, its calls, its steps.

It is imported only then. The program is to notice nothing: it goes as deep as ever, prints to the files that it prints
to otherwise, and sets trace and profile functions of its own, which ends the recording. Threads that it starts are not
watched.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns as now_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

    Hook = Callable[[FrameType, str, Any], Any]

VALUE_MAX_BYTES = 10 * 1024 * 1024
LINES_MAX = 1000
LINE_MAX_CHARS = 4096
CONSOLE_MAX_CHARS = 262_144
NAME_MAX_CHARS = 200
PROFILE_MAX = 200
FUNCTIONS_MAX = 5000
"""How many are told apart before those that took most time are chosen."""
STEPS_MAX = 5000
STEPS_COUNTED_MAX = 1_000_000
"""Of a program that goes on for longer nobody needs to know how much longer, but it would cost it its time."""
NS_PER_US = 1000


class Recorder:
    """Everything that is recorded of one program. `asked` says what, `path` is the program's own file."""

    def __init__(self, asked: dict[str, bool], path: str) -> None:
        self.console = Console() if asked["console"] else None
        self.profile = Profile(path) if asked["profile"] else None
        self.steps = Steps(path) if asked["steps"] else None
        self.frames = 2 if asked["profile"] else int(asked["steps"])
        """How deep the watching itself goes; the program is given as much more."""

    def start(self) -> None:
        if self.console:
            self.console.begin()
        if self.profile:
            self.profile.switch = Switch("profile", self.profile.note)
            self.profile.switch.turn_on()
        if self.steps:
            self.steps.switch = Switch("trace", self.steps.enter)
            self.steps.switch.turn_on()

    def stop(self) -> None:
        for each in (self.steps, self.profile):
            if each and each.switch:
                each.switch.turn_off()
        if self.console:
            self.console.end()

    def joined(self, payload: bytes) -> bytes:
        """The reply with the record in it; what does not fit beside an output is only counted."""
        for is_complete in (True, False):
            record = _encoded(self.tell(is_complete=is_complete))
            if len(payload) + len(record) < VALUE_MAX_BYTES:
                return b'%s,"debug":%s}' % (payload[:-1], record)
        return payload

    def tell(self, *, is_complete: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, part in (("console", self.console), ("profile", self.profile), ("steps", self.steps)):
            if part:
                listed, dropped = part.tell()
                found[name] = listed if is_complete else []
                found[f"{name}_dropped"] = dropped if is_complete else dropped + len(listed)
        return found


class Switch:
    """One of the interpreter's two hooks, `trace` or `profile`: ours, until the program sets one of its own."""

    def __init__(self, kind: str, hook: Hook) -> None:
        self.kind = kind
        self.hook = hook
        self.set = getattr(sys, f"set{kind}")
        self.get = getattr(sys, f"get{kind}")

    def turn_on(self) -> None:
        setattr(sys, f"get{self.kind}", self.get_by_program)
        self.set(self.hook)

    def turn_off(self) -> None:
        setattr(sys, f"get{self.kind}", self.get)
        if self.get() == self.hook:
            self.set(None)

    def get_by_program(self) -> Any:
        found = self.get()
        return None if found == self.hook else found


class Console:
    """The lines of stdout and stderr, as the program writes them to their files."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.dropped = 0
        self.room = CONSOLE_MAX_CHARS
        self.partial = {"stdout": "", "stderr": ""}
        self.watched: list[Any] = []
        self.began_ns = 0

    def begin(self) -> None:
        self.began_ns = now_ns()
        for stream, file in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            if file is not None:
                self._watch(file, stream)

    def _watch(self, file: Any, stream: str) -> None:
        write = file.write

        def recorded(text: str, /) -> int:
            count: int = write(text)
            self.note(stream, text)
            return count

        file.write = recorded
        self.watched.append((file, recorded))

    def end(self) -> None:
        for file, recorded in self.watched:
            if vars(file).get("write") is recorded:
                del file.write
        for stream, rest in self.partial.items():
            if rest:
                self._add(stream, rest)

    def note(self, stream: str, text: str) -> None:
        at = 0
        while (end := text.find("\n", at)) >= 0:
            if len(self.lines) >= LINES_MAX:
                self.dropped += text.count("\n", at)
                at = text.rfind("\n") + 1
                self.partial[stream] = ""
                break
            self._add(stream, self.partial[stream] + text[at : min(end, at + LINE_MAX_CHARS)])
            self.partial[stream] = ""
            at = end + 1
        self.partial[stream] = (self.partial[stream] + text[at : at + LINE_MAX_CHARS])[:LINE_MAX_CHARS]

    def _add(self, stream: str, text: str) -> None:
        text = text[:LINE_MAX_CHARS]
        if len(text) > self.room or len(self.lines) >= LINES_MAX:
            self.dropped += 1
            return
        self.room -= len(text)
        level = "log" if stream == "stdout" else "error"
        at_us = (now_ns() - self.began_ns) // NS_PER_US
        self.lines.append({"stream": stream, "level": level, "text": text, "at_us": at_us})

    def tell(self) -> tuple[list[dict[str, Any]], int]:
        return self.lines, self.dropped


class Steps:
    """The lines of the program's own file in the order in which they are reached.

    No function is called here, so that each hook needs one frame: the program goes as deep as without it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[tuple[int | None, CodeType]] = []
        self.room = STEPS_MAX
        self.dropped = 0
        self.switch: Switch | None = None

    def enter(self, frame: FrameType, event: str, _: Any) -> Hook | None:
        return self.line if event == "call" and frame.f_code.co_filename == self.path else None

    def line(self, frame: FrameType, event: str, _: Any) -> Hook:
        if event != "line":
            return self.line
        if self.room:
            self.room -= 1
            self.found += ((frame.f_lineno, frame.f_code),)
        else:
            self.dropped += 1
            if self.dropped >= STEPS_COUNTED_MAX and self.switch:
                self.switch.turn_off()
        return self.line

    def tell(self) -> tuple[list[dict[str, Any]], int]:
        return [{"line": line or 0, "function": _name(code)} for line, code in self.found], self.dropped


class Profile:
    """Calls of all functions, with the time spent in each, alone and with what it called, once the program has begun.

    The hook calls none that are written in Python, for the same reason.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.counts: dict[Any, list[int]] = {}
        """Of each function: calls, time of its own, time in all, how often it is being called now."""
        self.open: list[tuple[list[int], int]] = []
        """Calls that have not ended: what is counted of the function, and when it began."""
        self.inner: list[int] = []
        """Of each of these, the time of what it has called."""
        self.others = [0, 0, 0, 0]
        """Of all that came when there were too many to be told apart."""
        self.ours = [0, 0, 0, 0]
        self.switch: Switch | None = None

    def note(self, frame: FrameType, event: str, what: Any) -> None:
        now = now_ns()
        if event in {"call", "c_call"}:
            code = frame.f_code
            if not self.open and (event == "c_call" or code.co_filename != self.path):
                return
            key = code if event == "call" else what.__name__
            if code.co_filename == __file__:
                counts = self.ours
            elif len(self.counts) < FUNCTIONS_MAX:
                counts = self.counts.setdefault(key, [0, 0, 0, 0])
            else:
                counts = self.counts.get(key, self.others)
            counts[0] += 1
            counts[3] += 1
            self.open.append((counts, now))
            self.inner.append(0)
        elif self.open:
            counts, began = self.open.pop()
            whole = now - began
            counts[1] += whole - self.inner.pop()
            counts[3] -= 1
            if counts[3] == 0:
                counts[2] += whole
            if self.inner:
                self.inner[-1] += whole

    def tell(self) -> tuple[list[dict[str, Any]], int]:
        known = sorted(self.counts.items(), key=lambda entry: -entry[1][1])
        kept = [_entry(key, counts) for key, counts in known[:PROFILE_MAX]]
        return kept, len(known) - len(kept) + bool(self.others[0])


def _entry(key: Any, counts: list[int]) -> dict[str, Any]:
    is_built_in = type(key) is str
    return {
        "function": key[:NAME_MAX_CHARS] if is_built_in else _name(key) or "<module>",
        "file": "" if is_built_in else key.co_filename[-NAME_MAX_CHARS:],
        "line": 0 if is_built_in else key.co_firstlineno,
        "calls": counts[0],
        "own_us": counts[1] // NS_PER_US,
        "total_us": counts[2] // NS_PER_US,
    }


def _name(code: Any) -> str:
    """Of the function; at the top level there is none."""
    name: str = getattr(code, "co_qualname", code.co_name)
    return "" if name == "<module>" else name[:NAME_MAX_CHARS]


def _encoded(value: Any) -> bytes:
    """As JSON. Half of a surrogate pair, which UTF-8 cannot hold, becomes the replacement character."""
    return _text(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _text(value: Any) -> str:
    from _json import encode_basestring

    if isinstance(value, dict):
        pairs = ",".join([f'"{key}":{_text(each)}' for key, each in value.items()])
        return f"{{{pairs}}}"
    if isinstance(value, list):
        return f"[{','.join([_text(each) for each in value])}]"
    return encode_basestring(value) if isinstance(value, str) else str(value)
