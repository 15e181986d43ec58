"""`casemate jobs logs` and `search`: what jobs have printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import BinaryIO, Final, TextIO

import msgspec

from casemate.cli.arguments import Parsed
from casemate.cli.messages import printable, say, show
from casemate.cli.service import client_of, limit_of, number_of, text_of
from casemate.errors import FileTransferError
from casemate.model.job_log import LogEntry

SHOWN: Final = 100
_FILTERS: Final = ("job", "runtime", "kind", "stream", "level", "since", "until")


def logs(parsed: Parsed) -> int:
    """Line by line, or as they come."""
    (job_id,) = parsed.words
    tail = number_of(parsed.one("tail"), "--tail", "jobs logs")
    with client_of(parsed) as client:
        if parsed.flag("follow"):
            _show(parsed, client.logs.follow(job_id, tail=tail))
        else:
            _show(parsed, client.logs.read(job_id, tail=tail))
    return 0


def search(parsed: Parsed) -> int:
    """The last lines first."""
    text = parsed.words[0] if parsed.words else None
    limit = limit_of(parsed, "jobs search", SHOWN)
    with client_of(parsed) as client:
        asked = {name: parsed.one(name) for name in _FILTERS}
        for entry in client.logs.search(text, **asked, limit=limit):
            if parsed.flag("json"):
                show([msgspec.json.encode(entry).decode()])
            else:
                show([f"{text_of(entry.at)} {printable(entry.job_id)} {entry.stream}: {harmless(entry.data)}"])
    return 0


def _show(parsed: Parsed, entries: Iterable[LogEntry]) -> None:
    seen = 0
    for entry in entries:
        if seen and entry.seq > seen + 1:
            say(f"{entry.seq - seen - 1} lines are not kept")
        seen = entry.seq
        if parsed.flag("json"):
            show([msgspec.json.encode(entry).decode()])
        else:
            write_entry(entry, sys.stderr if entry.stream == "stderr" else sys.stdout, with_times=parsed.flag("times"))


def write_entry(entry: LogEntry, file: TextIO, *, with_times: bool = False) -> None:
    """A line as it was; on a terminal, as it can do no harm."""
    data = entry.data
    if file.isatty():
        data = harmless(data).encode(file.encoding or "utf-8", "replace") + (b"" if entry.partial else b"\n")
    if with_times:
        data = f"{text_of(entry.at)} {entry.stream}: ".encode() + data
    output: BinaryIO = file.buffer
    try:
        output.write(data)
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileTransferError(f"{entry.stream}: {error.strerror}") from error


def harmless(data: bytes) -> str:
    """A line of a program for a terminal: nothing in it moves a cursor or changes a colour; blanks stay."""
    text = data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)
