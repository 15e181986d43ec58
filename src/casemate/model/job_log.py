"""What jobs print, as lines: how they are kept, at what level they are, and what is found in them. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec

from casemate.errors import InvalidInput
from casemate.job_limits import LOG_QUERY_WORDS_MAX, LOG_WORD_MAX_CHARS

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
STDERR: Final = "stderr"

_LEVELS: Final[dict[str, Level]] = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warning",
    "warning": "warning",
    "err": "error",
    "error": "error",
    "fatal": "error",
    "critical": "error",
    "panic": "error",
}
_WORD: Final = re.compile(r"\w+")
_CONTROL: Final = re.compile(r"\x1b\[[0-?]{0,32}[ -/]{0,8}[@-~]")
"""Of a terminal, such as a colour; a word may stand just behind it."""

_SAID_WITHIN_CHARS: Final = 80
"""A line says its level at its beginning, or not at all."""

_SAID: Final = re.compile(rf"(?<![\w.])({'|'.join(_LEVELS)})(?![\w.])", re.IGNORECASE)
_SAID_IN_JSON: Final = re.compile(rf'"(?:level|severity|levelname)"\s*:\s*"({"|".join(_LEVELS)})"', re.IGNORECASE)


class JobLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of a job's log, without its end. Exactly one of `text` and `base64` is there.

    `seq` counts lines from 1, over all attempts; numbers that are missing are of lines that are not kept. `offset` is
    the place of its first byte in the stream of its attempt. `partial`: its line goes on in the next one of the stream.
    """

    seq: int
    attempt: int
    stream: str
    at_us: int
    offset: int
    text: str | None = None
    base64: bytes | None = None
    partial: bool = False

    @property
    def data(self) -> bytes:
        """Its bytes, with the end of the line if it has one."""
        found = self.base64 if self.base64 is not None else (self.text or "").encode()
        return found if self.partial else found + b"\n"

    @property
    def readable(self) -> str:
        """Its text, whatever its bytes are."""
        return self.text if self.text is not None else (self.base64 or b"").decode("utf-8", "replace")

    @property
    def level(self) -> Level:
        """What it says of itself; otherwise `error` on stderr and `info` on stdout."""
        return said_level(self.readable) or ("error" if self.stream == STDERR else "info")


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a job's log, as the service tells it: see `JobLine`."""

    job_id: str
    seq: int
    attempt: int
    stream: str
    level: str
    at: datetime
    offset: int
    text: str | None = None
    base64: bytes | None = None
    partial: bool = False

    @property
    def data(self) -> bytes:
        """Its bytes, with the end of the line if it has one."""
        found = self.base64 if self.base64 is not None else (self.text or "").encode()
        return found if self.partial else found + b"\n"


def line_of(data: bytes, *, seq: int, attempt: int, stream: str, at_us: int, offset: int, partial: bool) -> JobLine:
    """A line from its bytes, whatever they are."""
    text: str | None = None
    with suppress(UnicodeDecodeError):
        text = data.decode()
    return JobLine(
        seq=seq,
        attempt=attempt,
        stream=stream,
        at_us=at_us,
        offset=offset,
        text=text,
        base64=data if text is None else None,
        partial=partial,
    )


def said_level(text: str) -> Level | None:
    """The level that a line names at its beginning, or as a member of JSON."""
    if text.startswith("{"):
        found = _SAID_IN_JSON.search(text)
    else:
        found = _SAID.search(_CONTROL.sub("", text[:_SAID_WITHIN_CHARS]))
    return _LEVELS[found[1].lower()] if found else None


def words_of(text: str) -> set[str]:
    """The words by which a text is found: letters, digits and underscores, without regard to case."""
    plain = _CONTROL.sub(" ", text) if "\x1b" in text else text
    return {word[:LOG_WORD_MAX_CHARS] for word in _WORD.findall(plain.lower())}


def asked_words(text: str) -> tuple[str, ...]:
    """The words of somebody who looks for something. Raises InvalidInput for none, and for too many."""
    found = tuple(sorted(words_of(text)))
    if not found:
        raise InvalidInput("text", "has no word in it", hint="words are letters, digits and underscores")
    if len(found) > LOG_QUERY_WORDS_MAX:
        raise InvalidInput("text", f"has more than {LOG_QUERY_WORDS_MAX} words")
    return found


def has_words(text: str, wanted: tuple[str, ...]) -> bool:
    """Whether every one of these is the beginning of a word of the text."""
    lowered = text.lower()
    if not all(word in lowered for word in wanted):
        return False
    found = words_of(text)
    return all(any(each.startswith(word) for each in found) for word in wanted)
